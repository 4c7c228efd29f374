"""The journal: every system call's intent before it acts, and its outcome after.

    begin -> commit (before an effect outside) | seal (in the transaction that has the effect) -> settle

A call without effect is journalled without waiting. Before an effect leaves the kernel, the intent and all that its process
did before are on disk. Without a disk the journal keeps the last records in memory, without what was asked and answered.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import apsw
from msgspec import Struct

from aios.abi.call import Answer, Call
from aios.abi.gate import Fault, Result
from aios.abi.types import Pid
from aios.abi.wire import encode_call
from aios.errors import DiskFailed, ResourceExhausted
from aios.kernel.clock import Clock
from aios.kernel.journal import tables
from aios.kernel.journal.disk import JournalDisk
from aios.kernel.journal.events import EventRing, ProcessEvent
from aios.kernel.journal.records import Effect, Outcome, Record, Where, Written
from aios.kernel.journal.streams import CallStreams, Streams
from aios.kernel.journal.texts import digest_of, write_answer, write_call, write_fault

A = TypeVar("A", bound=Answer)
MICROS = 1_000_000
"""No kernel tells so many events a second, so numbers made from the time of a start grow."""
Seal = Callable[[apsw.Connection, Answer], None]


class JournalStatistics(Struct, frozen=True):
    """Counters of the journal."""

    n_records: int
    """In memory."""
    n_open: int
    n_written: int
    n_dropped: int
    """From memory."""


class Journal:
    """Records of calls, by process and number.

    Args:
        clock: The kernel's.
        max_records: Settled ones kept in memory for those who watch; open ones are always kept.
        disk: Where all go; None keeps none.
    """

    def __init__(self, clock: Clock, *, max_records: int, disk: JournalDisk | None = None) -> None:
        self.disk = disk
        self._clock = clock
        self.events = EventRing(max_records)
        self.streams = Streams(clock, self.tell, disk)
        self._open: dict[tuple[Pid, int], Record] = {}
        self._n_written = 0
        self.is_closing = False
        """The kernel ends: calls that are cut short stay open, and the next kernel settles them."""

    def begin(
        self,
        pid: Pid,
        seq: int,
        *,
        call: Call[A],
        effect: Effect,
        where: Where,
        within: int = 0,
        job: int = 0,
        cure: str = "",
        family: str = "",
        begun_unix_s: float | None = None,
    ) -> Record:
        """Write the intent of a call of a process of a family; `begun_unix_s` is when it first began, if it is made again under its old number.

        Raises:
            InvalidCall: It holds something that no wire carries.
            ResourceExhausted: The disk takes no records.
        """
        name = str(call.__struct_config__.tag)
        unix_s = self._clock.unix_s() if begun_unix_s is None else begun_unix_s
        if self.disk is None:
            digest, intent = digest_of(encode_call(call)), None
        else:
            self.disk.check_room(family)
            intent = write_call(call)
            digest = intent.digest
        record = Record(
            pid,
            seq,
            name,
            digest,
            effect,
            unix_s,
            where,
            intent=intent,
            within=within,
            job=job,
            cure=cure,
            family=family,
        )
        self._open[(pid, seq)] = record
        self._n_written += 1
        return record

    def note_begun(self, record: Record) -> None:
        """Have the intent of a call on disk soon that may not end by itself, so that it is known when it began."""
        if self.disk is not None:
            self.disk.add(replace(record))

    async def commit(self, record: Record) -> None:
        """Return when an effect of this call may leave the kernel: the intent and all before it are on disk.

        Where the effect is a transaction, the intent goes with it, and what was before it goes before it.
        """
        if self.disk is None:
            return
        if record.where is Where.WORLD:
            await self.disk.write_now(record)
            record.is_written = True
        else:
            self.disk.push()

    async def flush(self, *, is_urgent: bool) -> None:
        """Return when all that was noted so far is on disk, urgently before other writes that wait. A disk that takes nothing now is asked again later, and nobody waits for it."""
        if self.disk is not None:
            with suppress(DiskFailed, ResourceExhausted):
                await self.disk.flush(is_urgent=is_urgent)

    def seal_of(self, record: Record) -> Seal | None:
        """What writes the outcome of a call in the transaction that has its effect; None if nothing does."""
        if self.disk is None or record.where is not Where.DISK:
            return None

        def seal(connection: apsw.Connection, answer: Answer) -> None:
            sealed = Record(
                record.pid, record.seq, record.call, record.digest, record.effect,
                record.begun_unix_s, record.where, Outcome.DONE, ended_unix_s=self._clock.unix_s(),
                intent=record.intent, answer=write_answer(answer, record.intent), within=record.within,
                job=record.job,
            )  # fmt: skip
            tables.save(connection, sealed)
            record.is_sealed = True

        return seal

    def seal_for(
        self, record: Record, connection: apsw.Connection, answer: Answer, pid: Pid
    ) -> None:
        """Inside a write: give another process this call of its own, with an answer of its own."""
        outcome = write_answer(answer, record.intent)
        theirs = replace(
            record, pid=pid, outcome=Outcome.DONE, ended_unix_s=self._clock.unix_s(), answer=outcome, within=0, job=0,
        )  # fmt: skip
        tables.save(connection, theirs)

    def settle(self, record: Record, outcome: Outcome, end: Result[A] | Fault | None) -> bool:
        """Write how a call ended; a record is settled once.

        Returns: Whether its process had better wait until that is on disk, for the disk is behind.
        """
        assert record.outcome is Outcome.OPEN, f"{record} is settled already"
        record.outcome, record.ended_unix_s = outcome, self._clock.unix_s()
        if isinstance(end, Fault):
            record.code = end.code
        if isinstance(end, Result):
            record.waited_s, record.ran_s = end.waited_s, end.ran_s
            record.n_preemptions, record.n_urgent = end.n_preemptions, end.n_urgent
        del self._open[(record.pid, record.seq)]
        is_behind = False
        if self.is_closing and outcome is Outcome.CANCELLED:
            return is_behind
        if self.disk is not None and not (record.is_sealed and outcome is Outcome.DONE):
            record.answer = _written(record, end)
            is_behind = self.disk.add(record)
        elif self.disk is not None:
            record.intent = None
            if record.n_urgent:
                self.disk.add(lambda connection: tables.mark_urgent(connection, record))
        self.events.put(record)
        return is_behind

    def settle_later(self, record: Record, outcome: Outcome, fault: Fault | None = None) -> None:
        """Write what became of a call that was cut off in an earlier life of its process."""
        record.outcome, record.is_written = outcome, True
        record.ended_unix_s = max(record.ended_unix_s, record.begun_unix_s)
        if fault is not None:
            record.code, record.answer = fault.code, write_fault(fault)
        if self.disk is not None:
            self.disk.add(record)
        self.events.put(record)

    async def take_up(self, is_alive: Callable[[Pid], bool]) -> None:
        """Know what generations the kernel before left in the middle, and number events behind its own."""
        self.events.base = int(MICROS * self._clock.unix_s())
        await self.streams.load(is_alive)

    def settle_streams(self, streams: CallStreams, outcome: Outcome) -> None:
        """Drop the pieces of a call that is settled; those of one that the kernel's end cut off stay."""
        if not (self.is_closing and outcome is Outcome.CANCELLED):
            streams.settle()

    def unix_s(self) -> float:
        """The time on its clock."""
        return self._clock.unix_s()

    def tell(self, pid: Pid, what: str, detail: str = "") -> None:
        """Tell those who watch what became of a process."""
        self.events.put(ProcessEvent(pid, what, self._clock.unix_s(), detail))

    def records(self, pid: Pid) -> list[Record]:
        """The records of a process that are in memory, in the order of its calls."""
        settled = [each for each in self.events if isinstance(each, Record) and each.pid == pid]
        found = [*settled, *(each for each in self._open.values() if each.pid == pid)]
        return sorted(found, key=lambda record: record.seq)

    def statistics(self) -> JournalStatistics:
        """Counters; cheap."""
        n_open = len(self._open)
        return JournalStatistics(
            len(self.events) + n_open, n_open, self._n_written, self.events.n_dropped
        )


def _written(record: Record, end: Result[A] | Fault | None) -> Written | None:
    """An end as it is stored."""
    if isinstance(end, Fault):
        return write_fault(end)
    return None if end is None else write_answer(end.value, record.intent)
