"""Turns for work that takes the memory and the thread of all: one piece at a time, and of each family one that waits for it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from weakref import WeakValueDictionary

import anyio

from aios.disk.writequeue import Queueing
from aios.kernel.process import Run


class Turns:
    """Gives one turn at a time, in the order in which families came; within a family those that came first come first."""

    def __init__(self) -> None:
        self._all = anyio.Lock()
        self._families = WeakValueDictionary[str, anyio.Lock]()

    @asynccontextmanager
    async def turn(self, run: Run, *, is_alone: bool = True) -> AsyncIterator[None]:
        """Hold the turn for the length of the block, or if it is not to be alone that of its family; waits for it, parked.

        A process that was stopped meanwhile gives it back and queues again when it goes on.
        """
        family = run.process.family
        own = self._families.setdefault(family, anyio.Lock())
        while True:
            async with AsyncExitStack() as held:
                with run.parked():
                    await held.enter_async_context(own)
                    if is_alone:
                        await held.enter_async_context(self._all)
                if not run.process.is_stopped:
                    yield
                    return
            await run.runnable()

    @asynccontextmanager
    async def queueing(self, run: Run, *, is_large: bool) -> AsyncIterator[Queueing]:
        """How a write is to wait for the writer: a large one in its turn, and not held back by a stop, for others wait for the turn."""
        if not is_large:
            yield run.holding
            return
        async with self.turn(run):
            yield lambda _: nullcontext()
