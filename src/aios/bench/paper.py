"""`paper`: the evaluation of AIOS (Mei et al., arXiv 2403.16971) made again: its ablation, and its curve over the number of agents.

docs/concepts/the-paper.md says what each figure stands for and what differs from the paper.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import anyio.to_thread
import msgspec
from anyio.lowlevel import checkpoint

from aios.bench.bench import Bench, Settings
from aios.bench.children import BenchFailed, environment, running, scratch_folder
from aios.bench.paper_ablation import MEMORY, REFUSED, Figures, in_a_kernel, in_virtual_time
from aios.bench.paper_agents import N_AGENTS, PLAIN, SETTLED, Cost
from aios.bench.paper_pages import Crowd, run_contexts
from aios.bench.paper_plots import draw
from aios.bench.rows import Bar, Report, Series, Spec
from aios.bench.sched_traces import evaluation
from aios.config import SchedulerConfig
from aios.kernel.scheduler.policies import POLICIES

NAME = "paper"
VIRTUAL, REAL = "sim", "kernel"
DEFAULT = SchedulerConfig().policy
SCHEDULED = tuple(POLICIES)
N_ABLATION, N_ABLATION_REAL, N_ABLATION_QUICK = 250, 64, 16
SIZES = (250, 500, 1000, 2000, 10_000)
QUICK_PART = 20
"""Crowds are so many times smaller with `--quick`."""
N_REPEATS = 3
QUICK_CROWD = Crowd(200, 50, page_bytes=4096, ram_bytes=80 * 4096)
MAX_GROWTH = 1.1
MAX_MAKESPAN = 1.05
CHILD_WITHIN_S = 120.0

_FIGURES = {
    "makespan": "overall execution time",
    "wait": "average wait of a call",
    "p90": "wait of the slowest tenth",
}


def _ablation_specs() -> Iterator[Spec]:
    for where, without, about in (
        (VIRTUAL, (MEMORY, REFUSED), f"{N_ABLATION} agents in virtual time"),
        (REAL, (REFUSED,), f"{N_ABLATION_REAL} agents in a real kernel"),
    ):
        for figure, what in _FIGURES.items():
            for name in (*without, *SCHEDULED):
                is_promised = (where, figure, name) == (VIRTUAL, "makespan", DEFAULT)
                bar = Bar(MAX_MAKESPAN, on_ratio=True) if is_promised else None
                yield Spec(NAME, f"{where}-{figure}-{name}", "s", bar, f"{what}, {about}")


def _curve_specs() -> Iterator[Spec]:
    flat = Bar(MAX_GROWTH, on_ratio=True)
    for n in SIZES:
        yield Spec(
            NAME, f"sim-agent-{n}", "s", flat, f"time of each of {n} agents, in virtual time"
        )
    for n in SIZES:
        yield Spec(
            NAME, f"sim-queue-{n}", "s", None, f"average wait of a call of {n} agents, likewise"
        )
    for n in SIZES:
        yield Spec(NAME, f"agent-{n}", "us", flat, f"a real kernel's time for each of {n} agents")
    largest = SIZES[-1]
    yield Spec(
        NAME, f"agent-plain-{largest}", "us", None, "the same with the collector as Python sets it"
    )
    yield Spec(
        NAME,
        f"pause-{largest}",
        "ms",
        None,
        "longest pause of the collector; beside it as Python sets it",
    )


_PAGE_SPECS = (
    Spec(NAME, "pages", "pages", Bar(1.0, on_ratio=True), "computed for 2,000 contexts; beside it the different ones"),
    Spec(NAME, "pages-wrong", "pages", Bar(0.0), "that did not come back as they were"),
    Spec(NAME, "pages-lookup", "us", Bar(MAX_GROWTH, on_ratio=True), "look-up with 2,000 contexts; beside it with 250"),
    Spec(NAME, "pages-resume", "ms", None, "the pages of a context in memory again"),
)  # fmt: skip
SPECS = (*_ablation_specs(), *_curve_specs(), *_PAGE_SPECS)


def bench_of(plots: Path | None = None) -> Bench:
    """The bench; with a folder, its figures are drawn there as SVG."""

    async def measure(settings: Settings, report: Report) -> None:
        await _ablate_in_virtual_time(settings, report)
        await _grow_in_virtual_time(settings, report)
        await _keep_pages(settings, report)
        await _ablate_in_a_kernel(settings, report)
        await _grow_in_a_kernel(settings, report)
        if plots is not None:
            values = {row.row: row.value for row in report.rows if row.value is not None}
            settings.say(draw(values, plots))

    return Bench(NAME, "the evaluation of the AIOS paper, made again", 900.0, SPECS, measure)


# --- the ablation ------------------------------------------------------------------------------------------------


async def _ablate_in_virtual_time(settings: Settings, report: Report) -> None:
    settings.say(f"{N_ABLATION} agents in virtual time")
    agents = evaluation(N_ABLATION)
    found = {}
    for name in (MEMORY, REFUSED, *SCHEDULED):
        found[name] = in_virtual_time(agents, name)
        await checkpoint()
    _report(report, VIRTUAL, found, base=found["fifo"])


async def _ablate_in_a_kernel(settings: Settings, report: Report) -> None:
    agents = evaluation(N_ABLATION_QUICK if settings.quick else N_ABLATION_REAL)
    found = {}
    with scratch_folder() as folder:
        for name in (REFUSED, *SCHEDULED):
            settings.say(f"{len(agents)} agents in a real kernel: {name}")
            found[name] = await in_a_kernel(agents, name, folder / name)
    _report(report, REAL, found, base=found["fifo"])


def _report(report: Report, where: str, found: Mapping[str, Figures], *, base: Figures) -> None:
    for name, figures in found.items():
        for figure, value, baseline in (
            ("makespan", figures.makespan_s, base.makespan_s),
            ("wait", figures.wait_mean_s, base.wait_mean_s),
            ("p90", figures.wait_p90_s, base.wait_p90_s),
        ):
            row = f"{where}-{figure}-{name}"
            report.add(row, value, baseline=baseline, note=figures.note)


# --- the number of agents ----------------------------------------------------------------------------------------


async def _grow_in_virtual_time(settings: Settings, report: Report) -> None:
    """Time per agent, which must not grow, and the wait, which grows as the queue does."""
    found = {}
    for n in SIZES:
        n_agents = _at_once(settings, n)
        settings.say(f"{n_agents} agents in virtual time")
        found[n] = in_virtual_time(evaluation(n_agents), DEFAULT)
        await checkpoint()
    each_s = {n: figures.makespan_s / _at_once(settings, n) for n, figures in found.items()}
    for n, figures in found.items():
        note = _note(settings, n)
        report.add(f"sim-agent-{n}", each_s[n], baseline=each_s[SIZES[0]], note=note)
        base = found[SIZES[0]].wait_mean_s
        report.add(f"sim-queue-{n}", figures.wait_mean_s, baseline=base, note=note)


async def _grow_in_a_kernel(settings: Settings, report: Report) -> None:
    """The costs of all sizes in turn, several times: a machine that slows down slows all of them."""
    smallest, largest = SIZES[0], SIZES[-1]
    runs = [(n, SETTLED) for n in SIZES] + [(smallest, PLAIN), (largest, PLAIN)]
    costs: dict[tuple[int, str], list[Cost]] = {run: [] for run in runs}
    with scratch_folder() as folder:
        for _ in range(1 if settings.quick else N_REPEATS):
            for n, collector in runs:
                n_at_once, n_agents = _at_once(settings, n), _at_once(settings, N_AGENTS)
                settings.say(f"{n_at_once} agents at once in a real kernel, collector {collector}")
                cost = await _cost_of(n_at_once, n_agents, collector, folder=folder)
                costs[n, collector].append(cost)
    times = {run: Series(tuple(cost.agent_us for cost in found)) for run, found in costs.items()}
    for n, kind in runs:
        if kind == SETTLED or n == largest:
            row = f"agent-{n}" if kind == SETTLED else f"agent-plain-{n}"
            series, base = times[n, kind], times[smallest, kind].median
            note = _note(settings, n)
            report.add(row, series.median, baseline=base, spread=series.spread, note=note)
    pauses = [max(cost.pause_ms for cost in costs[largest, kind]) for kind in (SETTLED, PLAIN)]
    report.add(f"pause-{largest}", pauses[0], baseline=pauses[1], note=_note(settings, largest))


async def _cost_of(n: int, n_agents: int, collector: str, *, folder: Path) -> Cost:
    command = [sys.executable, "-m", "aios.bench.paper_agents", str(n), str(n_agents), collector]
    async with running(command, env=environment({}), folder=folder) as child:
        with anyio.move_on_after(CHILD_WITHIN_S):
            status = await child.process.wait()
            if status:
                raise BenchFailed(f"the agents ended with {status}: {child.last_words()}")
            return msgspec.json.decode(child.output.read_bytes(), type=Cost)
    raise BenchFailed(f"{n} agents: not within {CHILD_WITHIN_S:g} s")


def _at_once(settings: Settings, n: int) -> int:
    return n // QUICK_PART if settings.quick else n


def _note(settings: Settings, n: int) -> str:
    return f"{n // QUICK_PART} of them only" if settings.quick else ""


# --- pages -------------------------------------------------------------------------------------------------------


async def _keep_pages(settings: Settings, report: Report) -> None:
    crowd = QUICK_CROWD if settings.quick else Crowd()
    settings.say(f"{crowd.n_contexts} contexts with pages of {crowd.page_bytes} bytes")
    with scratch_folder() as folder:
        tally = await anyio.to_thread.run_sync(run_contexts, folder, crowd)
    note = f"{crowd.n_contexts} contexts, {tally.n_from_disk} pages read from disk"
    report.add("pages", tally.n_computed, baseline=tally.n_distinct, note=note)
    report.add("pages-wrong", tally.n_wrong)
    report.add("pages-lookup", tally.all_us, baseline=tally.few_us)
    report.add("pages-resume", tally.resume_ms, note=note)


BENCH = bench_of()
