"""Carry the newest versions of paths out to the real files of a mount. Runs in a thread, inside a read of the database."""

from collections.abc import Iterator, Sequence

import apsw

from aios.disk.blobs import BlobStore, failed_write
from aios.disk.folder import Stamp
from aios.errors import DiskFailed
from aios.kernel.storage.content import ContentId, get_manifest
from aios.kernel.storage.mount_tables import Mount, find_stamp, real_parts
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
