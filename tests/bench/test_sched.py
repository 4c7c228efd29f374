"""The `sched` bench: the rows of the pure core, and how short calls run among agents on a daemon without a model."""

import anyio
import pytest

from aios.bench import sched
from aios.bench.agents import Outcome, Turn
from aios.bench.bench import Settings, Shape
from aios.bench.children import daemon, scratch_folder
from aios.bench.rows import Report, Row
from aios.bench.sched import SPECS, Mixed
from aios.bench.workload import Endpoint
from aios.config import SchedulerConfig
from aios.kernel.scheduler.outcome import jain
from aios.kernel.scheduler.policies import POLICIES


def test_fair_shares_among_owners_where_round_robin_does_not() -> None:
    assert jain(sched._shares(SchedulerConfig(policy="fair")).values()) >= 0.95
    assert jain(sched._shares(SchedulerConfig(policy="rr")).values()) < 0.6


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_decisions_are_timed_one_by_one_under_every_policy(policy: str) -> None:
    times = sched._decisions_us(policy, 200, 600)
    assert len(times) >= 600
    assert all(time > 0 for time in times)


def _mixed(short_s: float, makespan_s: float, *failures: str) -> Mixed:
    turns = [Turn(0.1, short_s, 10, 0, 8) for _ in range(20)]
    return Mixed(Outcome(makespan_s, [], list(failures)), turns, makespan_s)


def _rows(base: list[Mixed], ours: list[Mixed]) -> dict[str, Row]:
    report = Report(SPECS)
    sched.report_short(report, base, ours, policy="mlfq")
    return {row.row: row for row in report.rows}


def test_short_calls_must_gain_by_the_default_policy_and_the_makespan_may_not_suffer() -> None:
    rows = _rows(
        [_mixed(10.0, 100.0), _mixed(30.0, 300.0)], [_mixed(1.0, 104.0), _mixed(3.0, 312.0)]
    )
    assert (rows["short-p95"].value, rows["short-p95"].ratio) == (2.0, 0.1)
    assert rows["short-p95"].ok
    assert rows["makespan"].ok
    rows = _rows([_mixed(4.0, 100.0)], [_mixed(1.0, 106.0)])
    assert not rows["short-p95"].ok
    assert not rows["makespan"].ok


def test_a_failed_call_spoils_the_rows_of_short_calls() -> None:
    rows = _rows([_mixed(10.0, 100.0)], [_mixed(1.0, 100.0, "HTTP 500: boom")])
    assert {row.ok for row in rows.values()} == {False}
    assert "boom" in rows["short-p95"].note


@pytest.mark.anyio
async def test_short_calls_and_agents_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sched, "SHORT_EVERY_S", 0.01)
    settings = Settings(quick=True, say=lambda _: None, shape=Shape(2, 2, 8, 1))
    with anyio.fail_after(60), scratch_folder() as folder:
        async with daemon(folder, {"AIOS_ENGINE_KIND": "scripted"}) as served:
            mixed = await sched._run(Endpoint(served.http_url + "/v1", served.token), settings)
    assert mixed.outcome.failures == []
    assert len(mixed.short) == sched.N_SHORT_QUICK
    assert len(mixed.outcome.turns) == 4
    assert mixed.short_s(0.5) > 0
