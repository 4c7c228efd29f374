"""The tables of mounts: which there are, what is known of the real files, and which writes are still to be carried out.

`mount_files` has the stamp of each real file whose content is the newest version; what has another stamp was changed outside. `mount_pending` names
the paths whose newest version is committed and may not be in its real file yet: a kernel that was killed finds its work there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import nsmallest
from pathlib import Path

import anyio
import apsw

from aios.disk.folder import Folder, Stamp
from aios.disk.migrations import Schema
from aios.kernel.storage.paths import parent
from aios.kernel.storage.tables import PAST

SCHEMA = Schema(
    "mounts",
    (
        """
        CREATE TABLE mounts (
            path TEXT PRIMARY KEY,
            folder TEXT NOT NULL,
            inode INTEGER NOT NULL,
            is_read_only INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE mount_files (
            path TEXT PRIMARY KEY,
            inode INTEGER NOT NULL,
            size_bytes INTEGER NOT NULL,
            mtime_ns INTEGER NOT NULL,
            ctime_ns INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE mount_names (  -- real names that are not what the path shows
            path TEXT PRIMARY KEY,
            real BLOB NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE mount_pending (path TEXT PRIMARY KEY) WITHOUT ROWID;
        """,
    ),
)

MAX_SKIPPED = 10_000
"""So many of the things that are not shown are remembered, and counted."""


@dataclass
class Mount:
    """A mount of a running kernel. `real` is None while its folder is not there."""

    path: str
    folder: Path
    inode: int
    is_read_only: bool
    real: Folder | None = None
    is_leaving: bool = False
    is_watched: bool = True
    note: str = ""
    n_losses: int = 0
    """How often notices of it were lost."""
    n_made_good: int = 0
    """Of the losses, before the last whole comparison began."""
    settled: anyio.Event = field(default_factory=anyio.Event)
    _skipped: dict[str, dict[str, str]] = field(default_factory=dict)
    """By folder, so that a look at one replaces what was known of it."""
    n_skipped: int = 0

    @property
    def is_current(self) -> bool:
        """Whether what is listed of it is what is in it, but for what was noticed and not yet looked at."""
        return self.has_all_notices and self.settled.is_set()

    @property
    def has_all_notices(self) -> bool:
        """Whether every change in it is noticed, and was since it was last compared as a whole."""
        return self.is_watched and not self.is_behind

    @property
    def is_behind(self) -> bool:
        """Whether notices of it were lost since it was last compared as a whole."""
        return self.n_losses != self.n_made_good

    def skip(self, path: str, why: str) -> None:
        """Something in the folder is not shown."""
        here = self._skipped.setdefault(parent(path), {})
        if path not in here and self.n_skipped < MAX_SKIPPED:
            self.n_skipped += 1
            here[path] = why
        elif path in here:
            here[path] = why

    def unskip(self, path: str) -> None:
        """It is shown, or gone."""
        if self._skipped.get(parent(path), {}).pop(path, None) is not None:
            self.n_skipped -= 1

    def unskip_in(self, folder: str) -> None:
        """A folder is gone, or looked at anew: nothing is known of what is in it."""
        self.n_skipped -= len(self._skipped.pop(folder, ()))

    def why_skipped(self, path: str) -> str:
        """Why a path is not shown; empty if it is, or nothing is there."""
        return self._skipped.get(parent(path), {}).get(path, "")

    def is_closed(self, path: str) -> bool:
        """Whether a path, or a folder that it is in, is not shown."""
        while path != self.path:
            if self.why_skipped(path):
                return True
            path = parent(path)
        return False

    def skipped(self, limit: int) -> list[tuple[str, str]]:
        """The first of what is not shown, and why, in the order of their paths."""
        return nsmallest(limit, (each for here in self._skipped.values() for each in here.items()))


def all_mounts(connection: apsw.Connection) -> list[Mount]:
    """Every mount, its folder not yet opened."""
    rows = connection.execute("SELECT path, folder, inode, is_read_only FROM mounts ORDER BY path")
    return [Mount(path, Path(folder), inode, bool(ro)) for path, folder, inode, ro in rows]


def add_mount(connection: apsw.Connection, mount: Mount) -> None:
    """Inside a write: remember a mount."""
    connection.execute(
        "INSERT INTO mounts VALUES (?, ?, ?, ?)",
        (mount.path, str(mount.folder), mount.inode, mount.is_read_only),
    )


def set_inode(connection: apsw.Connection, mount: Mount) -> None:
    """Inside a write: this is the folder that a mount has now."""
    connection.execute("UPDATE mounts SET inode = ? WHERE path = ?", (mount.inode, mount.path))


def remove_mount(connection: apsw.Connection, path: str) -> None:
    """Inside a write: forget a mount and all that was known of its real files."""
    connection.execute("DELETE FROM mounts WHERE path = ?", (path,))
    for table in ("mount_files", "mount_names", "mount_pending"):
        connection.execute(
            f"DELETE FROM {table} WHERE path > ? AND path < ?",  # noqa: S608 - our own words
            (f"{path}/", f"{path}/{PAST}"),
        )


def find_stamp(connection: apsw.Connection, path: str) -> Stamp | None:
    """The real file whose content is the newest version of a path."""
    row = connection.execute(
        "SELECT inode, size_bytes, mtime_ns, ctime_ns FROM mount_files WHERE path = ?", (path,)
    ).fetchone()
    return None if row is None else Stamp(*row)


def stamps_in(connection: apsw.Connection, folder: str) -> dict[str, Stamp | None]:
    """The files that are listed in a folder, with their stamps; None where the real one is not known."""
    rows = connection.execute(
        "SELECT f.path, m.inode, m.size_bytes, m.mtime_ns, m.ctime_ns FROM files f "
        "LEFT JOIN mount_files m ON m.path = f.path WHERE f.folder = ?",
        (folder,),
    )
    return {row[0]: None if row[1] is None else Stamp(*row[1:]) for row in rows}


def set_stamp(connection: apsw.Connection, path: str, stamp: Stamp | None) -> None:
    """Inside a write: the real file of a path holds its newest version; None: it is gone or not known."""
    if stamp is None:
        connection.execute("DELETE FROM mount_files WHERE path = ?", (path,))
        return
    connection.execute(
        "INSERT OR REPLACE INTO mount_files VALUES (?, ?, ?, ?, ?)",
        (path, stamp.inode, stamp.size_bytes, stamp.mtime_ns, stamp.ctime_ns),
    )


def names_in(connection: apsw.Connection, folder: str) -> dict[str, bytes]:
    """The real names in a folder that are not what their paths show."""
    prefix = f"{folder}/"
    rows = connection.execute(
        "SELECT path, real FROM mount_names WHERE path > ? AND path < ? AND instr(substr(path, ?), '/') = 0",
        (prefix, f"{prefix}{PAST}", len(prefix) + 1),
    )
    return {path: bytes(real) for path, real in rows}


def set_name(connection: apsw.Connection, path: str, real: bytes | None) -> None:
    """Inside a write: the real name of a path; None: the one that it shows."""
    connection.execute("DELETE FROM mount_names WHERE path = ?", (path,))
    if real is not None:
        connection.execute("INSERT INTO mount_names VALUES (?, ?)", (path, real))


def real_parts(connection: apsw.Connection, mount: Mount, path: str) -> tuple[bytes, ...]:
    """The real names on the way from a mount's folder to a path."""
    parts: list[bytes] = []
    here = mount.path
    for name in path[len(mount.path) + 1 :].split("/") if path != mount.path else ():
        here = f"{here}/{name}"
        row = connection.execute("SELECT real FROM mount_names WHERE path = ?", (here,)).fetchone()
        parts.append(bytes(row[0]) if row else name.encode())
    return tuple(parts)


def set_pending(connection: apsw.Connection, paths: Iterable[str], *, is_pending: bool) -> None:
    """Inside a write: the real files of these paths are still to be written; or have been."""
    sql = "INSERT OR IGNORE INTO mount_pending VALUES (?)"
    if not is_pending:
        sql = "DELETE FROM mount_pending WHERE path = ?"
    connection.executemany(sql, ((path,) for path in paths))


def all_pending(connection: apsw.Connection, mount: Mount) -> list[str]:
    """The paths of a mount that a killed kernel left to be written."""
    rows = connection.execute(
        "SELECT path FROM mount_pending WHERE path > ? AND path < ? ORDER BY path",
        (f"{mount.path}/", f"{mount.path}/{PAST}"),
    )
    return [path for (path,) in rows]


def set_done(
    connection: apsw.Connection, paths: Iterable[str], done: Mapping[str, Stamp | None]
) -> None:
    """Inside a write: nothing is pending at these paths, and these are the stamps of the real files."""
    for path, stamp in done.items():
        set_stamp(connection, path, stamp)
    set_pending(connection, paths, is_pending=False)
