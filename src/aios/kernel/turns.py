"""Turns for work that takes the memory and the thread of all: one piece at a time, and of each family one that waits for it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

import anyio

from aios.kernel.process import Run


class Turns:
    """Gives one turn at a time, in the order in which families came; within a family those that came first come first."""

    def __init__(self) -> None:
        self._all = anyio.Lock()
        self._families = WeakValueDictionary[str, anyio.Lock]()

    @asynccontextmanager
    async def turn(self, run: Run) -> AsyncIterator[None]:
        """Hold the turn for the length of the block; waits for it, parked.

        A process that was stopped meanwhile gives it back and queues again when it goes on.
        """
        family = run.process.family
        own = self._families.setdefault(family, anyio.Lock())
        while True:
            async with AsyncExitStack() as held:
                with run.parked():
                    await held.enter_async_context(own)
                    await held.enter_async_context(self._all)
                if not run.process.is_stopped:
                    yield
                    return
            await run.runnable()
