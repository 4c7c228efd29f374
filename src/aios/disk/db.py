"""The database of a kernel: `AIOS_HOME/aios.db`, one writer with group commit, readers that never wait.

    value = await db.write(lambda connection: connection.execute("INSERT ...").fetchall())   # on disk when it returns
    rows = await db.read(lambda connection: connection.execute("SELECT ...").fetchall())     # in a worker thread
    row = db.read_nowait(lambda connection: connection.execute("SELECT ...").fetchone())     # here, for look-ups by key

Who waits for a write commits for others, too: see `writequeue.py`.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import apsw
from msgspec import Struct

from aios.disk.commit import Closing, Job, commit, fail_all
from aios.disk.connection import Prepare, connect, find_translation, translated
from aios.disk.lock import FileLock
from aios.disk.migrations import Schema, migrate
from aios.disk.writequeue import Place, Queueing, WriteQueue
from aios.errors import DiskFailed

T = TypeVar("T")

MAX_READERS = 4
"""Reads in threads at once; more only wait for the interpreter lock."""


class DatabaseStatistics(Struct, frozen=True):
    """Counters since the database was opened; `n_writes / n_commits` is the size of the groups."""

    n_writes: int
    n_commits: int
    n_reads: int
    size_bytes: int


class Database:
    """The tables of one `AIOS_HOME`. The file is opened at the first use; nobody else can open it then.

    Args:
        path: The file; its folder is made.
        schemas: The areas, brought up to date when the file is opened.
        prepare: Run on every new connection.
        vfs: The name of an APSW VFS, for tests that let the disk fail.
    """

    def __init__(
        self,
        path: Path,
        schemas: Sequence[Schema],
        *,
        prepare: tuple[Prepare, ...] = (),
        vfs: str | None = None,
    ) -> None:
        self.path = path
        self._schemas = tuple(schemas)
        self._prepare = prepare
        self._vfs = vfs
        self._lock: FileLock | None = None
        self._writer: apsw.Connection | None = None
        self._nowait: apsw.Connection | None = None
        self._idle_readers: list[apsw.Connection] = []
        self._turn = anyio.Lock()
        self._write_thread = anyio.CapacityLimiter(1)
        self._read_threads = anyio.CapacityLimiter(MAX_READERS)
        self._queue = WriteQueue(self._turn, self._commit)
        self._is_committing = self._is_closed = False
        self._n_writes = self._n_commits = self._n_reads = 0

    @property
    def is_open(self) -> bool:
        """Whether `read_nowait` may be used."""
        return self._nowait is not None

    async def open(self) -> None:
        """Open the file and bring its tables up to date; once open this is nothing. Cost: 30 ms for a new file.

        Raises:
            Conflict: Another kernel has it open, or a newer AIOS wrote it.
            DiskFailed: It is damaged or cannot be written to, or was closed.
        """
        if self.is_open:
            return
        async with self._turn:
            if self._is_closed:
                raise DiskFailed(f"{self.path} was closed", hint="the kernel is ending")
            if not self.is_open:
                await anyio.to_thread.run_sync(self._open, limiter=self._write_thread)

    async def write(
        self,
        write: Callable[[apsw.Connection], T],
        publish: Callable[[T], None] | None = None,
        *,
        queueing: Queueing = lambda _: nullcontext(),
        closing: Closing | None = None,
        is_urgent: bool = False,
    ) -> T:
        """Run `write` in the writer's thread; when this returns, what it changed is on disk.

        `write` must not commit. It is undone if it raises. A call that is cancelled before its turn has done nothing;
        after that it returns, if it could be done. `publish` gets what `write` returned, in the same thread, in the order of the
        writes, and only once they are on disk, also when the caller was cancelled meanwhile; it must not raise.
        `queueing` is entered for the wait, and may hold the write back as long as nobody writes it. `closing` is done
        once for all writes of a commit that name it, after them. `is_urgent`: before other writes that wait.

        Raises:
            ResourceExhausted: The disk is full.
            DiskFailed: As `aios.disk.connection.translated` says.
        """
        await self.open()
        place = Place(self._queue, write, publish, closing)
        self._queue.add(place, is_urgent=is_urgent)
        try:
            with queueing(place.hold):
                await self._queue.wait_done(place)
        except anyio.get_cancelled_exc_class():
            await self._queue.leave(place)
            if not place.is_written:
                raise
        except BaseException:
            await self._queue.leave(place)
            raise
        with translated(self.path):
            return place.result()

    def write_soon(
        self,
        write: Callable[[apsw.Connection], None],
        *,
        publish: Callable[[None], None] | None = None,
        on_failure: Callable[[], None],
        is_needed: bool,
    ) -> None:
        """Queue a write for the commit of whoever writes next, before theirs. If it fails, it is first in the next group.

        Args:
            write: As for `write`; it may be run often.
            publish: Told in the writer's thread that it is on disk.
            on_failure: Told in the writer's thread that it was undone, perhaps twice.
            is_needed: Nothing that is written later is ever there without it: what stands behind it fails with it.
        """
        job = Job(write, publish, on_failure=on_failure, is_owed=True, is_needed=is_needed)
        self._queue.add(job)

    async def read(self, read: Callable[[apsw.Connection], T]) -> T:
        """Run `read` on a snapshot of the last commit, in a worker thread.

        Raises:
            DiskFailed: As `aios.disk.connection.translated` says.
        """
        await self.open()
        return await anyio.to_thread.run_sync(self._read, read, limiter=self._read_threads)

    def read_nowait(self, read: Callable[[apsw.Connection], T]) -> T:
        """Run `read` here, on the event loop: for look-ups by key, which take 2 to 20 us. The database must be open.

        Raises:
            DiskFailed: As `aios.disk.connection.translated` says, or it was closed.
        """
        connection = self._nowait
        if connection is None:
            assert self._is_closed, "read_nowait before open"
            raise DiskFailed(f"{self.path} was closed", hint="the kernel is ending")
        self._n_reads += 1
        try:
            # Nobody else writes, so until the next commit one snapshot is the newest: a transaction of its own costs each
            # statement four locks of the file, which is half of what it takes.
            if not (self._is_committing or connection.in_transaction):
                connection.execute("BEGIN")
            return read(connection)
        except apsw.Error as error:
            self._end_snapshot()
            ours = find_translation(error, self.path)
            if ours is None:
                raise
            raise ours from error

    async def reset(self) -> None:
        """Delete the file and begin with an empty one: for what can be made again from elsewhere.

        Raises:
            DiskFailed: It was closed, or the file cannot be deleted.
        """
        async with self._turn:
            if self._is_closed:
                raise DiskFailed(f"{self.path} was closed", hint="the kernel is ending")
            await anyio.to_thread.run_sync(self._reset, limiter=self._write_thread)

    async def aclose(self) -> None:
        """Finish what is being written, fold the log into the file and let go of it; twice is nothing."""
        with anyio.CancelScope(shield=True):
            async with self._turn:
                self._is_closed = True
                await anyio.to_thread.run_sync(self._close, limiter=self._write_thread)

    async def _commit(self, group: Sequence[Job[object]]) -> list[Job[object]]:
        self._is_committing = True
        self._end_snapshot()  # it would be old, and keep the log from being folded into the file
        return await anyio.to_thread.run_sync(self._commit_now, group, limiter=self._write_thread)

    def _end_snapshot(self) -> None:
        """Let go of what `read_nowait` holds on to."""
        if self._nowait is not None and self._nowait.in_transaction:
            with suppress(apsw.Error):
                self._nowait.execute("ROLLBACK")

    def statistics(self) -> DatabaseStatistics:
        """What was written and read so far."""
        size_bytes = self.path.stat().st_size if self.is_open else 0
        return DatabaseStatistics(self._n_writes, self._n_commits, self._n_reads, size_bytes)

    # --- in threads ----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        with suppress(OSError):  # the lock says what is wrong with the folder
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock.acquire(self.path.with_name(f"{self.path.name}.lock"))
        try:
            self._writer = self._connect(is_writer=True)
            with translated(self.path):
                migrate(self._writer, self._schemas)
            self._nowait = self._connect(is_writer=False)
        except BaseException:
            self._close()
            lock.release()
            raise
        self._lock = lock

    def _reset(self) -> None:
        self._close()
        try:
            for suffix in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise DiskFailed(
                f"{self.path} cannot be deleted: {error}", hint="set AIOS_HOME to a folder of yours"
            ) from error
        self._open()

    def _commit_now(self, group: Sequence[Job[object]]) -> list[Job[object]]:
        try:
            if self._writer is None:
                error = DiskFailed(f"{self.path} was closed", hint="the kernel is ending")
                return fail_all(group, error)
            again = commit(self._writer, group)
            self._n_writes += sum(job.is_done for job in group)
            self._n_commits += 1
            return again
        finally:
            self._is_committing = False

    def _read(self, read: Callable[[apsw.Connection], T]) -> T:
        connection = self._idle_readers.pop() if self._idle_readers else None
        connection = connection or self._connect(is_writer=False)
        self._n_reads += 1
        try:
            with translated(self.path):
                connection.execute("BEGIN")  # one snapshot for all that it reads
                try:
                    return read(connection)
                finally:
                    connection.execute("ROLLBACK")
        finally:
            if self._is_closed:
                connection.close()
            else:
                self._idle_readers.append(connection)

    def _connect(self, *, is_writer: bool) -> apsw.Connection:
        return connect(self.path, is_writer=is_writer, prepare=self._prepare, vfs=self._vfs)

    def _close(self) -> None:
        connections = [*self._idle_readers, self._nowait, self._writer]
        self._idle_readers, self._nowait, self._writer = [], None, None
        for connection in connections:
            if connection is not None:
                # What fails here leaves the log beside the file; the next to open it folds it in.
                with suppress(apsw.Error):
                    connection.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None
