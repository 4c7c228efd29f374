"""A program without a process of the operating system: its trade runs in the kernel's loop, through a gate of its own."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

import anyio

from aios.abi.gate import in_course_of
from aios.abi.types import Exit
from aios.errors import AiosError
from aios.kernel.clock import Clock
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel
from aios.kernel.loader import EXIT_GRACE_S, Child, Launch
from aios.kernel.process import Process
from aios.kernel.sandbox.launch import Launcher
from aios.kernel.signals import KILLED_STATUS
from aios.sdk.client import Client
from aios.testing.agents import Agent
from aios.testing.limited import work_within_limits
from aios.testing.serving import HearingGate, serve
from aios.testing.trades import branch_out, run_on, run_once, work
from aios.testing.world import World

CRASHED_STATUS = 1
Trade = Callable[[Agent, anyio.CancelScope], Awaitable[None]]
TRADES: Mapping[str, Trade] = MappingProxyType(
    {"w": work, "b": branch_out, "l": work_within_limits, "s": serve, "t": run_once, "e": run_on}
)
"""By the first letter of an agent's name."""


class SimChild(Child):
    """What stands for the child process; its first argument is the name of the agent, which begins with its trade."""

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
        process, end, me = self._sim_process, Exit(0), launch.args[0]
        process.is_new = False
        process.on_kill = self._scope.cancel
        if process.exiting is not None:
            self._scope.cancel()
        self.started.set()
        client = Client(HearingGate(LocalGate(self._kernel, process), self._kernel.table))
        agent = Agent(self._world, self._life, process, me=me, client=client)
        try:
            with self._scope, in_course_of(0):
                await TRADES[me[0]](agent, self._scope)
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
