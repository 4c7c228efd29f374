"""The `context` bench: what needs no model, and that a switch is counted as one."""

import pytest

from aios.bench.context import NOISE, SPECS, Costs, Pair, join_us, lookup_ms
from aios.bench.interruptions import open_rig
from aios.bench.rows import Report
from aios.config import EngineConfig


def test_the_rows_without_a_model_are_measured() -> None:
    # The bars themselves are the bench's: here another program may have the processor.
    assert 0 < lookup_ms() < 50
    joined_us, copied_us = join_us()
    assert 0 < joined_us < 10 * copied_us, "it is a copy, whatever else the machine does"


def test_a_switch_that_cost_less_than_nothing_clears_no_bar() -> None:
    costs = Costs({"switch-450": [-0.002, -0.001, 0.001]}, [1.0, 1.0])
    report = Report(SPECS)
    costs.report(report)
    (row,) = report.rows
    assert not costs.are_told
    assert (row.ok, row.note) == (False, NOISE)


def test_a_switch_is_compared_with_the_prefill() -> None:
    costs = Costs({"switch-450": [0.004, 0.005, 0.006]}, [1.0, 1.0])
    report = Report(SPECS)
    costs.report(report)
    (row,) = report.rows
    assert costs.are_told
    assert (row.value, row.baseline, row.ratio, row.ok) == (5.0, 1000.0, 0.005, True)


@pytest.mark.model
@pytest.mark.anyio
@pytest.mark.parametrize("from_disk", [False, True])
async def test_two_that_share_a_slot_both_come_to_their_ends(from_disk: bool) -> None:
    config = EngineConfig(kind="llama", n_slots=1, window_tokens=256, n_threads=1)
    async with open_rig(config) as rig:
        pair = Pair(rig, 64, seed=1)
        begun = [await pair.begin(number) for number in range(2)]
        both = [suspended for _, suspended in begun]
        assert all(len(suspended.tokens) >= 65 for suspended in both)
        lasted_s, n_switches = await pair.in_turns(both, from_disk=from_disk)
        assert lasted_s > 0
        assert n_switches > 10
        assert rig.n_recomputed_tokens == 0
