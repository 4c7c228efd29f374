"""Short-term memory: what each agent said, asked and got, on disk, with a bounded block of it in memory.

Records belong to an owner and name, so that an agent that is started again goes on with its own. The block belongs to the process.
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
from aios.config import MemoryConfig
from aios.disk.db import Database
from aios.disk.migrations import Schema
from aios.kernel.clock import Clock
from aios.kernel.memory.blocks import Block
from aios.kernel.process import Process, Run
from aios.kernel.taint import source_of, take

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
    ),
)


Whose = tuple[str, str]
"""Owner and name."""


def branch(
    connection: apsw.Connection, source: Whose, target: Whose, *, unix_s: float | None = None
) -> None:
    """Inside a write: give an agent the records of another, as they are or were at a moment, and no others."""
    erase(connection, target)
    connection.execute(
        "INSERT INTO memory_interactions SELECT ?, ?, id, unix_s, kind, text, taint FROM memory_interactions "
        "WHERE owner = ? AND name = ? AND unix_s <= ?",
        (*target, *source, float("inf") if unix_s is None else unix_s),
    )


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

    def __init__(self, db: Database, clock: Clock, config: MemoryConfig) -> None:
        self._db = db
        self._clock = clock
        self._block_bytes = config.block_bytes
        self._max_records = config.max_interactions
        self._blocks: dict[Pid, Block] = {}

    async def log(self, run: Run, call: MemoryLog) -> Logged:
        """Add a record."""
        process, now = run.process, self._clock.unix_s()
        taint = source_of(process)

        def write(connection: apsw.Connection) -> Logged:
            record = last_id(connection, (process.owner, process.name)) + 1
            key = (process.owner, process.name, record)
            connection.execute(
                "INSERT INTO memory_interactions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*key, now, call.kind, call.text, taint),
            )
            connection.execute(
                "DELETE FROM memory_interactions WHERE owner = ? AND name = ? AND id <= ?",
                (*key[:2], record - self._max_records),
            )
            return run.sealed(connection, Logged(record))

        logged = await self._db.write(write, queueing=run.holding)
        self._keep(process, [Interaction(logged.id, now, call.kind, call.text, taint)])
        return logged

    async def read(self, run: Run, call: MemoryRead) -> Interactions:
        """Read records from one on, those that are not in memory from disk."""
        process = run.process
        last = await self._db.read(
            lambda connection: last_id(connection, (process.owner, process.name))
        )
        first = max(1, last - call.limit + 1) if call.first is None else call.first
        first = max(first, last - self._max_records + 1)
        block = self._block(process)
        wanted = range(first, min(last, first + call.limit - 1) + 1)
        found = {record: block.find(record) for record in wanted}
        records = [
            msgspec.msgpack.decode(each, type=Interaction) for each in found.values() if each
        ]
        faults = [record for record, each in found.items() if each is None]
        process.n_block_faults += len(faults)
        if faults:
            read = await self._db.read(
                lambda connection: _records(connection, process, (faults[0], faults[-1]))
            )
            missing = set(faults)
            read = [each for each in read if each.id in missing]
            self._keep(process, read)
            records = sorted([*records, *read], key=lambda each: each.id)
        for each in records:
            take(run, each.taint, f"record {each.id}")
        return Interactions(tuple(records), len(faults))

    async def stat(self, run: Run, _: MemoryStat) -> BlockStatistics:
        """What is in the caller's block."""
        process, block = run.process, self._block(run.process)
        last = await self._db.read(
            lambda connection: last_id(connection, (process.owner, process.name))
        )
        return BlockStatistics(
            n_records=min(last, self._max_records),
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

    def _keep(self, process: Process, records: Sequence[Interaction]) -> None:
        block = self._block(process)
        for each in records:
            block.put(each.id, msgspec.msgpack.encode(each))
        process.block_bytes = block.size_bytes

    def _block(self, process: Process) -> Block:
        block = self._blocks.get(process.pid)
        if block is None:
            block = Block(process.max_block_bytes or self._block_bytes)
            if process.is_alive:  # a call of a process that was just killed leaves nothing behind
                self._blocks[process.pid] = block
        return block


def _records(
    connection: apsw.Connection, process: Process, ids: tuple[int, int]
) -> list[Interaction]:
    """The records of an agent from the first to the last of two ids."""
    rows = connection.execute(
        "SELECT id, unix_s, kind, text, taint FROM memory_interactions WHERE owner = ? AND name = ? AND id BETWEEN ? AND ?",
        (process.owner, process.name, *ids),
    )
    fields = msgspec.convert(list(rows), list[tuple[int, float, str, str, str]])
    return [Interaction(*each) for each in fields]
