"""`tools`: how close calls of tools that partly exclude each other come to the ideal schedule, whether updates get lost, and what a call costs.

The tools are functions of a process in the same kernel, so that what is measured is the kernel; the cost is measured from
one program to another over the socket.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from time import perf_counter

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec

from aios.abi.gate import Gate
from aios.abi.tools import (
    JobEnd,
    ToolDeclaration,
    ToolJob,
    ToolRegister,
    ToolRun,
    ToolTake,
    Traits,
)
from aios.bench.bench import Bench, Settings, seconds_each
from aios.bench.children import BenchFailed, daemon, scratch_folder
from aios.bench.rows import Bar, Report, Series, Spec, quantile
from aios.bench.tools_load import Load, LoadShape, Turn, Use, ideal_length, make_load
from aios.config import Config, Home
from aios.errors import NotFound
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.sandbox.launch import Launcher
from aios.kernel.sandbox.probe import Wall
from aios.kernel.sandbox.profile import Profile
from aios.sdk.client import Client
from aios.sdk.files import Files
from aios.sdk.socket import UnixGate
from aios.server.collector import settle_collector

NAME = "tools"
TOOL_S = 0.05
SHAPE = LoadShape()
IN_TURNS = LoadShape(n_turns=10, n_calls=2)
N_LOADS, N_LOADS_QUICK = 5, 2
N_RUNS, N_RUNS_QUICK = 1_000, 50
N_ADDERS, N_ADDS = 4, 3
"""Agents of one run that add to the shared files, and how often each does."""
N_FILES = 2
N_CALLS, N_CALLS_QUICK = 1_000, 200
N_STARTS, N_STARTS_QUICK = 50, 10
N_LOOKS, POLL_S = 2_000, 0.01
PROGRAM = 'name = "desk"\n'
SOURCE = """
import aios

@aios.tool(effect="pure")
async def nothing(n: int) -> int:
    "Do nothing."
    return n

async def main(client: aios.Client) -> None:
    await client.tools.serve(nothing)

aios.run(main)
"""

SPECS = (
    Spec(NAME, "makespan", "s", Bar(1.15, on_ratio=True), f"{SHAPE.n_agents} agents, {SHAPE.n_all} calls of 50 ms, 40 % on files of their own; beside it the ideal schedule"),
    Spec(NAME, "makespan-turns", "s", Bar(1.15, on_ratio=True), "the same, two calls in a turn, which the agent makes at once"),
    Spec(NAME, "one-lock", "x", Bar(3.0, is_minimum=True), "the same under one lock for all / as it is"),
    Spec(NAME, "lost", "updates", Bar(0), "of agents that read, add and write shared files; beside it the updates there were"),
    Spec(NAME, "lost-unclaimed", "updates", None, "the same by a tool that declares no footprint, so that it could be seen"),
    Spec(NAME, "overhead-p50", "ms", Bar(2.0), "a function of another program that does nothing, over the socket"),
    Spec(NAME, "overhead-p99", "ms", None, "the same, of the slowest hundredth"),
    Spec(NAME, "builtin-p50", "ms", None, "the tool `files`, which lists a folder, over the socket"),
    Spec(NAME, "sandbox-start", "ms", Bar(30), "p50 until a program behind bubblewrap has said its first word"),
)  # fmt: skip

Carry = Callable[[ToolJob], Awaitable[str]]
Body = Callable[[Gate], Awaitable[None]]


class FileUse(msgspec.Struct):
    """The arguments of the tools of this bench."""

    file: str


async def measure(settings: Settings, report: Report) -> None:
    """The schedules first, then the updates, then the cost."""
    with scratch_folder() as folder:
        async with open_kernel(Config(), Home(folder / "home"), engines={}) as kernel:
            settle_collector()  # as in every program of ours that serves a kernel
            await _schedules(kernel, settings, report)
            await _updates(kernel, settings, report)
            kernel.check_invariants()
        settings.say("a function of another program, over the socket")
        await _overhead(folder, report, N_CALLS_QUICK if settings.quick else N_CALLS)
        settings.say("programs behind their walls")
        await _starts(folder, report, N_STARTS_QUICK if settings.quick else N_STARTS)


async def _starts(folder: Path, report: Report, n: int) -> None:
    """Programs of the least kind, one after another: what their walls take to be built."""
    launcher = Launcher(Config().sandbox, folder / "home")
    walls = await launcher.find_walls()
    if walls.wall is not Wall.BUBBLEWRAP:
        report.miss("sandbox-start", "no bubblewrap here; see `aios doctor`")
        return
    work = folder / "work"
    await anyio.Path(work).mkdir()
    profile = Profile(writable=(work,), env={"PATH": "/usr/bin:/bin"})
    times: list[float] = []
    for _ in range(n + 1):
        begun_s = perf_counter()
        confined = await launcher.open(["echo", "up"], profile, cwd=work)
        assert confined.process.stdout is not None
        await confined.process.stdout.receive()
        times.append(1e3 * (perf_counter() - begun_s))
        await confined.wait_gone()
        await confined.process.aclose()
    report.add("sandbox-start", quantile(times[1:], 0.5))


# --- schedules ---------------------------------------------------------------------------------------------------


async def _schedules(kernel: Kernel, settings: Settings, report: Report) -> None:
    """The same loads with footprints and under one lock."""

    async def work(_: ToolJob) -> str:
        await anyio.sleep(TOOL_S)
        return ""

    await _offer(
        kernel,
        "desk",
        work,
        ToolDeclaration("write", traits=Traits(effect="reversible", writes=("/shared/{file}",))),
        ToolDeclaration("read", traits=Traits(effect="pure", reads=("/shared/{file}",))),
        ToolDeclaration("locked", traits=Traits(effect="reversible", writes=("/",))),
    )
    n_loads = N_LOADS_QUICK if settings.quick else N_LOADS
    free_s = 0.0
    # Event loops round sleeps up to a millisecond: what a tool of 50 ms takes when it is alone.
    tool_s = quantile(await seconds_each(10, lambda: anyio.sleep(TOOL_S)), 0.5)
    for row, shape in (("makespan", SHAPE), ("makespan-turns", IN_TURNS)):
        settings.say(f"{n_loads} loads, and a search for their ideal schedules")
        loads = [make_load(shape, seed) for seed in range(n_loads)]
        ideal_s = sum(ideal_length(load) for load in loads) * tool_s
        ours = [await _run_load(kernel, load, _tool_of) for load in loads]
        free_s = free_s or ours[0]
        spread = Series(tuple(ours)).spread
        report.add(row, sum(ours), baseline=ideal_s, spread=spread, note=f"{n_loads} loads")
    settings.say("one lock for all")
    locked_s = await _run_load(kernel, make_load(SHAPE, 0), lambda _: "desk/locked")
    report.add("one-lock", locked_s / free_s, note=f"{locked_s:.1f} s / {free_s:.2f} s")


def _tool_of(use: Use) -> str:
    return "desk/write" if use.is_write else "desk/read"


async def _run_load(kernel: Kernel, load: Load, tool_of: Callable[[Use], str]) -> float:
    """Let one process for each agent do its turns. Returns: the seconds until all are done."""

    def agent(turns: tuple[Turn, ...]) -> Body:
        async def act(gate: Gate) -> None:
            for turn in turns:
                async with anyio.create_task_group() as calls:
                    for use in turn:
                        call = ToolRun(name=tool_of(use), arguments={"file": use.file})
                        calls.start_soon(gate.call, call)

        return act

    begun_s = perf_counter()
    await _run_all(kernel, [agent(turns) for turns in load])
    return perf_counter() - begun_s


# --- updates -----------------------------------------------------------------------------------------------------


async def _updates(kernel: Kernel, settings: Settings, report: Report) -> None:
    """Read, add one, write: with a footprint nothing may get lost."""
    files = Files(kernel.init_gate())
    random = Random(1)  # noqa: S311 - a load, not a secret

    async def add(job: ToolJob) -> str:
        path = f"/shared/{msgspec.json.decode(job.arguments, type=FileUse).file}"
        try:
            before = int(await files.read_text(path))
        except NotFound:
            before = 0
        for _ in range(random.randrange(3)):  # let others in between, if they can
            await anyio.lowlevel.checkpoint()
        await files.write(path, str(before + 1))
        return str(before + 1)

    await _offer(
        kernel,
        "adder",
        add,
        ToolDeclaration("add", traits=Traits(effect="reversible", writes=("/shared/{file}",))),
        ToolDeclaration("add-unclaimed", traits=Traits(effect="reversible")),
    )
    n_runs = N_RUNS_QUICK if settings.quick else N_RUNS
    settings.say(f"{n_runs} runs of agents that add to shared files")
    for row, tool, n in (
        ("lost", "add", n_runs),
        ("lost-unclaimed", "add-unclaimed", n_runs // 10),
    ):
        counts = [await _lost(kernel, files, f"adder/{tool}", f"{row}-{run}") for run in range(n)]
        report.add(row, sum(counts), baseline=n * N_ADDERS * N_ADDS, note=f"{n} runs")


async def _lost(kernel: Kernel, files: Files, tool: str, start: str) -> int:
    """One run. Returns: how many updates the files do not show."""
    random = Random(start)  # noqa: S311 - a load, not a secret

    async def act(gate: Gate) -> None:
        for _ in range(N_ADDS):
            file = f"{start}-{random.randrange(N_FILES)}"
            await gate.call(ToolRun(name=tool, arguments={"file": file}))

    await _run_all(kernel, [act] * N_ADDERS)
    n_kept = 0
    for number in range(N_FILES):
        try:
            n_kept += int(await files.read_text(f"/shared/{start}-{number}"))
        except NotFound:
            continue
    return N_ADDERS * N_ADDS - n_kept


# --- cost --------------------------------------------------------------------------------------------------------


async def _overhead(folder: Path, report: Report, n_calls: int) -> None:
    """From one program to another, and to the kernel itself."""
    program = anyio.Path(folder / "desk")
    await program.mkdir()
    await (program / "agent.toml").write_text(PROGRAM)
    await (program / "main.py").write_text(SOURCE)
    async with (
        daemon(folder, {"AIOS_ENGINE_KIND": "none"}) as served,
        UnixGate.connect(served.socket, served.token) as gate,
    ):
        client = Client(gate)
        await client.spawn(str(program))
        for _ in range(N_LOOKS):
            if any(tool.provider for tool in await client.tools.list()):
                break
            await anyio.sleep(POLL_S)

        async def function() -> None:
            await client.tools.run("desk/nothing", {"n": 1})

        async def builtin() -> None:
            await client.tools.run("files", {"action": "list", "path": "/shared"})

        for act in (function, builtin):
            await seconds_each(n_calls // 10, act)
        times = await seconds_each(n_calls, function)
        report.add("overhead-p50", 1000 * quantile(times, 0.5))
        report.add("overhead-p99", 1000 * quantile(times, 0.99))
        report.add("builtin-p50", 1000 * quantile(await seconds_each(n_calls, builtin), 0.5))


# --- what the parts share ----------------------------------------------------------------------------------------


async def _offer(kernel: Kernel, name: str, carry: Carry, *tools: ToolDeclaration) -> None:
    """A process that offers these tools and answers each call with what `carry` brings; returns when they are there."""
    ready = anyio.Event()

    async def body(gate: Gate) -> None:
        await gate.call(ToolRegister(tools=tools))
        ready.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, gate, tasks)

    async def work(gate: Gate, tasks: anyio.abc.TaskGroup) -> None:
        ended: tuple[JobEnd, ...] = ()
        while True:  # as a program that serves tools does
            taken = (await gate.call(ToolTake(limit=1, returns=ended))).value
            for _ in range(taken.n_wanted):
                tasks.start_soon(work, gate, tasks)
            ended = tuple([JobEnd(job.id, await carry(job)) for job in taken.jobs])

    kernel.spawn_task(name, body)
    await ready.wait()


async def _run_all(kernel: Kernel, bodies: Sequence[Body]) -> None:
    """Run each as a process, to the end of all.

    Raises:
        BenchFailed: One of them failed.
    """
    for pid in [kernel.spawn_task("agent", body) for body in bodies]:
        end = await kernel.table.get(pid).wait_ended()
        if end.status:
            raise BenchFailed(f"an agent failed: {end.reason}")


BENCH = Bench(NAME, "calls of tools side by side", 600.0, SPECS, measure)
