"""Connections to the SQLite file, and what its errors mean to us.

Every connection is in WAL mode: readers see the last commit and never wait for the writer. `synchronous=FULL` syncs the
log at every commit, so what was acknowledged survives a loss of power.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from aios.errors import AiosError, DiskFailed, ResourceExhausted

BUSY_TIMEOUT_MS = 5_000
"""Only `aios fsck` and backups ever hold the file beside us, and not for long."""
PAGE_CACHE_KIB, READER_CACHE_KIB = 4_096, 16_384
"""At most, taken as needed. A search over 100,000 notes touches 10 MB of pages that are worth keeping."""
CHECKPOINT_PAGES = 4_000
"""16 MB of log before it is folded into the file."""

Prepare = Callable[[apsw.Connection], None]
"""What an area does to each new connection: load an extension, register a function."""


def connect(
    path: Path, *, is_writer: bool, prepare: tuple[Prepare, ...] = (), vfs: str | None = None
) -> apsw.Connection:
    """A new connection; a reader's cannot change anything.

    Raises:
        AiosError: As `translated` says.
    """
    with translated(path):
        if is_writer and not path.exists():
            path.touch(mode=0o600)  # the log beside it gets the same mode
        flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if is_writer else 0)
        connection = apsw.Connection(str(path), flags=flags, vfs=vfs)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        if is_writer:
            connection.pragma("journal_mode", "wal")
            connection.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            # A checkpoint leaves the log at its size; a burst must not keep that much disk for ever.
            connection.pragma("journal_size_limit", 64 << 20)
        connection.pragma("synchronous", "FULL")
        connection.pragma("foreign_keys", "ON")
        connection.pragma("cache_size", -(PAGE_CACHE_KIB if is_writer else READER_CACHE_KIB))
        for each in prepare:
            each(connection)
        if not is_writer:
            connection.pragma("query_only", "ON")
        return connection


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn errors of SQLite inside the block into ours; other errors pass.

    Raises:
        ResourceExhausted: The disk is full.
        DiskFailed: It is damaged, not writable, held by another program, or cannot be read.
    """
    try:
        yield
    except apsw.Error as error:
        ours = find_translation(error, path)
        if ours is None:
            raise
        raise ours from error


def find_translation(error: apsw.Error, path: Path) -> AiosError | None:
    """Our error for one of SQLite's; None for a wrong statement or a broken constraint, which are bugs."""
    what = f"{path}: {error}"
    match error:
        case apsw.FullError():
            return ResourceExhausted(
                f"the disk is full: {what}", hint="free space, or `aios fs gc`", retry_after_s=60
            )
        case apsw.CorruptError() | apsw.NotADBError():
            return DiskFailed(
                f"the database is damaged: {what}",
                hint="`aios fsck` says how far; restore a backup",
            )
        case apsw.BusyError() | apsw.LockedError():
            return DiskFailed(
                f"another program holds the database: {what}", hint="end it and try again"
            )
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError():
            return DiskFailed(
                f"the database cannot be written to: {what}",
                hint="set AIOS_HOME to a folder of yours",
            )
        case apsw.IOError():
            return DiskFailed(f"the disk failed: {what}", hint="look at the system's log")
        case _:
            return None
