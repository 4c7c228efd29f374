"""The journal's way to disk: records are gathered and written in the order in which they came, many in one commit.

The first record of a batch takes a place in the database's queue of writes. Whatever is written after it, by whomever, is
committed with it or later, also when the disk fails in between: so nothing on disk was ever caused by a record that is not there.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import anyio
import apsw

from aios.abi.gate import Fault
from aios.abi.types import Pid
from aios.disk.db import Database
from aios.errors import DiskFailed, ResourceExhausted
from aios.kernel.journal import tables
from aios.kernel.journal.records import Outcome, Record
from aios.kernel.journal.retention import Kept, expired
from aios.kernel.journal.texts import write_fault

FLUSH_S = 0.1
"""Records wait so long for a commit of somebody else's; what a crash takes of them is only done again."""
SWEEP_S = 600.0
MAX_PENDING_BYTES = 512 << 20
"""What may wait for a disk that does not take it; then those are refused of whose families something large waits."""
COUNTED_BYTES = 4 << 10
"""Of a record, from which on it holds back its family where there is no room; smaller ones are bounded by their number."""
SLOW_BYTES, LARGE_BYTES = 64 << 20, 16 << 10
"""From so much on, who adds a record of over `LARGE_BYTES` waits for the disk, too: so the disk is as fast as they are."""

T = TypeVar("T")

Extra = Callable[[apsw.Connection], object]


class JournalDisk:
    """Where a journal's records go.

    Args:
        db: With the tables of `tables.SCHEMA`.
        max_pending: Records that may wait for a disk that does not take them.
    """

    def __init__(self, db: Database, max_pending: int) -> None:
        self._db = db
        self._max_pending = max_pending
        self._pending: deque[tuple[Record | Extra, int]] = deque()
        """In their order, each with its bytes."""
        self._batch: list[tuple[Record | Extra, int]] = []
        self._added_bytes = self._written_bytes = 0
        """Since the start; the second is the writer's thread's."""
        self._large_until: dict[str, int] = {}
        """By families, `_added_bytes` with the last large record of theirs."""
        self._is_queued = False
        """A drain that has not run yet is among the database's writes."""
        self._dirty = anyio.Event()

    def check_room(self, family: str = "") -> None:
        """Raise ResourceExhausted if too much waits for a disk that takes nothing; too many bytes hold back only families of which something large does."""
        n_records, n_bytes = len(self._pending), self._waiting_bytes
        is_theirs = self._large_until.get(family, 0) > self._written_bytes
        if n_records >= self._max_pending or (n_bytes >= MAX_PENDING_BYTES and is_theirs):
            whose = f", large ones of {family} and what it started," if is_theirs else ""
            raise ResourceExhausted(
                f"{n_records} journal records of {n_bytes:,} bytes{whose} wait for the disk",
                hint="free space on the disk of AIOS_HOME; `aios doctor`",
                retry_after_s=1.0,
            )

    def add(self, entry: Record | Extra) -> bool:
        """Write a record, or do another write at its place in the order, soon; never waits.

        Returns: Whether it is large and so much waits that its process had better wait for it, too.
        """
        n_bytes = _size_of(entry) if isinstance(entry, Record) else 0
        if not self._waiting_bytes:
            self._large_until.clear()
        self._added_bytes += n_bytes
        if (
            isinstance(entry, Record) and entry.family and n_bytes > COUNTED_BYTES
        ):  # never the owner
            self._large_until[entry.family] = self._added_bytes
        self._pending.append((entry, n_bytes))
        self.push()
        return n_bytes > LARGE_BYTES and self._waiting_bytes > SLOW_BYTES

    def take_back(self, record: Record) -> None:
        """Tell a process no more how a call of its life before ended: it makes it again."""
        record.outcome = Outcome.UNDONE
        self.add(lambda connection: tables.take_back(connection, record))

    def leave(self, records: Sequence[Record]) -> None:
        """Tell a process no more of calls for which it did not ask again: it goes on without them."""
        done = [each for each in records if not each.is_nothing]
        for record in records:
            if record.is_nothing:
                self.take_back(record)
        self.add(lambda connection: tables.leave(connection, done))

    def push(self) -> None:
        """Give what waits a place in the queue of writes, before whatever is written next."""
        if self._pending and not self._is_queued:
            self._is_queued = True
            self._db.write_soon(
                self._drain,
                publish=self._forget_texts,
                on_failure=self._put_back,
                is_needed=True,
            )
            self._dirty.set()

    @property
    def _waiting_bytes(self) -> int:
        return self._added_bytes - self._written_bytes

    async def flush(self, *, is_urgent: bool = False) -> None:
        """Return when all records that were added are on disk; urgently: before other writes that wait."""
        self.push()
        await self._db.write(_nothing, is_urgent=is_urgent)

    async def write_now(self, record: Record) -> None:
        """Return when a record, and all that were added before it, are on disk."""
        self.push()
        await self._db.write(lambda connection: tables.save(connection, record))

    async def write(self, write: Callable[[apsw.Connection], T]) -> T:
        """Do another write after all records that were added; when this returns, all of it is on disk.

        Once begun it is not cancelled: who changed something in memory for it knows what became of it.
        """
        self.push()
        done: list[T] = []
        with anyio.CancelScope(shield=True):
            done.append(await self._db.write(write))
        return done[0]

    async def read(self, read: Callable[[apsw.Connection], T]) -> T:
        """Read from a snapshot of what is on disk."""
        return await self._db.read(read)

    async def read_all(self, read: Callable[[apsw.Connection], T]) -> T:
        """Read from a snapshot with all records that were added."""
        await self.flush()
        return await self._db.read(read)

    def read_nowait(self, read: Callable[[apsw.Connection], T]) -> T:
        """Look something up by its key on the event loop; `open` was called."""
        return self._db.read_nowait(read)

    async def run(self) -> None:
        """See to it that records do not wait for long, until cancelled."""
        while True:
            await self._dirty.wait()
            await anyio.sleep(FLUSH_S)
            self._dirty = anyio.Event()
            self.push()
            with suppress(DiskFailed, ResourceExhausted), anyio.CancelScope(shield=True):
                await self._db.write(_nothing)  # a disk that takes nothing is asked again
            if self._pending:
                self._dirty.set()

    async def run_sweeper(self, kept: Callable[[], Kept]) -> None:
        """Sweep now and then, until cancelled."""
        while True:
            await anyio.sleep(SWEEP_S)
            with suppress(DiskFailed, ResourceExhausted), anyio.CancelScope(shield=True):
                await self.sweep(kept())

    async def sweep(self, kept: Kept) -> int:
        """Forget records that need not be kept, and the texts that only they had. Returns: how many records."""

        def write(connection: apsw.Connection) -> int:
            n_dropped = 0
            for pid, up_to in expired(tables.survey(connection), kept):
                n_dropped += tables.drop(connection, pid, up_to=up_to)
            if n_dropped:
                tables.collect(connection)
            return n_dropped

        await self.flush()
        return await self._db.write(write)

    async def load(self, pid: Pid, *, after: int = 0) -> list[tables.Row]:
        """The records of a process behind a number, in order, without what is long: `tables.asked` and `tables.told` read that of one."""
        return await self.read_all(lambda c: tables.load(c, pid, after=after, texts=False))

    async def settle_open(
        self, pid: Pid, end_of: Callable[[Record], Fault | Outcome | None]
    ) -> None:
        """Settle the records of a process that have no outcome: with a fault, with that outcome, or as if they had never been."""

        def write(connection: apsw.Connection) -> None:
            last_unix_s = tables.last_unix_s(connection, pid)
            for record in tables.open_records(connection, pid):
                end = end_of(record)
                if end is None:
                    tables.drop_one(connection, record)
                    continue
                record.is_written = True
                record.ended_unix_s = (
                    last_unix_s  # it was in flight beside those that came after it
                )
                record.outcome = end if isinstance(end, Outcome) else Outcome.FAULT
                if isinstance(end, Fault):
                    record.answer = write_fault(end)
                tables.save(connection, record)

        await self.flush()
        await self._db.write(write)

    # --- in the writer's thread ----------------------------------------------------------------------------------

    def _drain(self, connection: apsw.Connection) -> None:
        self._is_queued = False
        for _ in range(len(self._pending)):  # what comes meanwhile has its own place behind this
            entry, n_bytes = self._pending.popleft()
            self._batch.append((entry, n_bytes))
            if isinstance(entry, Record):
                tables.save(connection, entry)
            else:
                entry(connection)

    def _forget_texts(self, _: None) -> None:
        """All that was drained is on disk: those who watch need only its heads."""
        for entry, n_bytes in self._batch:
            self._written_bytes += n_bytes
            if isinstance(entry, Record):
                entry.intent = entry.answer = None
        self._batch.clear()

    def _put_back(self) -> None:
        """What was drained is not on disk after all; the drain stands in the queue again, before all others."""
        self._is_queued = True
        self._pending.extendleft(reversed(self._batch))
        self._batch.clear()


def _size_of(record: Record) -> int:
    """The bytes of what was asked and answered."""
    parts = [each for each in (record.intent, record.answer) if each is not None]
    links = sum(len(link.data) for part in parts for link in part.messages or ())
    return links + sum(len(part.head) for part in parts)


def _nothing(_: apsw.Connection) -> None:
    return None
