"""The process table on disk: what a kernel must know of a process to take it up where the last one left it.

A row is written in the order of the journal's records, so that it is never ahead of them or behind. Tokens are there as
hashes. The environment of a program is in its row only as long as it may be started again, sealed, and nowhere else: one with the policy `never`
has none there.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import apsw
import msgspec
from msgspec import Struct

from aios.abi.access import Principal
from aios.abi.budget import BudgetInfo
from aios.abi.recovery import Restart
from aios.abi.taint import Taint
from aios.abi.types import Exit, Kind, Pid, Right, Usage
from aios.disk.migrations import Schema
from aios.kernel.journal.disk import Extra, JournalDisk
from aios.kernel.logfiles import LogFiles
from aios.kernel.logs import LogBuffer
from aios.kernel.process import Confines, Process
from aios.kernel.sandbox.view import View
from aios.readers import from_msgpack

T = TypeVar("T")

SCHEMA = Schema(
    "residents",
    (
        "CREATE TABLE residents (pid INTEGER PRIMARY KEY, is_alive INTEGER NOT NULL, row BLOB NOT NULL)",
    ),
)


class Launched(Struct, frozen=True):
    """How a program was started."""

    program: str
    args: tuple[str, ...]
    view: View
    env: dict[str, str]
    """Sealed: it may hold secrets."""
    code_hash: bytes
    """Of its files when this life began."""
    restart: Restart
    first_seq: int = 1
    """The first record of this life; those before it are not replayed."""
    instruction: str = ""
    """What each chat of a fork ends with."""
    os_pid: int = 0
    os_start: int = 0
    """When the operating system's process began, in ticks since the boot: a pid alone may be somebody else's by now."""
    n_crashes: int = 0
    """In a row, under this kernel and those before."""


class Resident(Struct, frozen=True):
    """A row of the table."""

    pid: Pid
    ppid: Pid
    name: str
    kind: Kind
    owner: str
    rights: tuple[Right, ...]
    """In order: the same process is the same row."""
    lineage: tuple[str, ...]
    program: str
    nice: int
    is_stopped: bool
    is_waited_for: bool
    started_unix_s: float
    ended_unix_s: float | None
    exit: Exit | None
    usage: Usage
    token: bytes = b""
    guest_name: str = ""
    fetch_lists: tuple[tuple[str, ...], ...] = ()
    network: tuple[tuple[str, ...], ...] | None = None
    bounds: tuple[Principal, ...] = ()
    launched: Launched | None = None
    budget: BudgetInfo | None = None
    max_block_bytes: int | None = None
    payer: Pid | None = None
    confines: Confines | None = None
    taint: Taint | None = None
    is_terminated: bool = False
    came_from: str = ""
    """Its family; empty in rows of versions that knew none."""

    @property
    def family(self) -> str:
        """As that of the process."""
        return self.came_from or next(iter(self.lineage), "")

    def process(self, log: LogBuffer) -> Process:
        """The process, as far as it outlives a kernel."""
        process = Process(
            pid=self.pid,
            ppid=self.ppid,
            name=self.name,
            kind=self.kind,
            owner=self.owner,
            rights=frozenset(self.rights),
            log=log,
            program=self.program,
            lineage=self.lineage,
            family=self.family,
            nice=self.nice,
            started_unix_s=self.started_unix_s,
            ended_unix_s=self.ended_unix_s,
            is_stopped=self.is_stopped and self.exit is None,
            exit=self.exit,
            exiting=self.exit,
            is_waited_for=self.is_waited_for,
            usage=self.usage,
            view=self.launched.view if self.launched is not None else None,
            fetch_lists=self.fetch_lists,
            network=self.network,
            bounds=self.bounds,
            max_block_bytes=self.max_block_bytes,
            payer=self.payer,
            confines=self.confines,
            taint=self.taint,
            is_terminated=self.is_terminated,
        )
        if self.exit is not None:
            process.log.close()
        return process


def resident_of(
    process: Process,
    *,
    token: bytes,
    guest_name: str,
    launched: Launched | None,
    budget: BudgetInfo,
) -> Resident:
    """The row of a process as it is now."""
    return Resident(
        pid=process.pid,
        ppid=process.ppid,
        name=process.name,
        kind=process.kind,
        owner=process.owner,
        rights=tuple(sorted(process.rights, key=lambda right: right.value)),
        lineage=process.lineage,
        program=process.program,
        nice=process.nice,
        is_stopped=process.is_stopped and not process.is_held,
        is_waited_for=process.is_waited_for,
        started_unix_s=process.started_unix_s,
        ended_unix_s=process.ended_unix_s,
        exit=process.exit,
        usage=process.usage,
        max_block_bytes=process.max_block_bytes,
        payer=process.payer,
        confines=process.confines,
        token=token,
        guest_name=guest_name,
        fetch_lists=process.fetch_lists,
        network=process.network,
        launched=_kept(process, launched),
        bounds=process.bounds,
        taint=process.taint,
        is_terminated=process.is_terminated,
        came_from=process.family,
        budget=budget,
    )


def _kept(process: Process, launched: Launched | None) -> Launched | None:
    """What is kept of how a program was started: its environment, which may hold secrets, only if it is needed again."""
    if launched is None or (process.exit is None and launched.restart.policy != "never"):
        return launched
    return msgspec.structs.replace(launched, env={})


Describe = Callable[[Process], Resident]


class Residents:
    """The rows.

    Args:
        disk: The way of journal records to disk.
        describe: The row of a process as it is now.
        logs: Their logs, which go with them.
    """

    def __init__(self, disk: JournalDisk, describe: Describe, logs: LogFiles) -> None:
        self._disk = disk
        self._logs = logs
        self._describe = describe

    def note(self, process: Process, also: Extra = lambda _: None) -> None:
        """A process has changed: write its row as it is now, soon, and with it what `also` writes."""
        row = self._describe(process)

        def write(connection: apsw.Connection) -> None:
            save(connection, row)
            also(connection)

        self._disk.add(write)

    async def put(self, processes: Sequence[Process], also: Callable[[apsw.Connection], T]) -> T:
        """Return when the rows of processes are on disk, and what `also` writes with them. Returns: what that returned."""
        rows = [self._describe(process) for process in processes]

        def write(connection: apsw.Connection) -> T:
            for row in rows:
                save(connection, row)
            return also(connection)

        return await self._disk.write(write)

    def row_of(self, process: Process) -> Resident:
        """The row of a process as it is now."""
        return self._describe(process)

    def forget(self, pid: Pid) -> None:
        """The process is no longer remembered."""
        self._logs.forget(pid)
        self._disk.add(lambda c: c.execute("DELETE FROM residents WHERE pid = ?", (pid,)))

    async def load(self) -> list[Resident]:
        """All rows by pid. Logs of processes that have none go."""
        rows = await self._disk.read(read_residents)
        self._logs.sweep(row.pid for row in rows)
        return rows


def plain_path(value: object) -> str:
    """A path of a view, as it is stored."""
    assert isinstance(value, Path), f"{value!r} cannot be stored"
    return str(value)


def read_path(kind: type, value: object) -> Path:
    """A path of a view, as it was stored."""
    assert kind is Path, f"{kind} cannot be read"
    return Path(str(value))


def save(connection: apsw.Connection, row: Resident) -> None:
    """Write a row in the place of the one that the process had."""
    connection.execute(
        "INSERT INTO residents VALUES (?, ?, ?) "
        "ON CONFLICT (pid) DO UPDATE SET is_alive = excluded.is_alive, row = excluded.row",
        (row.pid, row.exit is None, msgspec.msgpack.encode(row, enc_hook=plain_path)),
    )


def read_residents(connection: apsw.Connection) -> list[Resident]:
    """All rows by pid."""
    rows = connection.execute("SELECT row FROM residents ORDER BY pid")
    return [from_msgpack(row[0], Resident, hook=read_path) for row in rows]
