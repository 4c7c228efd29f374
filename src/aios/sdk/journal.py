"""Looking into the journal: `client.journal.read(pid)`, `client.journal.events(after)`, and the same for plain code."""

from typing import TYPE_CHECKING

from aios.abi.journal import EventList, Events, JournalRead, JournalRecords
from aios.abi.types import Pid
from aios.sdk.requests import build

if TYPE_CHECKING:
    from aios.abi.gate import Gate
    from aios.sdk.blocking import BlockingGate


class Journal:
    """What the processes that a client may see asked of the kernel, and what came of it."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate

    async def read(
        self, pid: int, *, after: int = 0, limit: int = 1_000, is_full: bool = False
    ) -> JournalRecords:
        """A page of the records of a process, behind record `after`; a negative one counts from the end.

        Args:
            pid: The process.
            after: The `next_seq` of the page before.
            limit: Records on the page; a page of long ones may have fewer.
            is_full: With what was asked and answered.

        Raises:
            AccessDenied: The process is neither the caller nor a descendant of it.
            NotFound: No such process.
        """
        call = build(JournalRead, pid=Pid(pid), after=after, limit=limit, is_full=is_full)
        return (await self._gate.call(call)).value

    async def events(
        self,
        *,
        after: int | None = None,
        pid: int | None = None,
        is_waiting: bool = True,
        deadline_s: float | None = None,
    ) -> EventList:
        """Events behind number `after`, or from now on; `last` of the list is the `after` of the next call.

        Raises:
            DeadlineExceeded: Nothing happened within `deadline_s` seconds.
        """
        target = None if pid is None else Pid(pid)
        call = build(Events, after=after, pid=target, is_waiting=is_waiting, deadline_s=deadline_s)
        return (await self._gate.call(call)).value


class BlockingJournal:
    """`Journal` for code that waits."""

    def __init__(self, gate: "BlockingGate") -> None:
        self._gate = gate

    def read(
        self, pid: int, *, after: int = 0, limit: int = 1_000, is_full: bool = False
    ) -> JournalRecords:
        """A page of the records of a process; see `Journal.read`."""
        call = build(JournalRead, pid=Pid(pid), after=after, limit=limit, is_full=is_full)
        return self._gate.call(call).value

    def events(
        self,
        *,
        after: int | None = None,
        pid: int | None = None,
        is_waiting: bool = True,
        deadline_s: float | None = None,
    ) -> EventList:
        """Events behind number `after`, or from now on; see `Journal.events`."""
        target = None if pid is None else Pid(pid)
        call = build(Events, after=after, pid=target, is_waiting=is_waiting, deadline_s=deadline_s)
        return self._gate.call(call).value
