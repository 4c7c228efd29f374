"""A wait queue: those who wait until something has changed, all woken at once."""

import anyio


class WaitQueue:
    """Look first, then wait: whatever changes in between, before the wait begins, wakes nobody.

    Nothing waits between the two in the same task, so nothing falls between.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def wake_all(self) -> None:
        """It has changed: all who wait look again. Costs nothing when nobody waits."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Return at the next `wake_all`."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
