"""`aios bench`: run benches by name and show what they found."""

import signal
import sys
from collections.abc import Mapping, Sequence
from time import perf_counter
from types import MappingProxyType
from typing import TextIO

import anyio
import httpx

from aios.bench import (
    access,
    budgets,
    chat_overhead,
    context,
    engine,
    escapes,
    injection,
    journal,
    memory,
    paper,
    scale,
    sched,
    sched_sim,
    sim,
    startup,
    storage,
    syscalls,
    tools,
    workload,
)
from aios.bench.bench import Bench, Settings, Shape
from aios.bench.children import BenchFailed
from aios.bench.machine import OthersMeter, machine_row
from aios.bench.rows import Report, Row, Spec
from aios.bench.table import Display, JsonLines, Tables, print_specs
from aios.errors import AiosError, NotFound

BENCHES: Mapping[str, Bench] = MappingProxyType(
    {
        module.BENCH.name: module.BENCH
        for module in (
            engine,
            context,
            chat_overhead,
            syscalls,
            journal,
            sim,
            storage,
            startup,
            memory,
            tools,
            budgets,
            access,
            injection,
            escapes,
            sched,
            workload,
            scale,
            sched_sim,
            paper,
        )
    }
)
LIST = "list"
BUSY_SHARE = 0.1
"""From here on the machine was not quiet."""
ENDED_BY_SIGTERM = 128 + signal.SIGTERM


def list_rows() -> tuple[Spec, ...]:
    """Every row that there is to measure."""
    return tuple(spec for bench in BENCHES.values() for spec in bench.specs)


def run_bench(
    names: Sequence[str],
    *,
    quick: bool = False,
    json: bool = False,
    out: TextIO | None = None,
    shape: Shape | None = None,
    variants: Mapping[str, Bench] = MappingProxyType({}),
) -> int:
    """Measure and show.

    Args:
        names: Benches; all of them when empty. `list` alone shows the rows without measuring.
        quick: Fewer repeats and smaller loads; of all benches, not the long ones.
        json: One JSON object a line instead of tables.
        out: Where to; standard output when None. Progress goes to standard error.
        shape: The size of `workload`.
        variants: Benches to run instead of those of the same name, made to options.

    Returns:
        The exit status: 1 if a row with a bar is not ok.

    Raises:
        NotFound: There is no bench of that name.
    """
    out = out or sys.stdout
    display = JsonLines(out) if json else Tables(out)
    if list(names) == [LIST]:
        _show_list(display, out)
        return 0
    chosen = names or [name for name, each in BENCHES.items() if not (quick and each.is_long)]
    benches = [variants.get(name) or _named(name) for name in chosen]
    settings = Settings(quick, _tell, shape)
    rows = anyio.run(_run_all, benches, settings, display, backend_options={"use_uvloop": True})
    if len(rows) < sum(len(bench.specs) for bench in benches):
        return ENDED_BY_SIGTERM
    return int(any(row.bar is not None and not row.ok for row in rows))


def _named(name: str) -> Bench:
    if name not in BENCHES:
        raise NotFound(f"no bench {name!r}", hint=f"there are: {', '.join(BENCHES)}; or `list`")
    return BENCHES[name]


def _show_list(display: Display, out: TextIO) -> None:
    if not isinstance(display, JsonLines):
        print_specs(list_rows(), out)
        return
    for spec in list_rows():
        display.row(spec.missing(spec.about))


async def _run_all(benches: list[Bench], settings: Settings, display: Display) -> list[Row]:
    """Run the benches one after another; SIGTERM ends them as Ctrl-C does, so that nothing is left running."""
    found: list[Row] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_end_on_sigterm, tasks.cancel_scope)
        display.row(machine_row())
        display.end("machine")
        for bench in benches:
            found += await run_one(bench, settings, display)
            display.end(f"{bench.name}: {bench.about}")
        tasks.cancel_scope.cancel()
    return found


async def _end_on_sigterm(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def run_one(bench: Bench, settings: Settings, display: Display) -> list[Row]:
    """Run a bench within its limit of time; a row that it does not bring is missing and says why."""
    begun_s, others = perf_counter(), OthersMeter()

    def say(text: str) -> None:
        settings.say(f"{bench.name}, {perf_counter() - begun_s:.0f} s: {text}")

    report = Report(bench.specs, display.row)
    why = "the bench did not bring it"
    with anyio.move_on_after(bench.limit_s) as limit:
        try:
            await bench.measure(Settings(settings.quick, say, settings.shape), report)
        except* (AiosError, BenchFailed, OSError, httpx.HTTPError) as group:
            why = _first(group)
    if limit.cancelled_caught:
        why = f"not within {bench.limit_s:g} s"
    report.close(why)
    if others.share() >= BUSY_SHARE:
        say(f"other programs took {others.share():.0%} of the processors: believe the ratios only")
    return report.rows


def _first(group: BaseExceptionGroup[Exception]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
