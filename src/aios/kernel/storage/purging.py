"""Forget old versions for ever, so many in one call: other writers come between, however many there are."""

from collections.abc import Sequence
from functools import partial

import apsw

from aios.abi.storage import Purged
from aios.disk.blobs import BlobStore
from aios.disk.db import Database
from aios.kernel.process import Run
from aios.kernel.storage.content import ContentId, release_content
from aios.kernel.storage.history import forget_marks
from aios.kernel.storage.paths import WORKSPACES, Reach, is_within
from aios.kernel.storage.tables import PAST, check_versions

MAX_PURGED = 20_000
"""Versions of one call. Cost: 20 us each."""

Old = tuple[int, str]
"""A version to forget: the number of its change, and its path."""


async def purge(
    run: Run, db: Database, blobs: BlobStore, path: str, *, keep: int, reach: Reach
) -> Purged:
    """Forget all but the newest `keep` versions of each path below, or the oldest of them if they are too many for one call.

    The version that a file has now is never forgotten.

    Raises:
        AccessDenied: Some of it is out of `reach`; nothing is forgotten then.
        NotFound: Nothing was ever at the path or below it, or all of it was purged.
    """
    old = await db.read(partial(_find_old, path=path, keep=keep, reach=reach))

    def forget(connection: apsw.Connection) -> Purged:
        n_versions, size_bytes = _forget(connection, blobs, old[:MAX_PURGED])
        forget_marks(connection, path)
        return run.sealed(connection, Purged(n_versions, size_bytes, len(old[MAX_PURGED:])))

    return await db.write(forget)


def _find_old(connection: apsw.Connection, *, path: str, keep: int, reach: Reach) -> list[Old]:
    """The oldest first."""
    check_versions(connection, path)
    is_write = not is_within(path, f"/{WORKSPACES}")
    prefix = f"{path}/"
    rows = connection.execute(
        "SELECT change, path FROM (SELECT change, path, version, "
        "row_number() OVER (PARTITION BY path ORDER BY version DESC) AS age FROM versions "
        "WHERE path = ?1 OR (path > ?2 AND path < ?3)) AS old WHERE age > ?4 AND NOT EXISTS "
        "(SELECT 1 FROM files WHERE files.path = old.path AND files.version = old.version)",
        (path, prefix, f"{prefix}{PAST}", keep),
    )
    old = sorted((int(str(change)), str(each)) for change, each in rows)
    for each in sorted({each for _, each in old}):
        reach.check_below(path, each, is_write=is_write)
    return old


def _forget(connection: apsw.Connection, blobs: BlobStore, old: Sequence[Old]) -> tuple[int, int]:
    """Inside a write: forget those of these versions that are still there. Returns: how many, and the bytes that are freed."""
    query = "DELETE FROM versions WHERE change = ? AND path = ? RETURNING path, content"
    gone = [row for each in old for row in connection.execute(query, each)]
    heirs = {path: _oldest_content(connection, path) for path in {str(row[0]) for row in gone}}
    freed_bytes = 0
    for path, content in gone:
        if content is not None:
            freed_bytes += release_content(connection, blobs, content, heir=heirs[path])
    return len(gone), freed_bytes


def _oldest_content(connection: apsw.Connection, path: str) -> ContentId | None:
    """What the oldest version of a path holds that is left and no deletion."""
    query = "SELECT content FROM versions WHERE path = ? AND content IS NOT NULL ORDER BY version LIMIT 1"
    row = connection.execute(query, (path,)).fetchone()
    return None if row is None else int(str(row[0]))
