"""Carry the newest versions of paths out to the real files of a mount. Runs in a thread, inside a read of the database."""

from collections.abc import Iterator, Sequence

import apsw

from aios.disk.blobs import BlobStore, failed_write
from aios.disk.folder import Stamp
from aios.errors import AiosError, DiskFailed
from aios.kernel.storage.content import ContentId, get_manifest
from aios.kernel.storage.mount_tables import Mount, find_stamp, real_parts
from aios.kernel.storage.paths import ancestors
from aios.kernel.storage.tables import find_file


def carry_out(
    connection: apsw.Connection,
    blobs: BlobStore,
    work: Sequence[tuple[Mount, str]],
    done: dict[str, Stamp | None],
) -> None:
    """Make the real file of each path what its newest version is; `done` gets the stamp of each as soon as it is on disk.

    Deletions come first: a name may be that of a file before and of a folder after, or the other way round.

    Raises:
        Conflict: A real file is not the one that was known.
        AccessDenied: A link or something like it is in the way, or the folder may not be written to.
        ResourceExhausted, DiskFailed: The disk of the folder is full, or fails, or the folder is not there.
    """
    now = {path: find_file(connection, path) for _, path in work}
    for mount, path in sorted(work, key=lambda each: now[each[1]] is not None):
        row = now[path]
        done[path] = _carry_out(connection, blobs, (mount, path), row.content if row else None)


def carry_out_if_possible(
    connection: apsw.Connection, blobs: BlobStore, work: Sequence[tuple[Mount, str]]
) -> tuple[dict[str, Stamp | None], dict[str, str]]:
    """Make the real file of each path what its newest version is, where nothing hinders that.

    Files are removed last, but for those in the way of another, and not at all where one that should hold the same could not be written: a move
    of which the new name is refused leaves the file under the old one.

    Returns: The stamps that are known then, None for one that is not; and the paths that are not as they should be, with the reason.
    """
    now = {path: find_file(connection, path) for _, path in work}
    written = {path for path, row in now.items() if row is not None}
    around = {folder for path in written for folder in ancestors(path)}
    done: dict[str, Stamp | None] = dict.fromkeys(now)
    failed: dict[str, str] = {}
    unwritten: set[ContentId] = set()

    def place(path: str) -> int:
        if path in written:
            return 1
        return 0 if path in around or not written.isdisjoint(ancestors(path)) else 2

    for target in sorted(work, key=lambda each: place(each[1])):
        path = target[1]
        row = now[path]
        if place(path) == 2 and _last_content(connection, path) in unwritten:
            failed[path] = "what it holds could not be written to where it belongs"
            continue
        try:
            done[path] = _carry_out(connection, blobs, target, row.content if row else None)
        except AiosError as error:
            failed[path] = error.message
            if row is not None:
                unwritten.add(row.content)
    return done, failed


def _last_content(connection: apsw.Connection, path: str) -> ContentId | None:
    """What a file that is deleted held last."""
    row = connection.execute(
        "SELECT content FROM versions WHERE path = ? AND content IS NOT NULL ORDER BY version DESC LIMIT 1",
        (path,),
    ).fetchone()
    return row[0] if row else None


def _carry_out(
    connection: apsw.Connection,
    blobs: BlobStore,
    target: tuple[Mount, str],
    content: ContentId | None,
) -> Stamp | None:
    mount, path = target
    if mount.real is None:
        raise DiskFailed(f"the folder of {mount.path} is not there", hint="see `aios fs mounts`")
    known = find_stamp(connection, path)
    parts = real_parts(connection, mount, path)
    try:
        if content is not None:
            return mount.real.replace(parts, _pieces(connection, blobs, content), known)
        if known is not None:
            mount.real.remove(parts, known)
    except OSError as error:
        raise failed_write(error, mount.folder) from error
    return None


def _pieces(connection: apsw.Connection, blobs: BlobStore, content: ContentId) -> Iterator[bytes]:
    for key in get_manifest(connection, content).keys:
        yield blobs.get(connection, key)
