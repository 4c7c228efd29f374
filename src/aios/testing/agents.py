"""An agent of a simulation, and its acts: each is written into the ledger before and after.

An error that the kernel may rightly answer with is taken as it is.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from aios.errors import AiosError, KernelBug, KernelStopping, ProcessGone
from aios.kernel.process import Process
from aios.sdk.client import Client
from aios.testing.world import Life, World

T = TypeVar("T")
Act = Callable[[], Awaitable[object]]

GO_ALONG = ("file", "tool file")
"""What a copy of a process finds done that its source did; all else stays the source's."""


class Agent:
    """One agent in one life of the kernel, and its acts.

    Args:
        world: Its world.
        life: Its life.
        process: What it is.
        me: What it takes itself for: a copy of a process, a fork say, was told the name of its source.
        client: How it asks.
    """

    def __init__(
        self, world: World, life: Life, process: Process, *, me: str, client: Client
    ) -> None:
        self.world = world
        self.life = life
        self.process = process
        self.name = process.name
        self.me = me
        self.client = client
        self.code = ""
        """Of the fault of its call that ended last; empty if there was none."""

    async def act(self, thing: str, what: str, act: Act) -> bool:
        """Do it, once. Returns: whether it was acknowledged.

        Raises:
            ProcessGone: The agent is no more.
            KernelStopping: Nor is the kernel.
        """
        world, is_retold = self.world, self._is_retold(thing)
        if not self.life.is_over:
            world.ledger.ask(self.name, thing, what)
        told = await self.told(thing, act)
        if not self.life.is_over and not is_retold:
            if told:
                world.ledger.acknowledge(self.name, thing, what)
            elif thing == "tool":
                world.ledger.take_back(self.name, thing, what)
        return told

    async def told(self, what: str, act: Act) -> bool:
        """Make a call. Returns: whether it ended well; a `KernelBug` breaks the first invariant."""
        return (await self.asked(what, act))[1]

    async def asked(self, what: str, ask: Callable[[], Awaitable[T]]) -> tuple[T | None, bool]:
        """Make a call. Returns: its answer, and whether it ended well."""
        code, answer = "", None
        try:
            answer = await ask()
        except (ProcessGone, KernelStopping):
            raise
        except AiosError as error:
            code = error.code
            if isinstance(error, KernelBug):
                self.broken(f"{what}: {error.message}")
        self.code = code
        self.world.trace.add(self.name, what, code, self.world.selector.n_steps)
        return answer, not code

    def broken(self, what: str) -> None:
        """An invariant does not hold, unless the power has failed by now."""
        if not self.life.is_over:
            self.world.ledger.broken(f"{self.name}: {what}")

    def _is_retold(self, thing: str) -> bool:
        """Whether what it does next was done by the process that it is a copy of."""
        is_copy = self.name != self.me
        return is_copy and self.process.replay is not None and thing not in GO_ALONG
