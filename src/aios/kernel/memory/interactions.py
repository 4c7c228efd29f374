"""Short-term memory: what each agent said, asked and got, on disk, with a bounded block of it in memory.

Records belong to an owner and an agent (`kernel/lineage.py`), so that one that is started again goes on with its own. The block belongs to the process.

Who looks at another process leaves its block alone. Only the owner of the kernel is shown all records of an agent, and a process that may see another what that
one has logged itself, which its journal says as well.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import apsw
import msgspec

from aios.abi.interactions import (
    BlockStatistics,
    Interaction,
    Interactions,
    Logged,
    MemoryLog,
    MemoryRead,
    MemoryStat,
)
from aios.abi.types import Right
from aios.config import MemoryConfig
from aios.disk.db import Database
from aios.disk.migrations import Schema
from aios.kernel.access.manager import AccessManager, Act
from aios.kernel.clock import Clock
from aios.kernel.memory.blocks import Block
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.taint import source_of, take
from aios.readers import from_msgpack

if TYPE_CHECKING:
    from aios.abi.types import Pid

SCHEMA = Schema(
    "interactions",
    (
        """
        CREATE TABLE memory_interactions (
            owner TEXT NOT NULL, name TEXT NOT NULL, id INTEGER NOT NULL, unix_s REAL NOT NULL, kind TEXT NOT NULL,
            text TEXT NOT NULL, PRIMARY KEY (owner, name, id)
        ) WITHOUT ROWID
        """,
        "ALTER TABLE memory_interactions ADD COLUMN taint TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE memory_interactions ADD COLUMN pid INTEGER NOT NULL DEFAULT 0",
    ),
)


Whose = tuple[str, str]
"""Owner and agent; the column of the latter is called `name`."""
PAGE_BYTES = 4 << 20
"""Of the texts of records, at which an answer ends: in JSON it is up to six times as long, and a packet holds 64 MiB."""
ANY_PID = 0
"""In a query: whichever process has logged a record. On a record: one of another home, or of an earlier version."""


def branch(
    connection: apsw.Connection, source: Whose, target: Whose, *, unix_s: float | None = None
) -> None:
    """Inside a write: give an agent the records of another, as they are or were at a moment, and no others."""
    erase(connection, target)
    connection.execute(
        "INSERT INTO memory_interactions SELECT ?, ?, id, unix_s, kind, text, taint, pid FROM memory_interactions "
        "WHERE owner = ? AND name = ? AND unix_s <= ?",
        (*target, *source, float("inf") if unix_s is None else unix_s),
    )


def count(connection: apsw.Connection, whose: Whose, *, limit: int) -> int:
    """How many records an agent has; counted up to a limit."""
    query = "SELECT count(*) FROM (SELECT 1 FROM memory_interactions WHERE owner = ? AND name = ? LIMIT ?)"
    found: int = connection.execute(query, (*whose, limit)).get
    return found


def last_id(connection: apsw.Connection, whose: Whose) -> int:
    """The id of the last record of an agent; 0 if it has none."""
    query = "SELECT ifnull(max(id), 0) FROM memory_interactions WHERE owner = ? AND name = ?"
    return msgspec.convert(connection.execute(query, whose).get, int)


def erase(connection: apsw.Connection, whose: Whose) -> None:
    """Inside a write: forget all records of an agent."""
    connection.execute("DELETE FROM memory_interactions WHERE owner = ? AND name = ?", whose)


def is_unused(connection: apsw.Connection, whose: Whose) -> bool:
    """Whether an agent has no records."""
    query = "SELECT 1 FROM memory_interactions WHERE owner = ? AND name = ? LIMIT 1"
    return connection.execute(query, whose).fetchone() is None


class ShortTerm:
    """The handlers of the calls about short-term memory."""

    def __init__(
        self, db: Database, clock: Clock, config: MemoryConfig, *, access: AccessManager
    ) -> None:
        self._db = db
        self._access = access
        self._clock = clock
        self._block_bytes = config.block_bytes
        self._max_records = config.max_interactions
        self._blocks: dict[Pid, Block] = {}

    async def log(self, run: Run, call: MemoryLog) -> Logged:
        """Add a record."""
        process, now = run.process, self._clock.unix_s()
        whose = (process.owner, process.agent)
        taint = source_of(process)

        def write(connection: apsw.Connection) -> Logged:
            record = last_id(connection, whose) + 1
            key = (*whose, record)
            connection.execute(
                "INSERT INTO memory_interactions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*key, now, call.kind, call.text, taint, process.pid),
            )
            connection.execute(
                "DELETE FROM memory_interactions WHERE owner = ? AND name = ? AND id <= ?",
                (*key[:2], record - self._max_records),
            )
            return run.sealed(connection, Logged(record))

        logged = await self._db.write(write, queueing=run.holding)
        self._keep(process, [Interaction(logged.id, now, call.kind, call.text, taint)])
        return logged

    async def read(self, run: Run, call: MemoryRead, target: Process | None) -> Interactions:
        """Read records from one on: one's own, those that are not in memory from disk, or those of `target`."""
        if target is None or target is run.process:
            found = await self._read_own(run.process, call)
        else:
            await self._admit(run, call, target)
            found = Interactions(await self._read_of(run, call, target), 0)
        for each in found.records:
            take(run, each.taint, f"record {each.id}")
        return found

    async def stat(self, run: Run, call: MemoryStat, target: Process | None) -> BlockStatistics:
        """What is in the block of the caller, or of `target`."""
        if target is None or target is run.process:
            process, block, pid = run.process, self._block(run.process), ANY_PID
        else:
            await self._admit(run, call, target)
            process, pid = target, _shown_pid(run, target)
            block = self._blocks.get(target.pid) or self._new_block(target)
        whose = (process.owner, process.agent)
        n_records = await self._db.read(lambda connection: self._count(connection, whose, pid))
        return BlockStatistics(
            n_records=n_records,
            n_in_memory=len(block),
            size_bytes=block.size_bytes,
            max_bytes=block.max_bytes,
            n_reads=block.n_reads,
            n_faults=block.n_faults,
        )

    def close(self, process: Process) -> None:
        """The process has ended: its block goes, its records stay."""
        self._blocks.pop(process.pid, None)
        process.block_bytes = 0

    def check_invariants(self) -> None:
        """Raise AssertionError if a block contradicts itself."""
        for block in self._blocks.values():
            block.check_invariants()

    async def _admit(self, run: Run, call: MemoryRead | MemoryStat, target: Process) -> None:
        """Another's records take what its log and journal take, too."""
        await self._access.admit(run, Right.SEE, target, act=Act(call))

    async def _read_own(self, process: Process, call: MemoryRead) -> Interactions:
        whose = (process.owner, process.agent)

        def look(connection: apsw.Connection) -> list[int]:
            oldest = last_id(connection, whose) - self._max_records + 1
            return _page(connection, whose, call, oldest=oldest)

        wanted = await self._db.read(look)
        block = self._block(process)
        found = {record: block.find(record) for record in wanted}
        records = [from_msgpack(each, Interaction) for each in found.values() if each]
        faults = [record for record, each in found.items() if each is None]
        process.n_block_faults += len(faults)
        if faults:
            read = await self._db.read(lambda connection: _records(connection, whose, faults))
            self._keep(process, read)
            records = sorted([*records, *read], key=lambda each: each.id)
        return Interactions(tuple(records), len(faults))

    async def _read_of(
        self, run: Run, call: MemoryRead, target: Process
    ) -> tuple[Interaction, ...]:
        """Records of another, as they are on disk."""
        whose, pid = (target.owner, target.agent), _shown_pid(run, target)

        def look(connection: apsw.Connection) -> list[Interaction]:
            return _records(connection, whose, _page(connection, whose, call, pid=pid))

        return tuple(await self._db.read(look))

    def _keep(self, process: Process, records: Sequence[Interaction]) -> None:
        block = self._block(process)
        for each in records:
            block.put(each.id, msgspec.msgpack.encode(each))
        process.block_bytes = block.size_bytes

    def _block(self, process: Process) -> Block:
        block = self._blocks.get(process.pid)
        if block is None:
            block = self._new_block(process)
            if process.is_alive:  # a call of a process that was just killed leaves nothing behind
                self._blocks[process.pid] = block
        return block

    def _count(self, connection: apsw.Connection, whose: Whose, pid: int) -> int:
        """How many records there are, logged by that process or by any."""
        if pid == ANY_PID:  # without a look at each
            return min(last_id(connection, whose), self._max_records)
        query = "SELECT count(*) FROM memory_interactions WHERE owner = ? AND name = ? AND pid = ?"
        return msgspec.convert(connection.execute(query, (*whose, pid)).get, int)

    def _new_block(self, process: Process) -> Block:
        return Block(process.max_block_bytes or self._block_bytes)


def _shown_pid(run: Run, target: Process) -> int:
    """Whose records a process is shown of another: the owner of the kernel those of all that were the same agent."""
    return ANY_PID if run.process.pid == INIT_PID else target.pid


def _page(
    connection: apsw.Connection,
    whose: Whose,
    call: MemoryRead,
    *,
    oldest: int = 1,
    pid: int = ANY_PID,
) -> list[int]:
    """The ids of what a call reads, in order: fewer than its limit once their texts are long enough."""
    query = (
        "SELECT id, octet_length(text) FROM memory_interactions "
        "WHERE owner = ? AND name = ? AND id >= ? AND ? IN (?, pid) ORDER BY id"
    )  # the pid last: it is behind the text, which would be read from disk for it
    if call.first is None:
        query += " DESC"
    first = max(call.first or 1, oldest)
    rows = connection.execute(f"{query} LIMIT ?", (*whose, first, pid, ANY_PID, call.limit))
    ids, size_bytes = list[int](), 0
    for row in rows:
        record, text_bytes = msgspec.convert(row, tuple[int, int])
        ids.append(record)
        size_bytes += text_bytes
        if size_bytes >= PAGE_BYTES:
            break
    return sorted(ids)


def _records(connection: apsw.Connection, whose: Whose, ids: Sequence[int]) -> list[Interaction]:
    """The records of an agent with those ids, in order."""
    rows = connection.execute(
        "SELECT id, unix_s, kind, text, taint FROM memory_interactions "
        "WHERE owner = ? AND name = ? AND id IN (SELECT value FROM json_each(?)) ORDER BY id",
        (*whose, msgspec.json.encode(ids).decode()),
    )
    fields = msgspec.convert(list(rows), list[tuple[int, float, str, str, str]])
    return [Interaction(*each) for each in fields]
