"""From the engine's thread to the event loop: one wake-up a step, however much there is to say."""

import contextlib
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

import anyio
from anyio.lowlevel import current_token

from aios.engine.base import Delta
from aios.errors import AiosError

T = TypeVar("T")


class Reader(Protocol):
    """Whoever hears what a generation brings; called in the event loop."""

    def receive(self, delta: Delta) -> None:
        """Take the next piece."""
        ...

    def fail(self, error: AiosError) -> None:
        """Take the news that nothing more will come."""
        ...


class Reply(Generic[T]):
    """An answer that comes once and that one task waits for; lives in the event loop."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._values: list[T] = []
        self._error: AiosError | None = None

    def receive(self, value: T) -> None:
        """Give the answer."""
        self._values.append(value)
        self._event.set()

    def fail(self, error: AiosError) -> None:
        """Say why there will be none."""
        self._error = error
        self._event.set()

    async def wait(self) -> T:
        """Wait for it; raises the error if there is one."""
        await self._event.wait()
        if self._error is not None:
            raise self._error
        return self._values[0]


class Outbox:
    """Calls to be made in the event loop in which it was built. `put` and `flush` are for the engine's thread."""

    def __init__(self) -> None:
        loop = current_token().native_token
        # The name is asyncio's or trio's. anyio's own way back from a thread waits for the event loop; this does not.
        self._wake: Callable[[Callable[[], None]], object] = getattr(
            loop, "call_soon_threadsafe", None
        ) or getattr(loop, "run_sync_soon")  # noqa: B009 - typed as object
        self._calls: deque[Callable[[], None]] = deque()
        self._is_woken = False

    def put(self, function: Callable[[T], None], value: T) -> None:
        """Have `function(value)` called after the next `flush`, in the order of putting."""
        self._calls.append(partial(function, value))

    def flush(self) -> None:
        """Wake the event loop, unless it was woken and has not come yet."""
        if self._calls and not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(RuntimeError):  # the event loop has ended: nobody hears us
                self._wake(self._deliver)

    def _deliver(self) -> None:
        self._is_woken = False  # before the calls: what is put from now on wakes us again
        while self._calls:
            self._calls.popleft()()
