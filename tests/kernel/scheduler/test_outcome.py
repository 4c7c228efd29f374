"""How outcomes are measured, by hand."""

import pytest

from aios.kernel.scheduler.outcome import CallOutcome, Outcome, distribution, jain


def call(
    kind: str, turnaround_s: float, *, n_preemptions: int = 0, late: bool = False
) -> CallOutcome:
    return CallOutcome(0, 0, kind, 1.0, 1.0 + turnaround_s, 0.5, 0.5, 2.0, n_preemptions, late)


OUTCOME = Outcome(
    (call("a", 4.0, n_preemptions=2), call("a", 8.0), call("b", 2.0, late=True)),
    9.0,
    {"x": 10, "y": 40},
    {"x": 10, "y": 10},
)


def test_figures_are_of_all_calls_or_of_a_kind() -> None:
    assert OUTCOME.turnaround_s().mean == pytest.approx(14 / 3)
    assert OUTCOME.turnaround_s("a").longest == 8.0
    assert OUTCOME.slowdown("b").p50 == 1.0
    assert OUTCOME.waited_s("c").longest == 0.0
    assert OUTCOME.n_preemptions == 2
    assert OUTCOME.late_share == pytest.approx(1 / 3)


def test_shares_count_only_while_all_owners_have_work() -> None:
    assert OUTCOME.jain == 1.0


def test_jain_is_one_for_equal_shares_and_one_nth_when_one_has_all() -> None:
    assert jain([3, 3, 3]) == pytest.approx(1.0)
    assert jain([9, 0, 0]) == pytest.approx(1 / 3)
    assert jain([]) == jain([0, 0]) == 1.0


def test_quantiles_are_values_that_occurred() -> None:
    spread = distribution(range(100))
    assert (spread.p50, spread.p90, spread.p95, spread.p99, spread.longest) == (50, 90, 95, 99, 99)
    assert distribution([]).mean == 0.0


def test_nothing_at_all_is_no_failure() -> None:
    empty = Outcome((), 0.0, {}, {})
    assert (empty.late_share, empty.jain, empty.n_preemptions) == (0.0, 1.0, 0)
