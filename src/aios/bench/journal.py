"""`journal`: what it costs to write down every call, and how large that gets."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from time import perf_counter

import anyio
import anyio.lowlevel

from aios.abi.calls import Chat, GetPid
from aios.abi.types import Message, Pid, Role
from aios.bench.agents import run_load, warm_up
from aios.bench.bench import Bench, Settings, Shape, alternate, seconds_each
from aios.bench.children import scratch_folder
from aios.bench.forks import SPECS as FORKS
from aios.bench.forks import measure_forks
from aios.bench.rows import Bar, Report, Series, Spec
from aios.bench.workload import serve_agents
from aios.config import Config, Home, JournalConfig
from aios.configload import load
from aios.engine.base import Job
from aios.engine.models import find_model
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.replay import Replay
from aios.sdk.client import Client

NAME = "journal"
N_TURNS = 1_000
N_PROCESSES, N_CALLS_EACH = 1_000, 100
WORDS_ASKED, WORDS_ANSWERED = 40, 80
"""Of a turn of the agent whose journal is weighed: about 250 and 500 characters."""
SHAPE = Shape(n_agents=8, n_turns=2, max_tokens=16, n_rules=8)

Act = Callable[[], Awaitable[float]]

SPECS = (
    Spec(NAME, "getpid", "calls/s", Bar(5_000, is_minimum=True), "in-process, journal on; beside it off"),
    Spec(NAME, "file-write", "ms", None, "1 KB, in-process, journal on; beside it off"),
    Spec(NAME, "bytes-a-turn", "bytes", Bar(2.0, on_ratio=True), f"{N_TURNS} turns of one agent on disk; beside it their text"),
    Spec(NAME, "replay", "calls/s", Bar(5_000, is_minimum=True), "getpid told from the journal, in-process"),
    Spec(NAME, "recovery", "s", Bar(10.0), f"a kernel takes up {N_PROCESSES} processes and reads their {N_PROCESSES * N_CALLS_EACH} calls"),
    Spec(NAME, "makespan", "s", Bar(1.05, on_ratio=True), "the load of `workload`, small, journal on; beside it off"),
    *FORKS,
)  # fmt: skip


async def measure(settings: Settings, report: Report) -> None:
    """Cheap calls first, then the size, then agents with a model."""
    n_calls, n_repeats = (2_000, 3) if settings.quick else (10_000, 7)
    with scratch_folder() as folder:
        settings.say("cheap calls with and without a journal")
        async with AsyncExitStack() as stack:
            on, off = [
                await stack.enter_async_context(
                    open_kernel(config(is_on), Home(folder / name), engines={}, is_durable=True)
                )
                for name, is_on in (("on", True), ("off", False))
            ]
            rates = await alternate(n_repeats, *(_rate(kernel, n_calls) for kernel in (on, off)))
            _add(report, "getpid", *rates)
            writes = await alternate(
                n_repeats, *(_write_ms(kernel, n_calls // 50) for kernel in (on, off))
            )
            _add(report, "file-write", *writes)
        settings.say(f"an agent with {N_TURNS} turns")
        n_bytes, n_text = await weigh_conversation(folder / "talk", N_TURNS)
        report.add("bytes-a-turn", n_bytes / N_TURNS, baseline=n_text / N_TURNS)
        settings.say(f"{N_PROCESSES} processes that a kernel left")
        await _replay_and_recovery(report, Home(folder / "left"), n_calls)
        await measure_forks(settings, report, folder)
        await _workload(settings, report, folder)


def config(is_on: bool) -> Config:
    """The default, with a journal or without."""
    return Config(journal=JournalConfig(is_on=is_on))


async def weigh_conversation(folder: Path, n_turns: int) -> tuple[int, int]:
    """Let an agent that sends its whole conversation with each turn have so many.

    Returns: by how many bytes the database grew, and how many bytes of text were said.
    """
    engine = ScriptedEngine(
        window_tokens=1 << 20, script=Script(answer=lambda job: _words(_seed(job), WORDS_ANSWERED))
    )
    before = await _database_bytes(folder / "empty")
    talk: tuple[Message, ...] = ()
    home = Home(folder / "full")
    async with open_kernel(Config(), home, engines={"a": engine}, is_durable=True) as kernel:
        gate = kernel.init_gate()
        for turn in range(n_turns):
            talk = (*talk, Message(Role.USER, _words(turn, WORDS_ASKED)))
            answer = await gate.call(Chat(messages=talk, max_tokens=4 * WORDS_ANSWERED))
            talk = (*talk, answer.value.message)
    return home.database.stat().st_size - before, sum(len(each.text().encode()) for each in talk)


async def _database_bytes(folder: Path) -> int:
    """The size of a database with nothing in it."""
    home = Home(folder)
    async with open_kernel(Config(), home, engines={}, is_durable=True):
        pass
    return home.database.stat().st_size


async def _replay_and_recovery(report: Report, home: Home, n_calls: int) -> None:
    """How fast a process is told what it was told before, and a kernel reads what another left. No program is started."""
    async with open_kernel(Config(), home, engines={}, is_durable=True) as kernel:
        pids = [kernel.spawn_task("left", _idle) for _ in range(N_PROCESSES)]
        await _call(kernel, pids[0], n_calls)
        process, disk = kernel.table.get(pids[0]), kernel.journal.disk
        assert disk is not None, "a durable kernel has a journal"
        process.replay = Replay(await disk.load(pids[0]))
        begun_s = perf_counter()
        await _call(kernel, pids[0], n_calls)
        report.add("replay", n_calls / (perf_counter() - begun_s))
        for pid in pids[1:]:
            await _call(kernel, pid, N_CALLS_EACH)
            await anyio.lowlevel.checkpoint()
    begun_s = perf_counter()
    async with open_kernel(Config(), home, engines={}, is_durable=True) as kernel:
        disk = kernel.journal.disk
        assert disk is not None, "a durable kernel has a journal"
        for pid in pids:
            Replay(await disk.load(pid))
        report.add("recovery", perf_counter() - begun_s)


async def _call(kernel: Kernel, pid: Pid, n_calls: int) -> None:
    gate = kernel.gate(pid)
    for _ in range(n_calls):
        await gate.call(GetPid())


async def _idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


async def _workload(settings: Settings, report: Report, folder: Path) -> None:
    """The same agents with and without a journal, in turn."""
    try:
        model = find_model("", load().home)
    except AiosError as error:
        report.miss("makespan", error.message)
        return

    async def run(is_on: bool) -> float:
        settings.say(f"{SHAPE.n_agents} agents, journal {'on' if is_on else 'off'}")
        knobs: Mapping[str, str] = {"AIOS_JOURNAL_IS_ON": str(is_on).lower()}
        async with serve_agents(model, folder, knobs) as endpoint:
            await warm_up(endpoint.base_url, endpoint.guest_key(0))
            outcome = await run_load(endpoint.base_url, endpoint.guest_key, SHAPE, seed=0)
        return outcome.makespan_s

    on, off = await alternate(
        1 if settings.quick else 3, lambda: run(is_on=True), lambda: run(is_on=False)
    )
    _add(report, "makespan", on, off)


def _rate(kernel: Kernel, n_calls: int) -> Act:
    gate = kernel.init_gate()

    async def rate() -> float:
        seconds = await seconds_each(n_calls, lambda: gate.call(GetPid()))
        return n_calls / sum(seconds)

    return rate


def _write_ms(kernel: Kernel, n_writes: int) -> Act:
    files = Client(kernel.init_gate()).files

    async def write() -> float:
        seconds = await seconds_each(n_writes, lambda: files.write("/shared/a.txt", b"x" * 1024))
        return 1000 * Series(tuple(seconds)).median

    return write


def _words(seed: int, n: int) -> str:
    """A text as an agent's may be: words of different length, no sentence twice."""
    draw = Random(seed)  # noqa: S311 - no secret
    letters = "etaoinshrdlu"
    words = ("".join(draw.choices(letters, k=draw.randrange(2, 10))) for _ in range(n))
    return " ".join(words)


def _seed(job: Job) -> int:
    return len(job.prompt.messages) + 1_000_000  # type: ignore[union-attr]  # only chats are asked for


def _add(report: Report, row: str, on: Series, off: Series) -> None:
    report.add(row, on.median, baseline=off.median, spread=on.spread)


BENCH = Bench(NAME, "what the journal costs", 900.0, SPECS, measure)
