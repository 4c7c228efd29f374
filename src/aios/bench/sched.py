"""`sched`: what a scheduling policy does for short calls among long agents, for owners, and what a decision costs.

Short calls among long agents: the same load against `aios serve` under `fifo` and under the default policy, each with a fresh
daemon, there and back again: a machine that gets slower meanwhile is not held for a slower policy. The other rows are the
pure core in virtual time: they need no model and repeat exactly, but for the time.
"""

from dataclasses import dataclass
from random import Random
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING

import anyio
import httpx

from aios.abi.types import Pid
from aios.bench.agents import (
    CALL_WITHIN_S,
    CallFailed,
    Outcome,
    Turn,
    ask,
    run_load,
    warm_up,
)
from aios.bench.bench import Bench, Settings, Shape
from aios.bench.children import scratch_folder
from aios.bench.rows import Bar, Report, Series, Spec, quantile
from aios.bench.workload import Endpoint, serve_agents
from aios.config import SchedulerConfig
from aios.configload import load
from aios.engine.models import find_model
from aios.kernel.scheduler.core import Arrive, Core, Event, Grant, Leave, Renew, Spend
from aios.kernel.scheduler.outcome import jain
from aios.kernel.scheduler.policies import POLICIES, make_policy
from aios.kernel.scheduler.policy import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "sched"
SHAPE = Shape(n_agents=24)
QUICK_SHAPE = Shape(n_agents=12, n_turns=2, max_tokens=12)
N_SHORT, N_SHORT_QUICK = 30, 8
SHORT_EVERY_S = 1.0
"""Mean time between two short calls, which come at random."""
SHORT_TOKENS = 8
N_PROCESSES, N_FEW = 10_000, 100
N_EVENTS = 20_000
N_SLOTS = 8
CROWD = 10
"""So many times the agents of the others has the one owner of the `jain` row."""
ENGINE = "engine"

SPECS = (
    Spec(NAME, "short-p50", "s", None, "short calls among long agents; the baseline is fifo"),
    Spec(NAME, "short-p95", "s", Bar(0.2, on_ratio=True), "the same, of the slowest twentieth"),
    Spec(NAME, "makespan", "s", Bar(1.05, on_ratio=True), "until all are done; the baseline is fifo"),
    Spec(NAME, "long", "s", None, "until the long agents are done; the baseline is fifo"),
    Spec(NAME, "jain", "", Bar(0.95, is_minimum=True), "equal owners by default, one with 10 x agents"),
    Spec(NAME, "decision-p50", "us", Bar(50.0), "an event with 10,000 processes; the worst policy"),
    Spec(NAME, "decision-p99", "us", Bar(50.0), "the same, of the slowest hundredth"),
    Spec(NAME, "decision-growth", "x", Bar(3.0), "p50 with 10,000 processes / with 100"),
)  # fmt: skip


@dataclass
class Mixed:
    """A run of long agents with short calls among them."""

    outcome: Outcome
    short: list[Turn]
    total_s: float = 0.0
    """Until the last call of either kind is answered."""

    def short_s(self, q: float) -> float:
        """A quantile of the short calls' times."""
        return quantile((turn.total_s for turn in self.short), q)


async def measure(settings: Settings, report: Report) -> None:
    """The rows without a model first."""
    report.add("jain", jain(_shares(SchedulerConfig()).values()))
    n_events = N_EVENTS // 10 if settings.quick else N_EVENTS
    many = {name: _decisions_us(name, N_PROCESSES, n_events) for name in POLICIES}
    worst = max(many, key=lambda name: quantile(many[name], 0.5))
    few = quantile(_decisions_us(worst, N_FEW, n_events), 0.5)
    for row, q in (("decision-p50", 0.5), ("decision-p99", 0.99)):
        report.add(row, max(quantile(times, q) for times in many.values()), note=worst)
    report.add("decision-growth", quantile(many[worst], 0.5) / few)
    await _measure_short(settings, report)


async def _measure_short(settings: Settings, report: Report) -> None:
    default = SchedulerConfig().policy
    model = find_model("", load().home)
    found: dict[str, list[Mixed]] = {"fifo": [], default: []}
    with scratch_folder() as folder:
        for policy in ("fifo", default) if settings.quick else ("fifo", default, default, "fifo"):
            settings.say(f"short calls among long agents under {policy}")
            knobs = {"AIOS_SCHEDULER_POLICY": policy}
            async with serve_agents(model, folder, knobs) as endpoint:
                found[policy].append(await _run(endpoint, settings))
    report_short(report, found["fifo"], found[default], policy=default)


def report_short(report: Report, base: list[Mixed], ours: list[Mixed], *, policy: str) -> None:
    """The rows of the short calls; nothing is whole if a call failed."""
    failures = [failure for mixed in (*base, *ours) for failure in mixed.outcome.failures]
    note = f"the default policy is {policy}"
    if failures:
        note = f"{len(failures)} calls failed, the first with: {failures[0]}"
    rows: dict[str, Callable[[Mixed], float]] = {
        "short-p50": lambda mixed: mixed.short_s(0.5),
        "short-p95": lambda mixed: mixed.short_s(0.95),
        "makespan": lambda mixed: mixed.total_s,
        "long": lambda mixed: mixed.outcome.makespan_s,
    }
    for row, figure in rows.items():
        series, baseline = (Series(tuple(map(figure, runs))) for runs in (ours, base))
        report.add(
            row,
            series.median,
            baseline=baseline.median,
            spread=series.spread,
            note=note,
            is_whole=not failures,
        )


async def _run(endpoint: Endpoint, settings: Settings) -> Mixed:
    """The load and the short calls at once."""
    shape = settings.shape or (QUICK_SHAPE if settings.quick else SHAPE)
    await warm_up(endpoint.base_url, endpoint.guest_key(0))
    mixed = Mixed(Outcome(), [])

    async def agents() -> None:
        done = await run_load(endpoint.base_url, endpoint.guest_key, shape, seed=7)
        mixed.outcome.makespan_s = done.makespan_s
        mixed.outcome.turns += done.turns
        mixed.outcome.failures += done.failures

    begun_s = perf_counter()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agents)
        tasks.start_soon(
            _short_calls, endpoint, N_SHORT_QUICK if settings.quick else N_SHORT, mixed
        )
    mixed.total_s = perf_counter() - begun_s
    return mixed


async def _short_calls(endpoint: Endpoint, n_calls: int, mixed: Mixed) -> None:
    random = Random(7)  # noqa: S311 - not for secrets
    key = f"{endpoint.key}.person"
    messages = [{"role": "user", "content": "Say hello in five words."}]

    async def one() -> None:
        try:
            mixed.short.append((await ask(client, key, messages, SHORT_TOKENS))[1])
        except CallFailed as error:
            mixed.outcome.failures.append(str(error))

    async with (
        httpx.AsyncClient(
            base_url=endpoint.base_url, timeout=CALL_WITHIN_S, trust_env=False
        ) as client,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(n_calls):
            await anyio.sleep(random.expovariate(1 / SHORT_EVERY_S))
            tasks.start_soon(one)


# --- the pure core -----------------------------------------------------------------------------------------------


def _shares(config: SchedulerConfig) -> dict[str, int]:
    """Tokens that each of four owners gets while all their agents always want more; one has ten times the agents."""
    core = Core(policy=make_policy(config), max_queue=N_EVENTS, capacities={ENGINE: N_SLOTS})
    owners = [owner for owner in ("a", "b", "c") for _ in range(2)] + ["big"] * 2 * CROWD
    got = dict.fromkeys(owners, 0)
    running: list[int] = []
    for number, owner in enumerate(owners):
        ticket = Ticket(number, Pid(number), ENGINE, owner=owner)
        running += _granted(core, Arrive(ticket))
    for _ in range(N_EVENTS // 10):
        holder = running.pop(0)
        got[owners[holder]] += config.quantum_tokens
        _granted(core, Spend(holder, config.quantum_tokens))
        running += _granted(core, Renew(holder))
    return got


def _granted(core: Core, event: Event) -> list[int]:
    return [each.ticket_id for each in core.handle(event, 0.0) if isinstance(each, Grant)]


def _decisions_us(policy: str, n_processes: int, n_events: int) -> list[float]:
    """Microseconds of each event while so many processes want turns all the time: spend, leave, and a new call."""
    random = Random(n_processes)  # noqa: S311 - not for secrets
    core = Core(
        policy=make_policy(SchedulerConfig(policy=policy)),
        max_queue=n_processes,
        capacities={ENGINE: N_SLOTS},
    )
    now_s, number, times = 0.0, n_processes, list[float]()

    def ticket(number: int, pid: int) -> Ticket:
        owner, size = f"owner{pid % 100}", random.choice((20, 200, 2000))
        return Ticket(number, Pid(pid), ENGINE, owner=owner, n_prompt_tokens=size)

    pids = {each: each for each in range(n_processes)}
    running = [granted for each in pids for granted in _granted(core, Arrive(ticket(each, each)))]
    while len(times) < n_events:
        holder = running.pop(random.randrange(len(running)))
        number += 1
        now_s += 0.01
        pids[number] = pids.pop(holder)
        for event in (Spend(holder, 24), Leave(holder), Arrive(ticket(number, pids[number]))):
            begun_ns = perf_counter_ns()
            instructions = core.handle(event, now_s)
            times.append((perf_counter_ns() - begun_ns) / 1000)
            running += [each.ticket_id for each in instructions if isinstance(each, Grant)]
    return times


BENCH = Bench(
    NAME, "policies: short calls, owners, the cost of a decision", 1_800.0, SPECS, measure
)
