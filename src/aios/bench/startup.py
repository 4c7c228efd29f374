"""`startup`: how long it takes until things run, and how much memory they take before they do anything."""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import anyio

from aios.bench.bench import Bench, Settings, alternate
from aios.bench.children import (
    BenchFailed,
    Child,
    Daemon,
    aios_command,
    daemon,
    environment,
    memory_bytes,
    run_command,
    running,
    scratch_folder,
    wait_until,
)
from aios.bench.rows import Bar, Report, Series, Spec

NAME = "startup"
N_COPIES = 32
N_IDLE = 10_000
COPIES_WITHIN_S = 30.0
CROWD_WITHIN_S = 120.0

SPECS = (
    Spec(NAME, "import-aios", "ms", Bar(100), "a fresh interpreter that imports aios, to its end"),
    Spec(NAME, "import-sdk", "ms", None, "the same with the light SDK that programs use"),
    Spec(NAME, "serve-none", "s", Bar(1), "aios serve without an engine, to a good /health"),
    Spec(NAME, "serve-scripted", "s", Bar(1), "the same with the scripted engine"),
    Spec(NAME, "memory-idle", "MB", Bar(120), "aios serve without an engine, after start"),
    Spec(NAME, "aios-ps", "ms", Bar(300), "the command, while a daemon runs"),
    Spec(NAME, "first-call", "ms", Bar(250), "`aios run` to the first answered call of its child"),
    Spec(NAME, "copies", "s", Bar(4), f"`aios run -n {N_COPIES}` until all have had an answer"),
    Spec(NAME, "idle-guests", "KB", Bar(30), f"memory of each of {N_IDLE} idle guests"),
    Spec(NAME, "idle-tasks", "KB", Bar(30), f"memory of each of {N_IDLE} idle in-process tasks"),
)

MANIFEST = 'name = "first-call"\n'
PROGRAM = """\
import sys
from pathlib import Path
from time import perf_counter

from aios.sdk.blocking import connect

with connect() as client:
    pid = client.getpid().pid
    answered_s = perf_counter()
    Path(sys.argv[1], f"{pid}.part").write_text(repr(answered_s))
    Path(sys.argv[1], f"{pid}.part").rename(Path(sys.argv[1], f"{pid}.done"))
    open(sys.argv[2], "rb", buffering=0).read(1)  # a FIFO: stays alive until the bench lets go
"""


async def measure(settings: Settings, report: Report) -> None:
    """Measure each in turn; commands and servers are separate processes."""
    n_repeats = 3 if settings.quick else 7
    with scratch_folder() as folder:
        settings.say("importing aios in fresh interpreters")
        await _imports(report, folder, n_repeats)
        await _serve(settings, report, folder, n_repeats)
        async with daemon(folder, {"AIOS_ENGINE_KIND": "none"}) as served:
            settings.say("aios ps")
            await _ps(served, report, folder, n_repeats)
            settings.say("aios run")
            await _run(served, report, folder, n_repeats)
        for kind in ("guests", "tasks"):
            settings.say(f"{N_IDLE} idle {kind}")
            await _crowd(kind, report, folder, n=N_IDLE // 10 if settings.quick else N_IDLE)


async def _imports(report: Report, folder: Path, n_repeats: int) -> None:
    env = environment({})

    async def python(code: str) -> float:
        return 1000 * await run_command([sys.executable, "-c", code], env=env, folder=folder)

    aios, sdk, bare = await alternate(
        2 * n_repeats + 1,
        lambda: python("import aios"),
        lambda: python("import aios.sdk.blocking"),
        lambda: python("pass"),
    )
    for row, series in (("import-aios", aios), ("import-sdk", sdk)):
        note = f"{series.median - bare.median:.1f} ms more than an interpreter that imports nothing"
        report.add(row, series.median, baseline=bare.median, spread=series.spread, note=note)


async def _serve(settings: Settings, report: Report, folder: Path, n_repeats: int) -> None:
    memory: list[tuple[int, int | None]] = []

    async def ready_s(kind: str) -> float:
        async with daemon(folder, {"AIOS_ENGINE_KIND": kind}) as served:
            if kind == "none":
                memory.append(memory_bytes(served.child.process.pid))
            return served.ready_s

    settings.say("starting daemons")
    none, scripted = await alternate(
        n_repeats, lambda: ready_s("none"), lambda: ready_s("scripted")
    )
    report.add("serve-none", none.median, spread=none.spread)
    report.add("serve-scripted", scripted.median, spread=scripted.spread)
    resident = Series(tuple(size / 1e6 for size, _ in memory))
    shares = [share / 1e6 for _, share in memory if share is not None]
    note = (
        f"resident size (RSS); its proportional share (PSS) is {max(shares):.1f} MB"
        if shares
        else "RSS"
    )
    report.add("memory-idle", resident.median, spread=resident.spread, note=note)


async def _ps(served: Daemon, report: Report, folder: Path, n_repeats: int) -> None:
    async def command(words: Sequence[str]) -> float:
        return 1000 * await run_command(words, env=served.env, folder=folder)

    ps, bare = await alternate(
        n_repeats,
        lambda: command(aios_command("ps")),
        lambda: command([sys.executable, "-c", "pass"]),
    )
    report.add("aios-ps", ps.median, baseline=bare.median, spread=ps.spread)


async def _run(served: Daemon, report: Report, folder: Path, n_repeats: int) -> None:
    program = folder / "first-call"
    program.mkdir()
    await anyio.Path(program / "agent.toml").write_text(MANIFEST)
    await anyio.Path(program / "main.py").write_text(PROGRAM)
    first, copies = await alternate(
        n_repeats,
        lambda: _answered_s(served, folder, program, n=1),
        lambda: _answered_s(served, folder, program, n=N_COPIES),
    )
    report.add("first-call", 1000 * first.median, spread=first.spread)
    report.add("copies", copies.median, spread=copies.spread)


async def _answered_s(served: Daemon, folder: Path, program: Path, *, n: int) -> float:
    """Seconds from `aios run` to the moment at which each of `n` copies, all alive, has had its first call answered."""
    answers = Path(tempfile.mkdtemp(prefix="answers-", dir=folder))
    gate = answers / "fifo"
    os.mkfifo(gate)
    command = aios_command("run", "-n", str(n), str(program), str(answers), str(gate))
    async with running(command, env=served.env, folder=folder) as child:
        await wait_until(
            lambda: len(_times(answers)) == n,
            child,
            what=f"{n} programs had their first call answered",
            within_s=COPIES_WITHIN_S,
        )
        await _let_go(gate, child, n)
    return max(_times(answers)) - child.begun_s


def _times(answers: Path) -> list[float]:
    """When the first call of each program was answered, of those that have had it."""
    return [float(path.read_text()) for path in answers.glob("*.done")]


async def _let_go(gate: Path, child: Child, n: int) -> None:
    """Give each program the byte that it waits for, and wait for the end of `aios run`."""
    descriptor = os.open(gate, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(descriptor, b"." * n)
        with anyio.move_on_after(COPIES_WITHIN_S):
            await child.process.wait()
            return
    finally:
        os.close(descriptor)
    raise BenchFailed(f"the {n} programs did not end")


async def _crowd(kind: str, report: Report, folder: Path, *, n: int) -> None:
    command = [sys.executable, "-m", "aios.bench.crowd", kind, str(n)]
    async with running(command, env=environment({}), folder=folder) as child:
        with anyio.move_on_after(CROWD_WITHIN_S):
            status = await child.process.wait()
            text = child.output.read_text()
            if status:
                raise BenchFailed(f"the crowd ended with {status}: {child.last_words()}")
            note = f"growth of the resident size (RSS) by {n} of them"
            report.add(f"idle-{kind}", float(text) / 1e3, note=note)
            return
    raise BenchFailed(f"{n} {kind}: not within {CROWD_WITHIN_S:g} s")


BENCH = Bench(NAME, "time to run, memory at rest", 300.0, SPECS, measure)
