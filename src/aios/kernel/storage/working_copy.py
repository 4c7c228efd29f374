"""Carry the newest versions of paths out to the real files of a mount. Runs in threads, inside reads of the database."""

from collections.abc import Iterator, Sequence
from functools import partial

import anyio
import apsw

from aios.disk.blobs import BlobStore, failed_write
from aios.disk.db import Database
from aios.disk.folder import Stamp
from aios.errors import AiosError, DiskFailed
from aios.kernel.storage.content import ContentId, get_manifest
from aios.kernel.storage.mount_tables import Mount, find_stamp, real_parts, set_done
from aios.kernel.storage.outside import find_same
from aios.kernel.storage.paths import ancestors
from aios.kernel.storage.tables import find_file

SLICE_FILES = 50
"""Of files that are carried out in one read of the database, of which there are only a few at once: each file is synced, which takes milliseconds."""


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


async def carry_out_if_possible(
    db: Database, blobs: BlobStore, work: Sequence[tuple[Mount, str]]
) -> dict[str, str]:
    """Make the real file of each path what its newest version is, where nothing hinders that; then nothing is pending there.

    What is removed makes room, so it comes before what is written; but a file whose content is written elsewhere is removed last, and not at all
    where that could not be: a move of which the new name is refused leaves the file under the old one. Whoever is killed or cancelled in between
    leaves the rest pending, with what failed so far: what is removed last depends on it.

    Returns: The paths that are not as they should be, with the reason; nothing is known of their real files any more.
    """
    steps = await db.read(partial(_in_order, work=work))
    failed: dict[str, str] = {}
    unwritten: set[ContentId] = set()
    for first in range(0, len(steps), SLICE_FILES):
        some = steps[first : first + SLICE_FILES]
        with anyio.CancelScope(shield=True):  # what is known of the files goes with them
            done = await db.read(partial(_carry_out_some, blobs=blobs, work=some, failed=failed, unwritten=unwritten))  # fmt: skip
            await db.write(partial(set_done, paths=list(done), done=done))
    if failed:
        await db.write(partial(set_done, paths=list(failed), done=dict.fromkeys(failed)))
    return failed


def _in_order(
    connection: apsw.Connection, work: Sequence[tuple[Mount, str]]
) -> list[tuple[Mount, str]]:
    now = {path: find_file(connection, path) for _, path in work}
    written = {path for path, row in now.items() if row is not None}
    around = {folder for path in written for folder in ancestors(path)}
    kept = {row.content for row in now.values() if row is not None}

    def place(path: str) -> int:
        if path in written:
            return 1
        is_in_the_way = path in around or not written.isdisjoint(ancestors(path))
        return 2 if not is_in_the_way and _last_content(connection, path) in kept else 0

    return sorted(work, key=lambda each: place(each[1]))


def _carry_out_some(
    connection: apsw.Connection,
    blobs: BlobStore,
    work: Sequence[tuple[Mount, str]],
    *,
    failed: dict[str, str],
    unwritten: set[ContentId],
) -> dict[str, Stamp | None]:
    """Carry out the next of the paths; `failed` gets those that cannot be, `unwritten` what they should hold. Returns: the stamps of the others."""
    done: dict[str, Stamp | None] = {}
    for target in work:
        path = target[1]
        row = find_file(connection, path)
        if row is None and unwritten and _last_content(connection, path) in unwritten:
            failed[path] = "what it holds could not be written to where it belongs"
            continue
        try:
            done[path] = _carry_out(connection, blobs, target, row.content if row else None)
        except AiosError as error:
            if row is not None and (stamp := _find_written(connection, blobs, target)):
                done[path] = stamp
                continue
            failed[path] = error.message
            if row is not None:
                unwritten.add(row.content)
    return done


def _find_written(
    connection: apsw.Connection, blobs: BlobStore, target: tuple[Mount, str]
) -> Stamp | None:
    """The stamp of a real file that holds its newest version already: a kernel was killed before it could write down that it does."""
    mount, path = target
    if mount.real is None:
        return None
    parts = real_parts(connection, mount, path)
    same = find_same(connection, blobs, mount.real, path, parts=parts, now_ns=0)
    return same.stamp if same else None


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
