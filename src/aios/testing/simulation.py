"""One seed, one run: kernels that start, crash and start again on one home, until all agents have ended; then the account.

outcome = Simulator().run(4711)
assert not outcome.violations
"""

import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from aios.abi.recovery import Restart
from aios.abi.types import State
from aios.config import Config, Home, JournalConfig, MemoryConfig
from aios.disk.db import Database
from aios.engine.base import Job
from aios.engine.script import Reply, Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError, NotFound
from aios.kernel import kernel as kernel_module
from aios.kernel.access.policy import Policies
from aios.kernel.access.policyfiles import load_sources
from aios.kernel.gate import LocalGate
from aios.kernel.journal import disk as journal_disk
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.process import INIT_PID
from aios.kernel.retrieval import tables as retrieval_tables
from aios.kernel.retrieval.extraction_process import ExtractionProcess
from aios.kernel.retrieval.extractor import Extracted, extract
from aios.kernel.retrieval.extractor import Job as ExtractionJob
from aios.kernel.schemas import SCHEMAS
from aios.sdk.client import Client
from aios.testing.agents import Agent, SimChild, visit
from aios.testing.chance import repeatable
from aios.testing.loop import VirtualClock, run_virtual
from aios.testing.world import CALM_AFTER_S, Faults, Life, World, draw_faults, files_in

N_WORKERS, N_GUESTS = 2, 1
PATIENCE_S = 4_000.0
"""Of virtual time, for all agents to end once nothing fails any more."""
LOOK_EVERY_STEPS = 7
"""Invariants of the whole are looked at every so many steps; a prime, so as to meet no rhythm."""
NEVER_S = 1e6
DISK_ENDS = (126, 137)
"""The status of a program that could not be started, or not be taken up, for its disk failed."""
MANIFEST = 'name = "worker"\n'
CONFIG = Config(memory=MemoryConfig(embedder="none"))
FORGETFUL = replace(CONFIG, journal=JournalConfig(keep_s=0.1, max_bytes=1))
"""The journal keeps what living processes need, and nothing else."""
RESTART = Restart(policy="on-failure", max_restarts=50, delay_s=1.0)


@dataclass(frozen=True)
class Outcome:
    """What came of a seed. Two runs of it have the same trace."""

    seed: int
    trace: str
    n_events: int
    n_steps: int
    n_lives: int
    injected: Mapping[str, int]
    violations: tuple[str, ...]


class Simulator:
    """Runs seeds, one after another, in a scratch folder of its own; not beside other work with databases in the same program."""

    def __init__(self) -> None:
        shm = Path("/dev/shm")  # noqa: S108 - memory; a folder with a random name is made in it
        self._scratch = tempfile.TemporaryDirectory(
            prefix="aios-sim-", dir=shm if shm.is_dir() else None
        )
        self._root = Path(self._scratch.name)
        self._program = self._root / "program"
        self._program.mkdir()
        (self._program / "agent.toml").write_text(MANIFEST)
        (self._program / "main.py").write_text("raise SystemExit('only in a simulation')\n")
        self._template = anyio.run(_new_files, Home(self._root / "template"))
        self._policies = Policies(load_sources(CONFIG.access.profile, self._root / "policies"))

    def close(self) -> None:
        """Remove the scratch folder."""
        self._scratch.cleanup()

    def run(self, seed: int, faults: Faults | None = None) -> Outcome:
        """Run a seed, with the faults that it draws if none are given."""
        drawn = faults or draw_faults(random.Random(f"faults {seed}"))  # noqa: S311 - repeatable on purpose
        world, folder = World(seed, drawn), self._root / f"seed-{seed}"

        def thread_s(pace: random.Random) -> float:
            return pace.expovariate(1 / drawn.thread_s) if drawn.thread_s else 0.0

        n_lives = 0
        try:
            with (
                patch.object(ExtractionProcess, "_ask", _extract_here),
                patch.object(kernel_module, "Policies", lambda _: self._policies),
                repeatable(seed, thread_s),
            ):
                n_lives = run_virtual(partial(self._lives, world, folder), world.selector)
        except* Exception as group:  # noqa: BLE001 - whatever it was, it is what this seed found
            world.ledger.broken(_told(group))
        finally:
            world.disk.unregister()
            shutil.rmtree(folder, ignore_errors=True)
        return Outcome(
            seed,
            world.trace.value(),
            world.trace.n_events,
            world.selector.n_steps,
            n_lives,
            dict(world.injected),
            tuple(world.ledger.violations),
        )

    async def _lives(self, world: World, folder: Path) -> int:
        """Kernel after kernel, until one comes to its end. Returns: how many there were."""
        number, contents = 0, self._template
        while True:
            home = Home(folder / str(number))
            home.root.mkdir(parents=True)
            for name, content in contents.items():
                (home.root / name).write_bytes(content)
            life = world.begin_life(number, home.root)
            try:
                with patch.object(journal_disk, "SWEEP_S", world.faults.sweep_s or NEVER_S):
                    await self._live(world, life, home)
            except* AiosError as group:
                if not life.is_over and (world.is_calm or not world.faults.disk_share):
                    raise
                world.trace.add("start failed", _told(group))
            number += 1
            if life.image is not None:
                contents = life.image
            elif world.life is None:
                return number
            else:
                contents = files_in(home.root)
                await anyio.sleep(CALM_AFTER_S / 8)

    async def _live(self, world: World, life: Life, home: Home) -> None:
        async with self._booted(world, home) as kernel:
            owner = Client(kernel.init_gate())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._end_at_crash, life, tasks.cancel_scope)
                await self._drive(world, life, kernel, owner)
                tasks.cancel_scope.cancel()

    async def _end_at_crash(self, life: Life, scope: anyio.CancelScope) -> None:
        await life.crashed.wait()
        scope.cancel()

    @asynccontextmanager
    async def _booted(self, world: World, home: Home) -> AsyncIterator[Kernel]:
        script = Script(answer=partial(_answer, world))
        engine = ScriptedEngine(script=script, now_s=lambda: world.selector.now_s, n_slots=2)
        async with AsyncExitStack() as stack:
            clock = VirtualClock(world.selector)
            config = FORGETFUL if world.faults.sweep_s else CONFIG
            kernel = await stack.enter_async_context(
                open_kernel(config, home, engines={"sim": engine}, clock=clock, is_durable=True)
            )
            kernel.urls.append("unix:///sim")
            kernel.programs.make_child = partial(SimChild, world=world, kernel=kernel)
            world.check = partial(_look, world, kernel)
            stack.callback(setattr, world, "check", None)
            kernel.begin()
            yield kernel

    async def _drive(self, world: World, life: Life, kernel: Kernel, owner: Client) -> None:
        """Start what is missing, let clients come, wait for all programs; then settle the account."""
        names = {process.name for process in kernel.table}
        for number in range(N_WORKERS):
            while f"w{number}" not in names:
                agent = Agent(world, life, "owner", owner)
                spawn = partial(
                    owner.spawn, self._program, f"w{number}", name=f"w{number}", restart=RESTART
                )
                await agent.told("spawn", spawn)
                names = {process.name for process in kernel.table}
        async with anyio.create_task_group() as guests:
            for number in range(N_GUESTS):
                guests.start_soon(self._visit, world, life, kernel, f"g{number}")
        with anyio.move_on_after(PATIENCE_S) as patience:
            for process in [each for each in kernel.table if each.name.startswith("w")]:
                await process.wait_ended()
        if patience.cancelled_caught:
            world.ledger.broken(f"not at its end after {PATIENCE_S:g} s: {_alive(kernel)}")
        journal_disk.SWEEP_S = (
            NEVER_S  # for this life: nobody is left whose records could be missed
        )
        await anyio.sleep(max(0.0, CALM_AFTER_S + 1 - world.selector.now_s))
        world.life = None  # letters are taken once: no crash may come between taking and looking
        await settle_account(world, kernel, owner)

    async def _visit(self, world: World, life: Life, kernel: Kernel, name: str) -> None:
        gate = LocalGate(
            kernel, kernel.table.get(kernel.authenticate(f"{kernel.owner_token}.{name}"))
        )
        other = next(p.pid for p in kernel.table if p.name.startswith("w"))
        await visit(Agent(world, life, name, Client(gate)), other)


async def _new_files(home: Home) -> Mapping[str, bytes]:
    """Databases with all their tables, so that not each run makes them."""
    for db in (
        Database(home.database, SCHEMAS),
        Database(home.index, [retrieval_tables.SCHEMA], prepare=(retrieval_tables.register,)),
    ):
        await db.open()
        await db.aclose()
    return {path.name: path.read_bytes() for path in (home.database, home.index)}


async def settle_account(world: World, kernel: Kernel, owner: Client) -> None:
    """Compare what is there with what was acknowledged, and look for what is left over."""
    ledger = world.ledger
    letters = [letter.body.split() for letter in (await owner.mail.take(limit=1000)).letters]
    notes = [note.text.split() async for note in owner.memory.notes()]
    for agent in sorted({agent for agent, _ in ledger.accounts}):
        folder = f"/agents/{agent}/log.txt" if agent.startswith("g") else f"/shared/{agent}.txt"
        ledger.compare(agent, "mail", [what for who, what in letters if who == agent])
        ledger.compare(agent, "file", await _lines(owner, folder))
        if agent.startswith("w"):
            ledger.compare(agent, "notes", sorted(what for who, what in notes if who == agent))
    for process in kernel.table:
        if process.name.startswith("w") and process.state is State.EXITED:
            end = process.exit
            is_lost = end is not None and end.status in DISK_ENDS and world.injected["disk error"]
            if (end is None or end.status) and not is_lost:
                ledger.broken(f"{process.name} ended with {process.exit}")
    _nothing_left_over(ledger.broken, kernel)


def _nothing_left_over(broken: Callable[[str], None], kernel: Kernel) -> None:
    """Invariant 9: nothing is held by nobody."""
    if n_open := sum(len(process.runs) for process in kernel.table if process.pid != INIT_PID):
        broken(f"{n_open} calls are in flight in the end")
    for name, lane in kernel.scheduler.statistics().items():
        if lane.n_granted:
            broken(f"{lane.n_granted} turns of {name} are held in the end")
    for info in kernel.cores.infos():
        if info.n_running:
            broken(f"{info.n_running} generations of {info.name} run in the end")


def _look(world: World, kernel: Kernel) -> None:
    """The kernel's own checks, at every so many steps."""
    if world.selector.n_steps % LOOK_EVERY_STEPS:
        return
    try:
        kernel.check_invariants()
    except AssertionError as error:
        world.check = None
        world.ledger.broken(f"step {world.selector.n_steps}: {error}")


def _answer(world: World, _: Job) -> Reply:
    """What the engine says; now and then it breaks off."""
    fails = world.strikes(world.faults.engine_share, "engine error")
    return Reply("so it is", fail_after_tokens=world.draw.randrange(3) if fails else None)


async def _extract_here(_: ExtractionProcess, job: ExtractionJob) -> Extracted:
    """What the process that reads files for the index would say, without one."""
    await anyio.lowlevel.checkpoint()
    return extract(job)


async def _lines(owner: Client, path: str) -> list[str]:
    try:
        return (await owner.files.read_text(path)).split()
    except NotFound:
        return []


def _alive(kernel: Kernel) -> str:
    return ", ".join(f"{p.name} {p.state}" for p in kernel.table if p.is_alive)


def _told(error: BaseException) -> str:
    """The first cause in a group, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
