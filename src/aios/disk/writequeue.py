"""The queue of writes that wait for their commit. One of those who wait leads: it commits for itself and for others.

The leader takes the oldest writes, whosever they are; when they are on disk it wakes who leads next, and then those whose
writes are done. Groups are short, so that a write that is wanted now, or no longer wanted, waits for a few others and not for
all. A write that nobody has taken yet can be held back, which is how `stop` need not wait for it. Urgent writes, such as that
somebody was killed, go before others that wait, a few at once.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import TypeVar

import anyio
import apsw

from aios.disk.commit import Closing, Job

T = TypeVar("T")

MAX_GROUP = 32
"""Writes in one transaction: about 15 ms, of which the sync is a small share."""

MAX_URGENT = 8
"""Urgent ones among them, so that who floods with those keeps nobody waiting."""

Commit = Callable[[Sequence[Job[object]]], Awaitable[list[Job[object]]]]


class Waiter:
    """Somebody who waits for what is done in groups, and leads the next group if it is his turn."""

    _woken: anyio.Event | None = None

    async def wait(self) -> None:
        """Wait until something may have changed for it: it is done, is to lead, or is back in the queue."""
        if self._woken is None or self._woken.is_set():
            self._woken = anyio.Event()
        await self._woken.wait()

    def wake(self) -> None:
        """Let who waits look; nothing if nobody does."""
        if self._woken is not None:
            self._woken.set()


class Place(Waiter, Job[T]):
    """A write that somebody waits for, and its place in the queue."""

    def __init__(
        self,
        queue: "WriteQueue",
        write: Callable[[apsw.Connection], T],
        publish: Callable[[T], None] | None = None,
        closing: Closing | None = None,
    ) -> None:
        super().__init__(write, publish, closing=closing)
        self._queue = queue
        self.is_held = False

    def hold(self, is_held: bool) -> bool:
        """Take it out of the queue, or put it back at the end. Returns: whether it is out; one that is being written stays."""
        if is_held and not self.is_held:
            self.is_held = self._queue.withdraw(self)
        elif self.is_held and not is_held:
            self.is_held = False
            self._queue.add(self)
        return self.is_held


Queueing = Callable[[Callable[[bool], bool]], AbstractContextManager[None]]
"""Open while a write waits and is written; it is given what holds the write back (`Place.hold`)."""


class WriteQueue:
    """Writes in the order in which they came. All of it happens on the event loop.

    Args:
        turn: Held while a group is written.
        commit: Writes a group; each of its jobs is done then, but for those that it returns to be tried before all others: what
            is owed, and what it did not come to.
    """

    def __init__(self, turn: anyio.Lock, commit: Commit) -> None:
        self._turn = turn
        self._commit = commit
        self._jobs: list[Job[object]] = []
        self._urgent: list[Job[object]] = []
        self._is_led = False

    def add(self, job: Job[object], *, is_urgent: bool = False) -> None:
        """Queue a write, as the last, or as the last of the urgent ones."""
        job.is_urgent = is_urgent
        (self._urgent if is_urgent else self._jobs).append(job)
        self._wake_leader()

    def withdraw(self, job: Job[object]) -> bool:
        """Take a write out, if nobody has taken it yet. Returns: whether it was there."""
        jobs = self._urgent if job in self._urgent else self._jobs
        if job not in jobs:
            return False
        jobs.remove(job)
        self._wake_leader()  # it may have been the one that was to lead
        return True

    async def wait_done(self, place: Place[T]) -> None:
        """Wait until a write is done, and commit for all meanwhile if nobody else does."""
        while not place.is_done:
            if self._is_led or place.is_held:
                await place.wait()
            else:
                await self._lead()

    async def leave(self, place: Place[T]) -> None:
        """Nobody wants a write any more: take it out. If it is being written, wait for that: what it uses must stay until then."""
        with anyio.CancelScope(shield=True):
            while not (place.is_done or place.is_held or self.withdraw(place)):
                await place.wait()

    async def _lead(self) -> None:
        """Commit one group."""
        group: list[Job[object]] = []
        self._is_led = True
        try:
            async with self._turn:
                group = self._take()
                # Others wait for what was taken: a cancel here must not leave it undone.
                with anyio.CancelScope(shield=True):
                    again = await self._commit(group)
                self._urgent[:0] = [job for job in again if job.is_urgent]
                self._jobs[:0] = [job for job in again if not job.is_urgent]
        finally:
            self._is_led = False
            self._wake_leader()
            for job in group:
                if isinstance(job, Place):
                    job.wake()

    def _take(self) -> list[Job[object]]:
        """Take the next group out. What nobody waits for keeps its place before all that is urgent, for that may build on it."""
        urgent, self._urgent = self._urgent[:MAX_URGENT], self._urgent[MAX_URGENT:]
        if urgent:
            soon = [job for job in self._jobs if not isinstance(job, Place)]
            places = [job for job in self._jobs if isinstance(job, Place)]
            self._jobs = [*soon, *urgent, *places]
        group, self._jobs = self._jobs[:MAX_GROUP], self._jobs[MAX_GROUP:]
        return group

    def _wake_leader(self) -> None:
        """If nobody leads, let the oldest that somebody waits for look."""
        if not self._is_led:
            first = next(
                (job for job in chain(self._urgent, self._jobs) if isinstance(job, Place)), None
            )
            if first is not None:
                first.wake()
