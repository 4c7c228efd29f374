from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.tools.mcp.flow import Flow


def test_a_burst_passes_and_then_so_much_a_second() -> None:
    flow = Flow(burst=10, per_s=2.0)
    assert sum(flow.admit(0.0) for _ in range(100)) == 10
    assert sum(flow.admit(3.0) for _ in range(100)) == 6
    assert sum(flow.admit(1_000.0) for _ in range(100)) == 10


def test_what_is_large_takes_more_and_nothing_where_there_is_too_little() -> None:
    flow = Flow(burst=10, per_s=1.0)
    assert [flow.admit(0.0, n) for n in (7, 4, 3, 1)] == [True, False, True, False]


@given(st.lists(st.floats(0, 1_000), min_size=1, max_size=200))
def test_no_more_passes_than_the_burst_and_the_rate_allow(gaps_s: list[float]) -> None:
    flow, now_s, n_passed = Flow(burst=5, per_s=0.5), 0.0, 0
    for gap_s in gaps_s:
        now_s += gap_s
        n_passed += flow.admit(now_s)
        flow.check_invariants()
    assert n_passed <= 5 + (now_s - gaps_s[0]) * 0.5 + 1e-6 * len(gaps_s)
