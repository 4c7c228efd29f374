"""The audit log at work: an act is written before it is done, in the group commit that it needs anyway, or it is not done.

    entry = log.enter(run, call, record)     # a place in the queue of writes, before whatever the call writes
    await log.admit(entry)                   # where the effect is no transaction: until it is on disk

Where the effect is a transaction, its seal looks whether the entry was written, and undoes the effect if it was not.
Calls that only hold back (`kill`, `stop`, `shutdown`) are written, and never withheld: a full disk must not keep anybody from
stopping an agent. What could not be written of them is written when the disk takes it again.
"""

import os
import secrets
from collections import deque
from pathlib import Path
from typing import Final

import apsw

from aios.abi.call import Answer, Call
from aios.abi.types import Pid, Right
from aios.config import AuditConfig
from aios.disk.db import Database
from aios.errors import DiskFailed
from aios.kernel.clock import Clock
from aios.kernel.journal.audit import tables
from aios.kernel.journal.audit.chain import KEY_BYTES, Act, Kind, subject_of
from aios.kernel.journal.journal import Seal
from aios.kernel.journal.records import Effect, Record, Where

RESTRAINING: Final = frozenset({"kill", "stop", "shutdown"})
OWN_RIGHTS: Final = frozenset({Right.CONTEXT, Right.LOG, Right.SELF})
OWN_CALLS: Final = frozenset({"file_draft", "file_lock", "file_unlock", "tool_take", "tool_return"})
"""What these change in the kernel's memory is their caller's alone and ends with it; the journal has it."""
MAX_WAITING = 10_000
"""Entries that wait for a disk which takes nothing."""


class Entry:
    """An act on its way into the log."""

    def __init__(self, act: Act) -> None:
        self.act = act
        self.is_written = False
        """In a transaction that is committed, or being written: whoever writes later, in it or after it, may trust it."""
        self.is_awaited = False
        """The journal waits for a later write: after that, `is_written` says that it is on disk."""
        self.is_kept = True
        """It is written again when the disk did not take it: nobody waits for it."""


class AuditLog:
    """Writes the log of one home.

    Args:
        db: With the tables of `tables.SCHEMA`; None writes nothing, as in a kernel that keeps nothing.
        key_file: Where the key is; made when it is not there.
        clock: The kernel's.
        config: Its knobs.

    Raises:
        DiskFailed: The key cannot be read or made.
    """

    def __init__(
        self, db: Database | None, key_file: Path, clock: Clock, config: AuditConfig
    ) -> None:
        self._db = db
        self._key = b"" if db is None else load_key(key_file)
        self._clock = clock
        self._max_records = config.max_records
        self._pending: deque[Entry] = deque()
        self._is_queued = False
        self._head: tables.End | None = None
        """The last record that this kernel wrote; None: that is for the log to say."""
        self.n_entered = 0
        if db is not None:
            self.note(Pid(0), Kind.BEGIN)

    def note(self, pid: Pid, kind: Kind, subject: str = "") -> None:
        """Write down what is no call, soon."""
        self._enter(Entry(Act(self._now_us(), pid, 0, kind, subject=subject)))

    def deny(self, record: Record, call: Call[Answer]) -> None:
        """Write down that a call was refused, soon."""
        self._enter(Entry(self._act(record, call, Kind.DENIED)))

    def enter(self, record: Record, call: Call[Answer], right: Right) -> Entry | None:
        """Queue the act of a call, before whatever that writes; None if nobody else is concerned, or nothing is written here."""
        if self._db is None or not is_audited(record, right):
            return None
        entry = Entry(self._act(record, call, Kind.EFFECT))
        entry.is_kept = record.call in RESTRAINING
        entry.is_awaited = record.where is Where.WORLD
        self._enter(entry)
        return entry

    async def admit(self, entry: Entry) -> None:
        """Return when an act is on disk, so that it may be done.

        Raises:
            DiskFailed: It cannot be written, and so must not be done.
            ResourceExhausted: The disk is full.
        """
        assert self._db is not None, "an entry of a log that is off"
        if not (entry.is_kept or (entry.is_awaited and entry.is_written)):
            await self._db.write(lambda _: check(entry))

    def guarded(self, seal: Seal, entry: Entry) -> Seal:
        """A seal that undoes an effect which the log does not have."""

        def sealed(connection: apsw.Connection, answer: Answer) -> None:
            check(entry)
            seal(connection, answer)

        return sealed

    def _act(self, record: Record, call: Call[Answer], kind: Kind) -> Act:
        return Act(
            self._now_us(), record.pid, record.seq, kind, record.call, record.effect.value,
            subject_of(call), record.digest,
        )  # fmt: skip

    def _enter(self, entry: Entry) -> None:
        if self._db is None:
            return
        self.n_entered += 1
        self._pending.append(entry)
        if (
            not self._is_queued
        ):  # who comes before it is written goes with it: earlier is never too late
            self._is_queued = True
            batch: list[Entry] = []
            self._db.write_soon(
                lambda connection: self._drain(connection, batch),
                on_failure=lambda: self._put_back(batch),
                is_needed=False,  # what must not be there without its entry looks itself, and kills need none
            )

    def _drain(self, connection: apsw.Connection, batch: list[Entry]) -> None:
        """In the writer's thread."""
        self._is_queued = False
        while self._pending:
            batch.append(self._pending.popleft())
        acts = [entry.act for entry in batch]
        self._head = tables.append(
            connection, self._key, acts, max_records=self._max_records, known=self._head
        )
        for entry in batch:
            entry.is_written = True

    def _put_back(self, batch: list[Entry]) -> None:
        """In the writer's thread, perhaps twice: the batch is not on disk after all. What waits for it is not done.

        The drain stands in the queue again, so who comes now goes with it.
        """
        self._is_queued, self._head = True, None
        for entry in batch:
            entry.is_written = False
        if len(self._pending) < MAX_WAITING:
            self._pending.extendleft(reversed([entry for entry in batch if entry.is_kept]))
        batch.clear()

    def _now_us(self) -> int:
        return int(1_000_000 * self._clock.unix_s())


def is_audited(record: Record, right: Right) -> bool:
    """Whether a call concerns others than its caller, or lasts longer."""
    if record.effect is Effect.PURE:
        return False
    is_own = right in OWN_RIGHTS or record.call in OWN_CALLS
    return not (is_own and record.where is Where.KERNEL)


def check(entry: Entry) -> None:
    """In the writer's thread, behind an entry.

    Raises:
        DiskFailed: It was not written, so what it announces must not be done.
    """
    if not entry.is_written:
        raise DiskFailed(
            f"the audit log does not take `{entry.act.call}`, so it was not done",
            hint="`aios audit verify`, and look at the disk of AIOS_HOME",
        )


def load_key(file: Path) -> bytes:
    """The key of the log, made if there is none yet.

    Raises:
        DiskFailed: It cannot be read or made, or is none.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            draft = file.with_name(f"{file.name}.{os.getpid()}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as new:
                new.write(secrets.token_bytes(KEY_BYTES))
                new.flush()
                os.fsync(descriptor)
            draft.rename(file)
        key = file.read_bytes()
    except OSError as error:
        raise DiskFailed(
            f"{file} cannot be read or made: {error}", hint="set AIOS_HOME to a folder of yours"
        ) from error
    if len(key) != KEY_BYTES:
        raise DiskFailed(
            f"{file} holds {len(key)} bytes, not a key of {KEY_BYTES}", hint="restore a backup"
        )
    return key
