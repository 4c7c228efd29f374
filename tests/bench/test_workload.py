"""The `workload` bench: how the runs of both sides become rows."""

import anyio
import pytest

from aios.bench.agents import Outcome, Turn
from aios.bench.bench import Shape
from aios.bench.children import scratch_folder
from aios.bench.rows import Report, Row
from aios.bench.workload import (
    SPECS,
    Endpoint,
    _report_all,
    bench_of,
    least_of,
    report_least,
    run_agents,
    serve_agents,
)
from aios.configload import load
from aios.engine.models import find_model


def _outcome(makespan_s: float) -> Outcome:
    turns = [Turn(0.1 * i, 0.2 * i, 100, 50, 8) for i in range(1, 21)]
    return Outcome(makespan_s, turns)


def _rows(ours: list[Outcome], theirs: list[Outcome]) -> dict[str, Row]:
    report = Report(SPECS)
    _report_all(report, ours, theirs)
    return {row.row: row for row in report.rows}


def test_medians_of_both_sides_are_compared() -> None:
    rows = _rows([_outcome(9.0), _outcome(11.0)], [_outcome(20.0), _outcome(20.0)])
    makespan = rows["makespan"]
    assert (makespan.value, makespan.baseline, makespan.ratio, makespan.ok) == (
        10.0,
        20.0,
        0.5,
        True,
    )
    assert rows["ttft-p50"].value == 1.1
    assert rows["turn-p95"].value == 4.0
    assert rows["prompt-tokens"].value == 1000
    assert len(rows) == len(SPECS) - 1, "the least is counted apart"


def test_a_slower_makespan_is_not_ok() -> None:
    assert not _rows([_outcome(10.1)], [_outcome(10.0)])["makespan"].ok


def test_without_the_server_our_figures_stand_alone_and_are_not_ok() -> None:
    rows = _rows([_outcome(10.0)], [])
    assert {row.ok for row in rows.values()} == {False}
    assert rows["makespan"].value == 10.0
    assert "llama-server is not built" in rows["makespan"].note


def test_a_failed_call_spoils_every_row() -> None:
    broken = _outcome(1.0)
    broken.failures.append("HTTP 500: boom")
    rows = _rows([broken], [_outcome(10.0)])
    assert {row.ok for row in rows.values()} == {False}
    assert "1 calls failed, the first with: HTTP 500: boom" in rows["makespan"].note


def test_when_every_call_failed_there_are_no_figures() -> None:
    rows = _rows([Outcome(1.0, [], ["HTTP 500: boom"])], [_outcome(10.0)])
    assert {row.value for row in rows.values()} == {None}


def test_each_agent_is_a_guest_of_its_own_on_aios() -> None:
    assert Endpoint("", "aios_token").guest_key(3) == "aios_token.agent-3"
    assert Endpoint("", "").guest_key(3) == "none"


def test_the_bar_of_the_makespan_goes_by_the_size_of_the_load() -> None:
    def limit(shape: Shape) -> float:
        (spec,) = (spec for spec in bench_of(shape).specs if spec.row == "makespan")
        assert spec.bar is not None
        assert spec.bar.on_ratio
        return spec.bar.limit

    assert limit(Shape()) == 1.0
    assert limit(Shape(n_agents=32)) == 1 / 1.6
    assert limit(Shape(64, 2, 16, 29)) == 1 / 1.4
    assert limit(Shape(64, 2, 16, 30)) == 1.0


def test_the_run_with_the_most_prompt_tokens_over_the_least_counts() -> None:
    report = Report(SPECS)
    report_least(report, [_outcome(1.0), _outcome(1.0)], [1000, 960])
    (row,) = report.rows
    assert (row.value, row.baseline, row.ratio, row.ok) == (1000, 960, 1.042, True)
    report = Report(SPECS)
    report_least(report, [_outcome(1.0)], [900])
    assert not report.rows[0].ok


@pytest.mark.model
@pytest.mark.anyio
@pytest.mark.no_cover
async def test_a_load_computes_little_more_than_each_distinct_page_once() -> None:
    shape = Shape(n_agents=2, n_turns=2, max_tokens=4, n_rules=8)
    model = find_model("", load().home)
    with anyio.fail_after(120), scratch_folder() as folder:
        async with serve_agents(model, folder) as endpoint:
            ours = await run_agents(endpoint, shape, seed=1)
    assert ours.failures == []
    (least,) = least_of(model, [ours], shape)
    assert 0.95 * least <= ours.n_computed_tokens <= 1.05 * least
