"""The `scale` bench: how the runs become a row, and that it runs at all."""

import pytest
from tests.bench.measuring import measured

from aios.bench import scale, workload
from aios.bench.agents import Outcome, Turn
from aios.bench.bench import Shape
from aios.bench.rows import Report, Row


def _outcome(n_turns: int, makespan_s: float, *, failures: list[str] | None = None) -> Outcome:
    return Outcome(makespan_s, [Turn(0.1, 0.2, 100, 50, 16)] * n_turns, failures or [])


def _row(few: list[Outcome], many: Outcome) -> Row:
    report = Report(scale.SPECS)
    scale.report_throughput(report, few=few, many=many)
    return report.rows[0]


def test_as_much_done_a_second_clears_the_bar_and_clearly_less_does_not() -> None:
    few = [_outcome(10, 4.0), _outcome(10, 6.0)]
    row = _row(few, _outcome(100, 50.0))
    assert (row.value, row.ok) == (32.0, True)
    assert not _row(few, _outcome(100, 60.0)).ok


def test_a_failed_call_spoils_it() -> None:
    row = _row([_outcome(10, 4.0)], _outcome(100, 10.0, failures=["HTTP 500: boom"]))
    assert not row.ok
    assert "1 calls failed, the first with: HTTP 500: boom" in row.note


@pytest.mark.anyio
@pytest.mark.model
@pytest.mark.no_cover
async def test_a_few_and_many_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "N_FEW_QUICK", 1)
    monkeypatch.setattr(scale, "N_MANY_QUICK", 2)
    monkeypatch.setattr(scale, "SHAPE_QUICK", Shape(n_turns=1, max_tokens=2, n_rules=1))
    monkeypatch.setattr(
        workload, "_n_threads", lambda: 1
    )  # two wait for each other beside another worker
    row = (await measured(scale.BENCH, within_s=240))["throughput"]
    assert row.note == "1 and 2 agents"
    assert row.value is not None
    assert row.value > 0
