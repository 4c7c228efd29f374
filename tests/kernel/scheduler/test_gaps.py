"""Gaps are learned robustly, and what is done in one follows from what it costs."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from aios.abi.types import Pid
from aios.kernel.scheduler.gaps import (
    N_FEWEST,
    N_GAPS,
    N_KINDS,
    GapKind,
    Gaps,
    Stay,
    Turnover,
    plan_gap,
)

SEARCH, SHELL = GapKind("agent", ("search",)), GapKind("agent", ("shell",))
ANN = Pid(7)


def learn(gaps: Gaps, kind: GapKind, *lasted_s: float) -> None:
    for each in lasted_s:
        gaps.leave(ANN, kind, 100.0)
        gaps.come_back(ANN, 100.0 + each)


def test_nothing_is_said_before_enough_is_known() -> None:
    gaps = Gaps()
    learn(gaps, SEARCH, *[1.0] * (N_FEWEST - 1))
    assert gaps.leave(ANN, SEARCH, 0.0) is None
    gaps.come_back(ANN, 1.0)
    assert gaps.leave(ANN, SEARCH, 0.0) == Stay(1.0, 1.0, 1.0)


def test_each_tool_has_gaps_of_its_own_and_a_new_one_those_of_its_program() -> None:
    gaps = Gaps()
    learn(gaps, SEARCH, 1.0, 1.0, 1.0)
    learn(gaps, SHELL, 9.0, 9.0, 9.0)
    assert gaps.expected(SEARCH) == Stay(1.0, 1.0, 1.0)
    assert gaps.expected(SHELL) == Stay(9.0, 9.0, 9.0)
    both = gaps.expected(GapKind("agent", ("unheard-of",)))
    assert both is not None
    assert (both.soonest_s, both.latest_s) == (1.0, 9.0)
    assert gaps.expected(GapKind("another")) is None


@given(st.lists(st.floats(0, 10), min_size=N_GAPS, max_size=40), st.floats(1e3, 1e9))
def test_one_tool_that_hangs_changes_little(lasted_s: list[float], hung_s: float) -> None:
    gaps = Gaps()
    learn(gaps, SEARCH, *lasted_s, hung_s)
    stay = gaps.expected(SEARCH)
    assert stay is not None
    assert stay.soonest_s <= stay.usual_s <= stay.latest_s <= 10


def test_who_ends_teaches_nothing() -> None:
    gaps = Gaps()
    learn(gaps, SEARCH, *[1.0] * N_GAPS)
    gaps.leave(ANN, SEARCH, 0.0)
    gaps.forget(ANN)
    gaps.come_back(ANN, 500.0)
    assert gaps.expected(SEARCH) == Stay(1.0, 1.0, 1.0)
    assert len(gaps) == 0


def test_what_is_remembered_is_bounded() -> None:
    gaps = Gaps()
    for number in range(3 * N_KINDS):
        learn(gaps, GapKind(f"p{number}"), *[1.0] * 3)
    gaps.check_invariants()
    assert gaps.expected(GapKind("p0")) is None, (
        "the one that was seen the longest ago is forgotten"
    )
    assert gaps.expected(GapKind(f"p{3 * N_KINDS - 1}")) is not None


stays = st.tuples(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 1e4)).map(
    lambda found: Stay(*sorted(found))
)


@given(stays, st.integers(0, 1000), st.floats(0, 0.1), st.floats(0, 1e5) | st.just(inf))
def test_pages_are_kept_through_gaps_in_which_memory_does_not_turn_over(
    stay: Stay, n_pages: int, page_read_s: float, turnover_s: float
) -> None:
    plan = plan_gap(stay, n_pages=n_pages, page_read_s=page_read_s, turnover_s=turnover_s)
    assert plan.is_kept == (stay.usual_s <= turnover_s)
    assert plan.is_kept != plan.is_paged_out
    assert 0 <= plan.fetch_after_s <= plan.expect_until_s
    if plan.fetch_after_s:
        assert plan.fetch_after_s + n_pages * page_read_s <= stay.soonest_s + 1e-9


def test_memory_turns_over_in_the_time_in_which_all_of_it_is_evicted() -> None:
    turnover = Turnover()
    assert turnover.after_s(n_frames=100, n_evicted=5, now_s=0.0) == inf
    assert turnover.after_s(n_frames=100, n_evicted=5, now_s=10.0) == inf
    assert turnover.after_s(n_frames=100, n_evicted=25, now_s=20.0) == 100.0
    lately_s = [
        turnover.after_s(n_frames=100, n_evicted=25, now_s=float(second))
        for second in range(21, 200)
    ]
    assert lately_s[-1] == inf, "what was evicted long ago counts no more"
