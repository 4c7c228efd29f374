"""The tables of the storage manager, and the questions that are asked of them.

`versions` is the truth: one row a change, in their order. `files` is its newest state by path, for look-ups; `contents` are what
versions hold; `usage` is what each root has.
"""

from collections.abc import Iterator
from itertools import islice

import apsw
from msgspec import Struct

from aios.abi.storage import FileInfo, FileVersion, Share, SpaceUsed
from aios.abi.types import Pid
from aios.disk.migrations import Schema
from aios.errors import NotFound, ResourceExhausted
from aios.kernel.storage.authors import author_shown
from aios.kernel.storage.content import ContentId
from aios.kernel.storage.paths import root_of

SCHEMA = Schema(
    "storage",
    (
        """
        CREATE TABLE contents (
            id INTEGER PRIMARY KEY,
            chunks BLOB NOT NULL UNIQUE,
            size_bytes INTEGER NOT NULL,
            n_refs INTEGER NOT NULL,
            stored_bytes INTEGER NOT NULL,
            root TEXT NOT NULL
        );
        CREATE TABLE versions (
            change INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: watchers count on it
            path TEXT NOT NULL,
            version INTEGER NOT NULL,
            content INTEGER REFERENCES contents (id),  -- NULL: deleted
            size_bytes INTEGER,
            tx INTEGER NOT NULL,
            boot INTEGER NOT NULL,
            pid INTEGER NOT NULL,
            author TEXT NOT NULL,
            unix_s REAL NOT NULL,
            message TEXT NOT NULL,
            UNIQUE (path, version)
        );
        CREATE INDEX versions_of_a_transaction ON versions (tx);
        CREATE INDEX versions_of_a_process ON versions (boot, pid);
        CREATE INDEX versions_of_a_content ON versions (content);
        CREATE TABLE files (
            path TEXT PRIMARY KEY,
            folder TEXT NOT NULL,
            version INTEGER NOT NULL,
            content INTEGER NOT NULL,
            size_bytes INTEGER NOT NULL,
            changed_unix_s REAL NOT NULL
        ) WITHOUT ROWID;
        CREATE INDEX files_of_a_folder ON files (folder, path);
        CREATE TABLE usage (
            root TEXT PRIMARY KEY,
            n_files INTEGER NOT NULL DEFAULT 0,
            size_bytes INTEGER NOT NULL DEFAULT 0,
            stored_bytes INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID;
        CREATE TABLE shares (
            path TEXT NOT NULL,
            grantee TEXT NOT NULL,
            access TEXT NOT NULL,
            PRIMARY KEY (path, grantee)
        ) WITHOUT ROWID;
        """,
        "CREATE TABLE quotas (root TEXT PRIMARY KEY, quota_bytes INTEGER NOT NULL) WITHOUT ROWID",
        "ALTER TABLE versions ADD COLUMN taint TEXT NOT NULL DEFAULT ''",  # where data in it came from outside
        "CREATE INDEX versions_with_taint ON versions (path) WHERE taint != ''",
        "ALTER TABLE shares ADD COLUMN taint TEXT NOT NULL DEFAULT ''",  # of who chose the path
    ),
)

VERSION_COLUMNS = "path, version, change, tx, pid, author, unix_s, message, size_bytes, taint"
PAST = "\U0010ffff"
"""Sorts behind every character of a path."""

MAX_SHARES = 1_000
"""Of paths in one agent's folder and below, as in any other root: every process is judged by all shares."""


class FileRow(Struct, frozen=True):
    """A file as it is now."""

    path: str
    version: int
    content: ContentId
    size_bytes: int
    changed_unix_s: float

    def info(self) -> FileInfo:
        """What the caller sees of it."""
        return FileInfo(self.path, self.size_bytes, self.version, self.changed_unix_s)


def find_file(connection: apsw.Connection, path: str) -> FileRow | None:
    """The file at a path, if there is one."""
    row = connection.execute(
        "SELECT path, version, content, size_bytes, changed_unix_s FROM files WHERE path = ?",
        (path,),
    ).fetchone()
    return None if row is None else FileRow(*row)


def get_file(connection: apsw.Connection, path: str) -> FileRow:
    """The file at a path.

    Raises:
        NotFound: There is none.
    """
    found = find_file(connection, path)
    if found is None and is_folder(connection, path):
        raise NotFound(f"{path} is a folder", hint="`file_list` shows the files in it")
    if found is None:
        raise no_file(path)
    return found


def get_info(connection: apsw.Connection, path: str) -> FileInfo:
    """What is at a path, a file or a folder, also one of the first that is empty.

    Raises:
        NotFound: Nothing is.
    """
    found = find_file(connection, path)
    if found is not None:
        return found.info()
    if path.count("/") == 1 or is_folder(connection, path):
        return FileInfo(path, is_folder=True)
    raise no_file(path)


class Held(Struct, frozen=True):
    """What a version of a file holds; `chunks` is its packed manifest."""

    version: int
    chunks: bytes
    taint: str


def get_held(connection: apsw.Connection, path: str, version: int | None) -> Held:
    """What a file holds now, or in a version. Cost: one statement, for reads are the most frequent of calls.

    Raises:
        NotFound: There is no such file or version, or it is a deletion.
    """
    # Subqueries: SQLite takes three times as long for the same look-ups as a join.
    if version is None:
        found = connection.execute(
            "SELECT f.version, (SELECT chunks FROM contents WHERE id = f.content), "
            "(SELECT taint FROM versions v WHERE v.path = f.path AND v.version = f.version) FROM files f WHERE f.path = ?",
            (path,),
        )
    else:
        found = connection.execute(
            "SELECT version, (SELECT chunks FROM contents WHERE id = v.content), taint FROM versions v "
            "WHERE path = ? AND version = ? AND content IS NOT NULL",
            (path, version),
        )
    row = found.fetchone()
    if row is not None:
        return Held(*row)
    if version is None:
        get_file(connection, path)
    else:
        get_content_of(connection, path, version)
    raise no_file(path)


def check_versions(connection: apsw.Connection, path: str) -> None:
    """Return if a path, or something below it, has a version.

    Raises:
        NotFound: Nothing was ever there, or all of it was purged.
    """
    if not has_versions(connection, path):
        raise no_file(path)


def has_versions(connection: apsw.Connection, path: str) -> bool:
    """Whether a path, or something below it, has a version."""
    found = connection.execute(
        "SELECT 1 FROM versions WHERE path = ? OR (path > ? AND path < ?) LIMIT 1",
        (path, f"{path}/", f"{path}/{PAST}"),
    )
    return found.fetchone() is not None


def no_file(path: str) -> NotFound:
    """The error for a file that is not there."""
    return NotFound(
        f"no file {path}", hint="`file_list` shows what is there; a deleted one has `file_versions`"
    )


def files_below(connection: apsw.Connection, path: str, *, limit: int = -1) -> list[FileRow]:
    """The file at a path, or every file below that folder, in the order of their paths; at most `limit` of them."""
    columns = "SELECT path, version, content, size_bytes, changed_unix_s FROM files"
    # Two questions: SQLite answers one with OR by sorting all that is below, whatever the limit.
    rows = connection.execute(
        f"{columns} WHERE path = ? UNION ALL {columns} WHERE path > ? AND path < ? ORDER BY path LIMIT ?",
        (path, f"{path}/", f"{path}/{PAST}", limit),
    )
    return [FileRow(*row) for row in rows]


def tainted_between(
    connection: apsw.Connection, first: str, last: str
) -> Iterator[tuple[str, str]]:
    """The files as they are now with data from outside from the path `first` up to all that is below `last`, each with its source."""
    rows = connection.execute(
        "SELECT v.path, v.taint FROM versions v JOIN files f ON f.path = v.path AND f.version = v.version "
        "WHERE v.taint != '' AND v.path >= ? AND v.path < ?",
        (first, f"{last}/{PAST}"),
    )
    return ((str(path), str(source)) for path, source in rows)


def is_folder(connection: apsw.Connection, path: str) -> bool:
    """Whether a file is below a path."""
    prefix = "/" if path == "/" else f"{path}/"
    row = connection.execute(
        "SELECT 1 FROM files WHERE path > ? AND path < ? LIMIT 1", (prefix, f"{prefix}{PAST}")
    ).fetchone()
    return row is not None


def list_deep(connection: apsw.Connection, folder: str, after: str, limit: int) -> list[FileInfo]:
    """The files below a folder that come behind `after`."""
    prefix = "/" if folder == "/" else f"{folder}/"
    rows = connection.execute(
        "SELECT path, size_bytes, version, changed_unix_s FROM files WHERE path > ? AND path < ? "
        "ORDER BY path LIMIT ?",
        (max(prefix, after), f"{prefix}{PAST}", limit),
    )
    return [FileInfo(*row) for row in rows]


def list_folder(connection: apsw.Connection, folder: str, after: str, limit: int) -> list[FileInfo]:
    """The files and folders in a folder that come behind `after`, in the order of their paths, a folder's with a `/` at its end. Cost: a look-up a folder, 2 us a file."""
    behind = f"{after}/" if after and is_folder(connection, after) else after
    rows = connection.execute(
        "SELECT path, size_bytes, version, changed_unix_s FROM files WHERE folder = ? AND path > ? "
        "ORDER BY path LIMIT ?",
        (folder, behind, limit),
    )
    files = [FileInfo(*row) for row in rows]
    folders = [
        FileInfo(path, is_folder=True)
        for path in islice(folders_in(connection, folder, behind), limit)
    ]
    return sorted(files + folders, key=lambda info: info.path + "/" * info.is_folder)[:limit]


def folders_in(connection: apsw.Connection, folder: str, after: str = "") -> Iterator[str]:
    """The folders in a folder, found by jumping over what is in each; those behind `after`, which ends with a `/` if it is one of them."""
    prefix = "/" if folder == "/" else f"{folder}/"
    position = max(prefix, f"{after}{PAST}" if after.endswith("/") else after)
    while True:
        found = connection.execute(
            "SELECT path FROM files WHERE path > ? AND path < ? AND folder != ? ORDER BY path LIMIT 1",
            (position, f"{prefix}{PAST}", folder),
        ).fetchone()
        if found is None:
            return
        name = str(found[0])[len(prefix) :].partition("/")[0]
        yield f"{prefix}{name}"
        position = f"{prefix}{name}/{PAST}"


def versions_of(connection: apsw.Connection, path: str, limit: int) -> list[FileVersion]:
    """The newest versions of a path, newest first."""
    return _versions(connection, "WHERE path = ? ORDER BY version DESC LIMIT ?", (path, limit))


def get_versions(connection: apsw.Connection, path: str, limit: int) -> list[FileVersion]:
    """As `versions_of`.

    Raises:
        NotFound: The path has none, or is a folder.
    """
    found = versions_of(connection, path, limit)
    if not found:
        get_file(connection, path)
    return found


def changes_since(
    connection: apsw.Connection, path: str, since: int, limit: int
) -> tuple[list[FileVersion], int, bool]:
    """Look at the next `limit` changes after the change `since`, whatever they are of.

    Returns: those of a path and of all below it; the last that was looked at; whether there may be more. Cost: up to 3 us a change.
    """
    ids = "SELECT change FROM versions WHERE change > ? ORDER BY change LIMIT ?"
    end, n_seen = connection.execute(
        f"SELECT ifnull(max(change), ?), count(*) FROM ({ids})",  # noqa: S608 - our own words
        (since, since, limit),
    ).get
    prefix = "/" if path == "/" else f"{path}/"
    # The plus keeps SQLite from looking through all that ever was below the path.
    where = "WHERE change > ? AND change <= ? AND (+path = ? OR (+path > ? AND +path < ?)) ORDER BY change"
    found = _versions(connection, where, (since, end, path, prefix, f"{prefix}{PAST}"))
    return found, end, n_seen == limit


def versions_since(connection: apsw.Connection, first: int) -> list[FileVersion]:
    """Every change from that number on."""
    return _versions(connection, "WHERE change >= ? ORDER BY change", (first,))


def _versions(
    connection: apsw.Connection, where: str, values: tuple[str | int, ...]
) -> list[FileVersion]:
    rows = connection.execute(f"SELECT {VERSION_COLUMNS} FROM versions {where}", values)  # noqa: S608 - our own words
    return [
        FileVersion(
            path=row[0],
            version=row[1],
            change=row[2],
            transaction=row[3],
            pid=Pid(row[4]),
            author=author_shown(row[5]),
            unix_s=row[6],
            message=row[7],
            size_bytes=row[8],
            taint=row[9],
        )
        for row in rows
    ]


def get_content_of(connection: apsw.Connection, path: str, version: int) -> ContentId:
    """What a version of a file held.

    Raises:
        NotFound: There is no such version, or it is a deletion.
    """
    row = connection.execute(
        "SELECT content FROM versions WHERE path = ? AND version = ?", (path, version)
    ).fetchone()
    if row is None:
        raise NotFound(f"{path} has no version {version}", hint="`file_versions` lists them")
    if row[0] is None:
        raise NotFound(f"{path} was deleted by version {version}", hint="read an earlier version")
    return int(str(row[0]))


def taint_of(connection: apsw.Connection, path: str, version: int | None = None) -> str:
    """Where data in a version of a file came from outside, empty if none did; None stands for all versions of it. Cost: 3 us."""
    found: str | None = connection.execute(
        "SELECT taint FROM versions WHERE path = ?1 AND (?2 IS NULL OR version = ?2) AND taint != '' LIMIT 1",
        (path, version),
    ).get
    return found or ""


def last_change(connection: apsw.Connection) -> int:
    """The number of the newest change, 0 before the first."""
    return int(
        connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'versions'").get or 0
    )


def last_change_by(connection: apsw.Connection, unix_s: float) -> int:
    """The number of the newest change at that time. Cost: looks at each before it."""
    query = "SELECT change - 1 FROM versions WHERE unix_s > ? ORDER BY change LIMIT 1"
    found = connection.execute(query, (unix_s,)).get
    return last_change(connection) if found is None else int(found)


def all_shares(connection: apsw.Connection) -> list[Share]:
    """Every share."""
    return [Share(*row) for row in connection.execute("SELECT * FROM shares")]


def end_share(connection: apsw.Connection, path: str, grantee: str) -> None:
    """Inside a write: share a path with a grantee no longer, if it is."""
    connection.execute("DELETE FROM shares WHERE path = ? AND grantee = ?", (path, grantee))


def add_share(connection: apsw.Connection, share: Share) -> None:
    """Inside a write: share a path that is not shared with this grantee.

    Raises:
        ResourceExhausted: Too many paths of its root are shared.
    """
    root = root_of(share.path)
    n_shares: int = connection.execute(
        "SELECT count(*) FROM shares WHERE path = ? OR (path > ? AND path < ?)",
        (root, f"{root}/", f"{root}/{PAST}"),
    ).get
    if n_shares >= MAX_SHARES:
        raise ResourceExhausted(
            f"{root} has {n_shares} shares, which is the limit",
            hint="share a folder instead of each file in it, or take one back: access `none`",
        )
    row = (share.path, share.grantee, share.access, share.taint)
    connection.execute("INSERT INTO shares VALUES (?, ?, ?, ?)", row)


def spaces_used(connection: apsw.Connection, quota_bytes: int) -> list[SpaceUsed]:
    """What each folder with a quota takes."""
    rows = connection.execute(
        "SELECT root, ifnull(n_files, 0), ifnull(size_bytes, 0), ifnull(stored_bytes, 0), ifnull(quota_bytes, ?) "
        "FROM (SELECT root FROM usage UNION SELECT root FROM quotas) "
        "LEFT JOIN usage USING (root) LEFT JOIN quotas USING (root) ORDER BY root",
        (quota_bytes,),
    )
    return [SpaceUsed(*row) for row in rows]


def find_quota(connection: apsw.Connection, root: str) -> int | None:
    """What a folder may take, if the owner has said so."""
    row = connection.execute("SELECT quota_bytes FROM quotas WHERE root = ?", (root,)).fetchone()
    return None if row is None else int(str(row[0]))


def largest_quota(connection: apsw.Connection, quota_bytes: int) -> int:
    """What no folder may take more than."""
    own: int | None = connection.execute("SELECT max(quota_bytes) FROM quotas").get
    return max(quota_bytes, own or 0)


def set_quota(connection: apsw.Connection, root: str, quota_bytes: int | None) -> None:
    """Inside a write: what a folder may take; None: as much as any."""
    connection.execute("DELETE FROM quotas WHERE root = ?", (root,))
    if quota_bytes is not None:
        connection.execute("INSERT INTO quotas VALUES (?, ?)", (root, quota_bytes))


def disk_bytes(connection: apsw.Connection) -> int:
    """What the database and the contents beside it take."""
    pages: int = connection.execute(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    ).get
    files: int = connection.execute(
        "SELECT coalesce(sum(size_bytes), 0) FROM blobs WHERE data IS NULL"
    ).get
    return pages + files
