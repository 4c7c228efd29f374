"""`sched-sim`: every scheduling policy on named crowds of agents, in virtual time.

The scheduling core and the policies are the kernel's own; the engine is a model (`kernel/scheduler/simulation.py`). The figures
do not depend on the machine: a crowd is the same for the same seed, and each figure is the median over several seeds. As a
program of its own (`python -m aios.bench.sched_sim`) it prints them as the table of docs/concepts/choosing-a-policy.md.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median
from time import perf_counter
from types import MappingProxyType

from anyio.lowlevel import checkpoint
from msgspec import Struct
from msgspec.structs import replace

from aios.abi.trace import TracedAgent
from aios.bench.bench import Bench, Settings
from aios.bench.rows import Bar, Report, Series, Spec, rounded
from aios.bench.sched_traces import BATCH, INTERACTIVE, SEED, make_workload, paper
from aios.config import SchedulerConfig
from aios.errors import NotFound
from aios.kernel.scheduler.engine_model import EngineModel
from aios.kernel.scheduler.outcome import Outcome
from aios.kernel.scheduler.policies import POLICIES, make_policy
from aios.kernel.scheduler.policy import Fifo, RoundRobin
from aios.kernel.scheduler.residence import MemoryModel
from aios.kernel.scheduler.simulation import simulate
from aios.kernel.scheduler.trace import decode_trace

NAME = "sched-sim"
N_SEEDS = 5
ALL = "all"
SHORT_FIRST = frozenset({"mlfq", "bvt"})
FAIR = frozenset({"fair", "bvt"})
MAX_INTERACTIVE = 0.2
MAX_MAKESPAN = 1.05
MIN_JAIN = 0.95
N_MANY = 5000
MAX_MANY_S = 10.0


class Figure(Struct, frozen=True):
    """What a workload is judged by. The bar is for the policies that promise it."""

    unit: str
    about: str
    of: Callable[[Outcome], float]
    promised_by: frozenset[str] = frozenset()
    bar: Bar | None = None


FIGURES: Mapping[str, Figure] = MappingProxyType(
    {
        "interactive": Figure(
            "s",
            "p95 of short calls among 24 long agents",
            lambda outcome: outcome.turnaround_s(INTERACTIVE).p95,
            SHORT_FIRST,
            Bar(MAX_INTERACTIVE, on_ratio=True),
        ),
        "interactive-batch": Figure(
            "s",
            "mean of the long agents' calls beside them",
            lambda outcome: outcome.turnaround_s(BATCH).mean,
        ),
        "interactive-makespan": Figure(
            "s",
            "until all of them are done",
            lambda outcome: outcome.makespan_s,
            SHORT_FIRST,
            Bar(MAX_MAKESPAN, on_ratio=True),
        ),
        "one-owner": Figure(
            "s",
            "p95 of the short calls if one owner made all of them",
            lambda outcome: outcome.turnaround_s(INTERACTIVE).p95,
            SHORT_FIRST,
            Bar(MAX_INTERACTIVE, on_ratio=True),
        ),
        "ten-times": Figure(
            "index",
            "Jain index of four owners, one with ten times the agents",
            lambda outcome: outcome.jain,
            FAIR,
            Bar(MIN_JAIN, is_minimum=True),
        ),
        "heavy-tail": Figure(
            "times",
            "mean slowdown where a few calls are very long",
            lambda outcome: outcome.slowdown().mean,
        ),
        "deadlines": Figure(
            "calls", "share of calls that missed their deadline", lambda outcome: outcome.late_share
        ),
        "tools": Figure(
            "s",
            "mean of all calls where tools run between them",
            lambda outcome: outcome.turnaround_s().mean,
        ),
        "flood": Figure(
            "s",
            "p95 of usual calls while one owner floods",
            lambda outcome: outcome.turnaround_s("usual").p95,
        ),
    }
)
REPLAYED: Mapping[str, Figure] = MappingProxyType(
    {
        "mean": Figure("s", "mean of all calls", lambda outcome: outcome.turnaround_s().mean),
        "p95": Figure("s", "p95 of all calls", lambda outcome: outcome.turnaround_s().p95),
        "slowdown": Figure("times", "mean slowdown", lambda outcome: outcome.slowdown().mean),
        "wait": Figure("s", "the longest wait", lambda outcome: outcome.waited_s().longest),
        "working-set": Figure(
            "tokens", "the most that begun contexts took", lambda outcome: outcome.peak_tokens
        ),
        "jain": Figure("index", "Jain index of the owners", lambda outcome: outcome.jain),
        "makespan": Figure("s", "until all are done", lambda outcome: outcome.makespan_s),
    }
)
_SPEED = Spec(
    NAME, "speed", "s", Bar(MAX_MANY_S), f"wall time to simulate {N_MANY} agents under fifo"
)
_GAPS = Spec(
    NAME,
    "gaps-read",
    "ms",
    Bar(0.6, on_ratio=True),
    "a call has a slot and its context is read; the baseline foresees nothing",
)
GAPS_RAM_TOKENS = 14_000
"""Memory for a part of the contexts of the crowd `tool-gaps`."""
_ADMISSION = Spec(
    NAME,
    "admission",
    "s",
    Bar(0.6, on_ratio=True),
    "makespan under rr where contexts outgrow all tiers; the baseline admits all",
)
TIER_TOKENS = 4000
"""What memory holds, and the disk as much again, of the contexts of the crowd `working-set`."""
SEATED_TOKENS = 600
"""Of each of them at least, in a slot."""


def policies_of(choice: str) -> tuple[str, ...]:
    """The policies that `--policy` asks for.

    Raises:
        NotFound: There is no such policy.
    """
    if choice == ALL:
        return tuple(POLICIES)
    if choice not in POLICIES:
        raise NotFound(f"no policy {choice!r}", hint=f"there are: {', '.join(POLICIES)}; or `all`")
    return (choice,)


def bench_of(choice: str = ALL, trace: Path | None = None) -> Bench:
    """The bench for some policies, on the named workloads or on a recorded trace.

    Raises:
        InvalidCall: The trace is malformed.
        NotFound: There is no such policy.
        OSError: The trace cannot be read.
    """
    policies = policies_of(choice)
    if trace is None:
        specs = (*_specs(FIGURES, policies), _GAPS, _ADMISSION, _SPEED)

        async def measure(settings: Settings, report: Report) -> None:
            await _measure_workloads(settings, report, policies)
    else:
        agents = decode_trace(trace.read_bytes())
        specs = _specs(REPLAYED, policies)

        async def measure(settings: Settings, report: Report) -> None:
            await _replay(settings, report, agents=agents, policies=policies)

    return Bench(NAME, "scheduling policies in virtual time", 120.0, specs, measure)


def outcome_of(agents: Sequence[TracedAgent], policy: str) -> Outcome:
    """Simulate a policy as it is configured by default."""
    return simulate(agents, POLICIES[policy](SchedulerConfig(policy=policy)))


def workload_of(figure: str) -> str:
    """The workload that a figure is of."""
    return INTERACTIVE if figure.startswith(INTERACTIVE) else figure


def _specs(figures: Mapping[str, Figure], policies: Sequence[str]) -> tuple[Spec, ...]:
    return tuple(
        Spec(
            NAME,
            f"{name}-{policy}",
            figure.unit,
            figure.bar if policy in figure.promised_by else None,
            figure.about,
        )
        for name, figure in figures.items()
        for policy in policies
    )


async def _measure_workloads(settings: Settings, report: Report, policies: Sequence[str]) -> None:
    seeds = range(SEED, SEED + (1 if settings.quick else N_SEEDS))
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    for name in dict.fromkeys(map(workload_of, FIGURES)):
        settings.say(f"{name}: {len(seeds)} crowds under each policy")
        crowds = [make_workload(name, seed) for seed in seeds]
        for policy in dict.fromkeys((Fifo.name, *policies)):
            outcomes[name, policy] = [outcome_of(agents, policy) for agents in crowds]
            await checkpoint()
    for name, figure in FIGURES.items():
        base = Series(tuple(map(figure.of, outcomes[workload_of(name), Fifo.name]))).median
        for policy in policies:
            found = outcomes[workload_of(name), policy]
            _report(report, f"{name}-{policy}", figure, found=found, base=base)
    _measure_gaps(report, seeds)
    _measure_admission(report, seeds)
    begun_s = perf_counter()
    simulate(paper(N_MANY), Fifo())
    report.add(_SPEED.row, perf_counter() - begun_s)


def _measure_gaps(report: Report, seeds: Iterable[int]) -> None:
    """What it saves to know when agents will be back, under the default policy."""
    crowds = [make_workload("tool-gaps", seed) for seed in seeds]
    found: dict[bool, list[Outcome]] = {}
    for foresees in (False, True):
        memory = MemoryModel(ram_tokens=GAPS_RAM_TOKENS, foresees=foresees)
        engine = EngineModel(memory=memory)
        found[foresees] = [
            simulate(agents, make_policy(SchedulerConfig()), engine) for agents in crowds
        ]
    without, with_ = (
        Series(tuple(1000 * each.read_s for each in found[is_on])) for is_on in (False, True)
    )
    means = [median(each.turnaround_s().mean for each in found[is_on]) for is_on in (False, True)]
    note = f"a call takes {means[1]:.3g} s in the mean, {means[0]:.3g} s without"
    report.add(_GAPS.row, with_.median, baseline=without.median, spread=with_.spread, note=note)


def _measure_admission(report: Report, seeds: Iterable[int]) -> None:
    """What it saves to begin no more contexts than slots and pages can hold."""
    crowds = [make_workload("working-set", seed) for seed in seeds]
    memory = MemoryModel(ram_tokens=TIER_TOKENS, disk_tokens=TIER_TOKENS)
    all_at_once = EngineModel(memory=memory)
    budget_tokens = 2 * TIER_TOKENS + all_at_once.n_slots * SEATED_TOKENS
    found = [
        [simulate(agents, RoundRobin(), engine) for agents in crowds]
        for engine in (all_at_once, replace(all_at_once, budget_tokens=budget_tokens))
    ]
    without, with_ = (Series(tuple(each.makespan_s for each in outcomes)) for outcomes in found)
    lost, kept = (median(each.n_recomputed for each in outcomes) for outcomes in found)
    note = f"{kept:g} tokens are computed again, {lost:g} without"
    report.add(
        _ADMISSION.row, with_.median, baseline=without.median, spread=with_.spread, note=note
    )


async def _replay(
    settings: Settings, report: Report, *, agents: Sequence[TracedAgent], policies: Sequence[str]
) -> None:
    settings.say(f"replaying {len(agents)} agents")
    base = outcome_of(agents, Fifo.name)
    for policy in policies:
        found = [outcome_of(agents, policy)]
        await checkpoint()
        for name, figure in REPLAYED.items():
            _report(report, f"{name}-{policy}", figure, found=found, base=figure.of(base))


def _report(
    report: Report, row: str, figure: Figure, *, found: Sequence[Outcome], base: float
) -> None:
    series = Series(tuple(map(figure.of, found)))
    n_preemptions = median(outcome.n_preemptions for outcome in found)
    wait_s = median(outcome.waited_s().longest for outcome in found)
    note = f"{n_preemptions:g} preemptions, longest wait {rounded(wait_s):g} s"
    report.add(row, series.median, baseline=base, spread=series.spread, note=note)


def table(figures: Iterable[str] = FIGURES) -> str:
    """The figures of all policies as a Markdown table, a line for each figure."""
    lines = [
        f"| figure | {' | '.join(POLICIES)} |",
        f"|---|{'---|' * len(POLICIES)}",
    ]
    for name, of_same in groupby(figures, workload_of):
        shared = [FIGURES[each] for each in of_same]
        cells: list[list[str]] = [[] for _ in shared]
        for policy in POLICIES:
            crowds = (make_workload(name, SEED + i) for i in range(N_SEEDS))
            found = [outcome_of(agents, policy) for agents in crowds]
            for row, figure in zip(cells, shared, strict=True):
                row.append(f"{median(map(figure.of, found)):.3g}")
        lines += [
            f"| {figure.about}, {figure.unit} | {' | '.join(row)} |"
            for row, figure in zip(cells, shared, strict=True)
        ]
    return "\n".join(lines) + "\n"


BENCH = bench_of()

if __name__ == "__main__":
    sys.stdout.write(table())
