"""`syscalls`: how many cheap system calls there are in a second, and what the dearer ones cost."""

import sys
from pathlib import Path
from time import perf_counter

import anyio

from aios.abi.calls import GetPid, Ps, Spawn, Wait
from aios.abi.gate import Gate
from aios.bench.bench import Bench, Settings, alternate, seconds_each
from aios.bench.children import (
    BenchFailed,
    Daemon,
    daemon,
    environment,
    run_command,
    scratch_folder,
)
from aios.bench.rows import Bar, Report, Series, Spec
from aios.config import Config, Home
from aios.kernel.kernel import open_kernel
from aios.sdk.http import HttpGate
from aios.sdk.socket import UnixGate

NAME = "syscalls"
N_IN_FLIGHT = 64
N_PROCESSES = 1_000

SPECS = (
    Spec(NAME, "in-process", "calls/s", Bar(10_000, is_minimum=True), "getpid, one after another"),
    Spec(NAME, "ps-1000", "ms", None, f"ps with {N_PROCESSES} processes, in-process"),
    Spec(NAME, "socket", "calls/s", Bar(2_000, is_minimum=True), "getpid, one after another"),
    Spec(
        NAME,
        "socket-pipelined",
        "calls/s",
        Bar(2_000, is_minimum=True),
        f"getpid, {N_IN_FLIGHT} in flight on one connection",
    ),
    Spec(NAME, "http", "calls/s", None, "getpid by POST /aios/call, one connection"),
    Spec(NAME, "spawn-wait", "ms", None, "spawn a trivial program and wait for its end"),
)

PROGRAM = 'name = "trivial"\n'


async def measure(settings: Settings, report: Report) -> None:
    """Measure in-process first, then against a daemon without an engine."""
    n_repeats = 3 if settings.quick else 5
    n_calls = 500 if settings.quick else 2_500
    with scratch_folder() as folder:
        settings.say("in-process calls")
        async with open_kernel(Config(), Home(folder / "home"), engines={}) as kernel:
            gate = kernel.init_gate()
            _add(report, "in-process", await _rates(gate, 4 * n_calls, n_repeats))
            while kernel.table.n_alive < N_PROCESSES:
                kernel.admit("guest")
            await gate.call(Ps())
            ps = await seconds_each(5 * n_repeats, lambda: gate.call(Ps()))
            _add(report, "ps-1000", Series(tuple(1000 * s for s in ps)))
        settings.say("starting a daemon without an engine")
        async with daemon(folder, {"AIOS_ENGINE_KIND": "none"}) as served:
            await _over_the_wire(served, folder, settings, report)


async def _over_the_wire(served: Daemon, folder: Path, settings: Settings, report: Report) -> None:
    n_repeats, n_calls = (3, 500) if settings.quick else (5, 2_500)
    async with UnixGate.connect(served.socket, served.token) as unix:
        settings.say("calls over the socket")
        _add(report, "socket", await _rates(unix, n_calls, n_repeats))
        (pipelined,) = await alternate(n_repeats, lambda: _pipelined_rate(unix, n_calls))
        _add(report, "socket-pipelined", pipelined)
        async with HttpGate(served.http_url, served.token) as http:
            settings.say("calls over HTTP")
            _add(report, "http", await _rates(http, n_calls // 5, n_repeats))
        settings.say("spawn and wait")
        await _spawn_and_wait(unix, folder, report, n=3 if settings.quick else 10)


async def _rates(gate: Gate, n_calls: int, n_repeats: int) -> Series:
    await seconds_each(n_calls // 10, lambda: gate.call(GetPid()))

    async def rate() -> float:
        begun_s = perf_counter()
        for _ in range(n_calls):
            await gate.call(GetPid())
        return n_calls / (perf_counter() - begun_s)

    (rates,) = await alternate(n_repeats, rate)
    return rates


async def _pipelined_rate(gate: Gate, n_calls: int) -> float:
    n_each = n_calls // N_IN_FLIGHT + 1

    async def caller() -> None:
        for _ in range(n_each):
            await gate.call(GetPid())

    begun_s = perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(N_IN_FLIGHT):
            tasks.start_soon(caller)
    return N_IN_FLIGHT * n_each / (perf_counter() - begun_s)


async def _spawn_and_wait(gate: Gate, folder: Path, report: Report, *, n: int) -> None:
    """Beside it: starting and awaiting the same empty script without a kernel."""
    program = folder / "trivial"
    program.mkdir()
    await anyio.Path(program / "agent.toml").write_text(PROGRAM)
    script = program / "main.py"
    script.touch()

    async def by_the_kernel() -> float:
        begun_s = perf_counter()
        spawned = await gate.call(Spawn(program=str(program)))
        ended = await gate.call(Wait(pid=spawned.value.pid))
        if ended.value.exit.status:
            raise BenchFailed(f"the trivial program ended with {ended.value.exit}")
        return 1000 * (perf_counter() - begun_s)

    async def by_itself() -> float:
        command = [sys.executable, str(script)]
        return 1000 * await run_command(command, env=environment({}), folder=folder)

    await by_the_kernel()
    kernel, alone = await alternate(n, by_the_kernel, by_itself)
    _add(report, "spawn-wait", kernel, alone)


def _add(report: Report, row: str, series: Series, baseline: Series | None = None) -> None:
    report.add(
        row,
        series.median,
        baseline=baseline.median if baseline else None,
        spread=series.spread,
    )


BENCH = Bench(NAME, "the rate of cheap system calls", 120.0, SPECS, measure)
