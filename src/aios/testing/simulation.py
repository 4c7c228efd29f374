"""One seed, one run: kernels that start, crash and start again on one home, until all agents have ended; then the account.

outcome = Simulator().run(4711)
assert not outcome.violations
"""

import random
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import anyio
import anyio.lowlevel
from msgspec import Struct
from msgspec.structs import replace

from aios.abi.recovery import Restart
from aios.abi.types import Kind
from aios.config import Config, Home, JournalConfig, MemoryConfig
from aios.disk.db import Database
from aios.engine.base import Job
from aios.engine.script import Reply, Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError
from aios.kernel import kernel as kernel_module
from aios.kernel.access.policy import Policies
from aios.kernel.access.policyfiles import load_sources
from aios.kernel.gate import LocalGate
from aios.kernel.journal import disk as journal_disk
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.memory.words import register
from aios.kernel.retrieval import tables as retrieval_tables
from aios.kernel.retrieval.extraction_process import ExtractionProcess
from aios.kernel.retrieval.extractor import Extracted, extract
from aios.kernel.retrieval.extractor import Job as ExtractionJob
from aios.kernel.sandbox.scratch import Scratch, sweep_folders
from aios.kernel.schemas import PREPARE, SCHEMAS
from aios.sdk.client import Client
from aios.testing.agents import Agent
from aios.testing.chance import repeatable
from aios.testing.child import SimChild
from aios.testing.limited import LIMITED_DIGITS, LIMITS
from aios.testing.loop import run_virtual
from aios.testing.owner import decide, run_errands
from aios.testing.settling import settle_account
from aios.testing.trades import SERVER, visit
from aios.testing.world import CALM_AFTER_S, PROGRAM, Faults, Life, World, draw_faults, files_in

N_WORKERS, N_GUESTS = 2, 1
BRANCHER_SHARE = 0.2
"""Of seeds, those in which an agent branches itself."""
PATIENCE_S = 4_000.0
"""Of virtual time, for all agents to end once nothing fails any more."""
LOOK_EVERY_STEPS = 11
"""Invariants of the whole are looked at every so many steps; a prime, so as to meet no rhythm."""
NEVER_S = 1e6
CONFIG = Config(memory=MemoryConfig(embedder="none"))
FORGETFUL = replace(CONFIG, journal=JournalConfig(keep_s=0.1, max_bytes=1))
"""The journal keeps what living processes need, and nothing else."""
RESTART = Restart(policy="on-failure", max_restarts=50, delay_s=1.0)


class Outcome(Struct, frozen=True):
    """What came of a seed. Two runs of it have the same trace."""

    seed: int
    trace: str
    n_events: int
    n_steps: int
    n_lives: int
    injected: Mapping[str, int]
    violations: tuple[str, ...]
    n_undone: int = 0
    """Acts of tools that the kernel took back, since they had been cut off."""
    n_served: int = 0
    """Calls of tools that ran a function of a program."""


class Simulator:
    """Runs seeds, one after another, in a scratch folder of its own; not beside other work with databases in the same program."""

    def __init__(self) -> None:
        shm = Path("/dev/shm")  # noqa: S108 - memory; a folder with a random name is made in it
        base = shm if shm.is_dir() else None
        sweep_folders(base)
        self._scratch = Scratch("sim", base)
        self._root = self._scratch.path
        ignored = shutil.ignore_patterns("__pycache__")
        self._program = shutil.copytree(PROGRAM, self._root / "program", ignore=ignored)
        self._template = anyio.run(_new_files, Home(self._root / "template"))
        self._policies = Policies(load_sources(CONFIG.access.profile, self._root / "policies"))

    def close(self) -> None:
        """Remove the scratch folder."""
        self._scratch.close()

    def run(self, seed: int, faults: Faults | None = None) -> Outcome:
        """Run a seed, with the faults that it draws if none are given."""
        drawn = faults or draw_faults(random.Random(f"faults {seed}"))  # noqa: S311 - repeatable on purpose
        world, folder = World(seed, drawn, self._program), self._root / f"seed-{seed}"

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
            world.outside.n_undone,
            len(world.served),
        )

    async def _lives(self, world: World, folder: Path) -> int:
        """Kernel after kernel, until one comes to its end. Returns: how many there were."""
        number, contents = 0, self._template
        while True:
            home = Home(folder / str(number))
            home.root.mkdir(parents=True)
            for name, content in contents.items():
                (home.root / name).parent.mkdir(parents=True, exist_ok=True)
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
            config = FORGETFUL if world.faults.sweep_s else CONFIG
            kernel = await stack.enter_async_context(
                open_kernel(
                    config, home, engines={"sim": engine}, clock=world.clock, is_durable=True
                )
            )
            kernel.urls.append("unix:///sim")
            kernel.programs.make_child = partial(SimChild, world=world, kernel=kernel)
            kernel.tools.install(world.hands().tools())
            world.check = partial(_look, world, kernel)
            stack.callback(setattr, world, "check", None)
            kernel.begin()
            yield kernel

    async def _drive(self, world: World, life: Life, kernel: Kernel, owner: Client) -> None:
        """Start what is missing, let clients come, wait for all programs; then settle the account."""
        names = {process.name for process in kernel.table}
        agent = Agent(world, life, kernel.init, me=kernel.init.name, client=owner)
        for name in workers_of(world):
            while name not in names:
                budget = LIMITS if name.startswith("l") else None
                spawn = partial(
                    owner.spawn, world.program, name, name=name, restart=RESTART, budget=budget
                )
                await agent.told("spawn", spawn)
                names = {process.name for process in kernel.table}
        with anyio.move_on_after(PATIENCE_S) as patience:
            await self._live_through(world, life, kernel, agent)
        if patience.cancelled_caught:
            world.ledger.broken(f"not at its end after {PATIENCE_S:g} s: {_alive(world, kernel)}")
        journal_disk.SWEEP_S = (
            NEVER_S  # for this life: nobody is left whose records could be missed
        )
        await anyio.sleep(max(0.0, CALM_AFTER_S + 1 - world.selector.now_s))
        world.life = None  # letters are taken once: no crash may come between taking and looking
        await settle_account(world, kernel, owner)

    async def _live_through(self, world: World, life: Life, kernel: Kernel, agent: Agent) -> None:
        """Return when the clients have gone, the errands are done and all programs have ended."""
        async with anyio.create_task_group() as deciding:
            deciding.start_soon(decide, agent)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run_errands, agent)
                for number in range(N_GUESTS):
                    tasks.start_soon(self._visit, world, life, kernel, f"g{number}")
            while alive := [p for p in kernel.table if p.kind is Kind.PROGRAM and p.is_alive]:
                await alive[0].wait_ended()
            deciding.cancel_scope.cancel()

    async def _visit(self, world: World, life: Life, kernel: Kernel, name: str) -> None:
        process = kernel.table.get(kernel.authenticate(f"{kernel.owner_token}.{name}"))
        other = next(p.pid for p in kernel.table if p.name.startswith("w"))
        client = Client(LocalGate(kernel, process))
        await visit(Agent(world, life, process, me=name, client=client), other)


async def _new_files(home: Home) -> Mapping[str, bytes]:
    """Databases with all their tables, so that not each run makes them."""
    for db in (
        Database(home.database, SCHEMAS, prepare=PREPARE),
        Database(home.index, [retrieval_tables.SCHEMA], prepare=(register,)),
    ):
        await db.open()
        await db.aclose()
    return {path.name: path.read_bytes() for path in (home.database, home.index)}


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


def workers_of(world: World) -> list[str]:
    """The programs that a seed starts: workers, and in some a brancher, one with a budget, or one that serves."""
    draw = random.Random(f"workers {world.seed}")  # noqa: S311 - repeatable on purpose
    return [
        *[SERVER] * world.has_server,
        *(f"w{number}" for number in range(N_WORKERS)),
        *["b0"] * (draw.random() < BRANCHER_SHARE),
        *["l0"] * (world.seed % 10 in LIMITED_DIGITS),
    ]


def _alive(world: World, kernel: Kernel) -> str:
    alive = ", ".join(f"{p.name} {p.state}" for p in kernel.table if p.is_alive)
    return f"{alive}; errands {world.errands}"


def _told(error: BaseException) -> str:
    """The first cause in a group, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
