"""The agents of a simulation: programs that are replayed, and clients that may leave at any moment.

Each act is written into the ledger before and after; an error that the kernel may rightly answer with is taken as it is.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from aios.abi.types import Exit, Pid
from aios.errors import AccessDenied, AiosError, KernelBug, KernelStopping, ProcessGone
from aios.kernel.clock import Clock
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel
from aios.kernel.loader import EXIT_GRACE_S, Child, Launch
from aios.kernel.process import Process
from aios.kernel.sandbox.launch import Launcher
from aios.kernel.signals import KILLED_STATUS
from aios.sdk.client import Client
from aios.testing.world import Life, World

CRASHED_STATUS = 1
EXIT_RETRY_S = 30.0
WORKER_STEPS = 3
GUEST_STEPS = 4

Act = Callable[[], Awaitable[object]]


class Agent:
    """One agent in one life of the kernel, and its acts."""

    def __init__(self, world: World, life: Life, name: str, client: Client) -> None:
        self.world = world
        self.life = life
        self.name = name
        self.client = client

    async def act(self, thing: str, what: str, act: Act) -> bool:
        """Do it, once. Returns: whether it was acknowledged.

        Raises:
            ProcessGone: The agent is no more.
            KernelStopping: Nor is the kernel.
        """
        world = self.world
        if not self.life.is_over:
            world.ledger.ask(self.name, thing, what)
        told = await self.told(thing, act)
        if told and not self.life.is_over:
            world.ledger.acknowledge(self.name, thing, what)
        return told

    async def told(self, what: str, act: Act) -> bool:
        """Make a call. Returns: whether it ended well; a `KernelBug` breaks the first invariant."""
        code = ""
        try:
            await act()
        except (ProcessGone, KernelStopping):
            raise
        except AiosError as error:
            code = error.code
            if isinstance(error, KernelBug) and not self.life.is_over:
                self.world.ledger.broken(f"{self.name}: {what}: {error.message}")
        self.world.trace.add(self.name, what, code, self.world.selector.n_steps)
        return not code


class SimChild(Child):
    """A program without a process of the operating system: `work` runs in the kernel's loop, through a gate of its own."""

    def __init__(
        self, process: Process, clock: Clock, launcher: Launcher, *, world: World, kernel: Kernel
    ) -> None:
        super().__init__(process, clock, launcher)
        assert world.life is not None, "a program starts within a life of the kernel"
        self._world = world
        self._life = world.life
        self._kernel = kernel
        self._sim_process = process
        self._scope = anyio.CancelScope()
        self._over = anyio.Event()

    async def run(self, launch: Launch) -> Exit:
        """Run it; a crash of the program is a cancelled scope, as is a kill."""
        process, end = self._sim_process, Exit(0)
        process.is_new = False
        process.on_kill = self._scope.cancel
        if process.exiting is not None:
            self._scope.cancel()
        self.started.set()
        agent = Agent(
            self._world, self._life, launch.args[0], Client(LocalGate(self._kernel, process))
        )
        try:
            with self._scope:
                await work(agent, self._scope)
        except AiosError as error:
            end = Exit(CRASHED_STATUS, error.code)
        finally:
            process.on_kill = None
            self._over.set()
        if self._scope.cancelled_caught:
            end = Exit(KILLED_STATUS if process.exiting else CRASHED_STATUS, "gone")
        return end

    async def end_soon(self) -> None:
        with anyio.move_on_after(EXIT_GRACE_S):
            await self._over.wait()
        self._scope.cancel()


async def work(agent: Agent, scope: anyio.CancelScope) -> None:
    """A program: speaks, writes, remembers, sends, and ends with what it was told of each."""
    client, me, world, results = agent.client, agent.name, agent.world, list[str]()
    for step in range(WORKER_STEPS):
        if world.strikes(world.faults.program_share, "program crash"):
            world.doom(scope)
        said = await agent.told("chat", partial(client.chat, f"{step} {me}", max_tokens=4))
        stamp = f"{step}:{int(said)}"
        results.append(stamp)
        for thing, act in (
            ("file", partial(client.files.append, f"/shared/{me}.txt", f"{stamp}\n")),
            ("notes", partial(client.memory.remember, f"{me} {stamp}", scope="shared")),
            ("mail", partial(client.mail.send, 1, f"{me} {stamp}")),
        ):
            results.append(str(int(await agent.act(thing, stamp, act))))
    is_over = False
    while not is_over:
        is_over = await agent.told("exit", partial(client.exit, 0, " ".join(results)))
        await anyio.sleep(EXIT_RETRY_S)


async def visit(agent: Agent, other: Pid) -> None:
    """A client: what it asks for may be cut off at any step, and what it may not do stays undone."""
    client, world = agent.client, agent.world
    for step in range(GUEST_STEPS):
        stamp = f"{agent.life.number}.{step}"
        for thing, act in (
            ("file", partial(client.files.append, f"/agents/{agent.name}/log.txt", f"{stamp}\n")),
            ("mail", partial(client.mail.send, 1, f"{agent.name} {stamp}")),
            ("chat", partial(client.chat, "hello", max_tokens=6)),
        ):
            with anyio.CancelScope() as scope:
                if world.strikes(world.faults.cut_share, "client gone"):
                    world.doom(scope)
                await agent.act(thing, stamp, act)
        await _try_what_is_denied(agent, other)


async def _try_what_is_denied(agent: Agent, other: Pid) -> None:
    try:
        await agent.client.kill(other)
    except AccessDenied:
        return
    except AiosError as error:
        if isinstance(error, (ProcessGone, KernelStopping)):
            raise
        return
    agent.world.ledger.broken(f"{agent.name} killed process {other}, which is not its own")
