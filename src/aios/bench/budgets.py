"""`budgets`: a hundred children under one cap that fail and are cancelled at random, and kill and stop among many agents."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import perf_counter

import anyio

from aios.abi.budget import Budget, Limits, SetBudget
from aios.abi.calls import Chat, Cont, Kill, Stop
from aios.abi.gate import Gate
from aios.abi.storage import Append, FileEdit, FileStat
from aios.abi.types import Message, Pid, Role
from aios.bench.bench import Bench, Settings
from aios.bench.children import BenchFailed, scratch_folder
from aios.bench.rows import Bar, Report, Spec
from aios.config import Config, Home
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError, NotFound
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel

NAME = "budgets"
N_CHILDREN, CAP_TOKENS = 100, 2_000
N_AGENTS = 200

SPECS = (
    Spec(NAME, "overspend", "tokens", Bar(0), f"{N_CHILDREN} children under one cap, cancelled and killed at random; the most over it at any look"),
    Spec(NAME, "stop-p99", "ms", Bar(200), f"stop of one among {N_AGENTS} agents that write files"),
    Spec(NAME, "kill-p99", "ms", Bar(200), "the same for kill"),
    Spec(NAME, "effects-after", "writes", Bar(0), "writes of stopped and killed agents after stop or kill has returned"),
)  # fmt: skip


async def measure(settings: Settings, report: Report) -> None:
    """Measure both on a kernel in this process that keeps all on disk."""
    seed = random.SystemRandom().randrange(1 << 32)
    settings.say(f"children under one cap, seed {seed}")
    worst, n_looks = 0, 0
    for each in range(1 if settings.quick else 10):
        over, looks = await _overspend(seed + each)
        worst, n_looks = max(worst, over), n_looks + looks
    report.add("overspend", worst, note=f"seed {seed}, {n_looks} looks")
    n_each = 8 if settings.quick else 100
    settings.say(f"stop and kill, {n_each} each")
    stops, kills, n_after = await _signals(n_each, seed)
    report.add("stop-p99", _p99(stops))
    report.add("kill-p99", _p99(kills))
    report.add("effects-after", n_after, note=f"{len(stops) + len(kills)} agents watched")


async def _idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


async def _overspend(seed: int) -> tuple[int, int]:
    """How far over the cap what was spent and held ever was, and how often that was looked at."""
    draw = random.Random(seed)  # noqa: S311 - to be run again
    engine = ScriptedEngine(n_slots=8, script=Script(answer_tokens=30, token_delay_s=0.0001))
    found = [-CAP_TOKENS]
    with scratch_folder() as folder:
        async with open_kernel(Config(), Home(folder), engines={"local": engine}) as kernel:
            gate = kernel.init_gate()
            parent = kernel.spawn_task("parent", _idle)
            limits = Limits(completion_tokens=CAP_TOKENS)
            await gate.call(SetBudget(pid=parent, limits=limits, on_breach="fail"))
            children = [kernel.spawn_task("child", _idle, ppid=parent) for _ in range(N_CHILDREN)]
            async with anyio.create_task_group() as watch:
                watch.start_soon(_watch, gate, parent, found)
                async with anyio.create_task_group() as tasks:
                    for pid in children:
                        tasks.start_soon(_spend, kernel.gate(pid), draw)
                    for pid in draw.sample(children, 10):
                        await anyio.sleep(0.01 * draw.random())
                        await gate.call(Kill(pid=pid))
                watch.cancel_scope.cancel()
            about = (await gate.call(Budget(pid=parent))).value
            if about.held.completion_tokens or not about.spent.completion_tokens:
                raise BenchFailed(f"seed {seed}: the books do not close: {about}")
    return max(0, *found, about.spent.completion_tokens - CAP_TOKENS), len(found)


async def _spend(gate: Gate, draw: random.Random) -> None:
    """Some generations, some of them cut off."""
    for _ in range(3):
        call = Chat(messages=(Message(Role.USER, "go on"),), max_tokens=draw.choice([5, 40, 200]))
        with suppress(AiosError), anyio.move_on_after(0.002 if draw.random() < 0.2 else 60):
            await gate.call(call)


async def _watch(gate: Gate, pid: Pid, found: list[int]) -> None:
    """Note how far over the cap the process is, again and again."""
    while True:
        about = (await gate.call(Budget(pid=pid))).value
        found.append(about.spent.completion_tokens + about.held.completion_tokens - CAP_TOKENS)
        await anyio.sleep(0.001)


async def _signals(n_each: int, seed: int) -> tuple[list[float], list[float], int]:
    """Milliseconds of stops and of kills, and how much those who were held wrote afterwards."""
    draw = random.Random(seed)  # noqa: S311 - to be run again
    stops, kills, n_after = list[float](), list[float](), 0
    with scratch_folder() as folder:
        async with _agents(folder) as (kernel, agents):
            gate = kernel.init_gate()
            await anyio.sleep(0.5)
            for pid in draw.sample(list(agents), n_each):
                stops.append(await _timed(gate, Stop(pid=pid)))
                n_after += await _grown(gate, agents[pid])
                await gate.call(Cont(pid=pid))
            for pid in draw.sample(list(agents), n_each):
                kills.append(await _timed(gate, Kill(pid=pid)))
                n_after += await _grown(gate, agents[pid])
    return stops, kills, n_after


@asynccontextmanager
async def _agents(folder: Path) -> AsyncIterator[tuple[Kernel, dict[Pid, str]]]:
    """Agents and the file of each, to which it appends, one write after another."""
    async with open_kernel(Config(), Home(folder), engines={}, is_durable=True) as kernel:
        names = [f"agent{n}" for n in range(N_AGENTS)]
        yield kernel, {kernel.spawn_task(name, _write): f"/agents/{name}/log" for name in names}


async def _write(gate: LocalGate) -> None:
    while True:
        await gate.call(FileEdit(edits=(Append("log", b"."),)))


async def _timed(gate: Gate, call: Stop | Kill) -> float:
    begun_s = perf_counter()
    await gate.call(call)
    return 1000 * (perf_counter() - begun_s)


async def _grown(gate: Gate, path: str) -> int:
    """How many bytes are written to a file from now on, for a while that is long enough for several writes."""
    before = await _size(gate, path)
    await anyio.sleep(0.05)
    return await _size(gate, path) - before


async def _size(gate: Gate, path: str) -> int:
    try:
        return (await gate.call(FileStat(path=path))).value.files[0].size_bytes
    except NotFound:  # it was held before its first write was done
        return 0


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


BENCH = Bench(
    NAME,
    "caps that hold whatever happens, and agents that are stopped",
    120.0,
    SPECS,
    measure,
)
