"""Look into the contents of files: a piece of a version, and two versions to compare. Runs inside a read of the database."""

from collections.abc import Iterable, Sequence
from struct import Struct

import apsw

from aios.abi.storage import Content, FileVersion, Share
from aios.disk.blobs import BlobStore
from aios.errors import Unsupported
from aios.kernel.process import Run
from aios.kernel.storage import tables
from aios.kernel.storage.comparing import Side
from aios.kernel.storage.content import Manifest, get_manifest, read_range
from aios.kernel.taint import take

MAX_DIFF_BYTES = 4 << 20
ONE = Struct("=II")
"""The packed manifest of a file that is one blob, as most are: its key and size."""


def find_small_piece(
    connection: apsw.Connection,
    *,
    blobs: BlobStore,
    path: str,
    version: int | None,
    span: range,
    limit_bytes: int | None,
) -> Content | None:
    """A piece of a file; None if more than `limit_bytes` would have to be read for it, which belongs into a thread.

    Args:
        connection: A reader's.
        blobs: Where the contents are.
        path: The file, in canonical form.
        version: None is the one that it has now.
        span: The positions of the piece.
        limit_bytes: None has no limit.

    Raises:
        NotFound: There is no such file or version.
        DiskFailed: A blob is damaged.
    """
    held = tables.get_held(connection, path, version)
    if len(held.chunks) == ONE.size:
        key, size_bytes = ONE.unpack(held.chunks)
        if limit_bytes is not None and size_bytes > limit_bytes:
            return None
        data = blobs.get(connection, key)[span.start : span.stop]
        return Content(data, size_bytes, held.version, held.taint)
    manifest = Manifest.decode(held.chunks)
    size_bytes = manifest.size_bytes
    if limit_bytes is not None and (
        min(size_bytes, len(span)) > limit_bytes or max(manifest.sizes, default=0) > limit_bytes
    ):
        return None
    data = read_range(connection, blobs, manifest, span)
    return Content(data, size_bytes, held.version, held.taint)


def read_piece(
    connection: apsw.Connection, *, blobs: BlobStore, path: str, version: int | None, span: range
) -> Content:
    """As `find_small_piece`, whatever it costs."""
    found = find_small_piece(
        connection, blobs=blobs, path=path, version=version, span=span, limit_bytes=None
    )
    assert found is not None, "a read without a limit found nothing"
    return found


def get_sides(
    connection: apsw.Connection,
    blobs: BlobStore,
    path: str,
    versions: tuple[int | None, int | None],
) -> tuple[Side, Side]:
    """Two versions to compare (old, new); None is the newest, and as the old one that before the new. One that deletes is empty.

    Raises:
        NotFound: There is no such file or version.
        Unsupported: One of them is over 4 MiB.
    """
    newest = tables.get_versions(connection, path, 1)
    old, new = versions
    new = newest[0].version if new is None else new
    old = new - 1 if old is None else old
    return _side(connection, blobs, path, old), _side(connection, blobs, path, new)


def take_versions(run: Run, versions: Sequence[FileVersion]) -> None:
    """A call shows versions with what their authors said of them."""
    for each in versions:
        take(run, each.taint, f"file {each.path}")


def take_shares(run: Run, shares: Iterable[Share]) -> None:
    """A call shows paths that their owners chose to share."""
    for each in shares:
        take(run, each.taint, f"share of {each.path}")


def _side(connection: apsw.Connection, blobs: BlobStore, path: str, version: int) -> Side:
    if version < 1:
        return Side(path, version, b"")
    deleted = connection.execute(
        "SELECT content IS NULL FROM versions WHERE path = ? AND version = ?", (path, version)
    ).fetchone()
    if deleted == (1,):
        return Side(path, version, b"")
    manifest = get_manifest(connection, tables.get_content_of(connection, path, version))
    if manifest.size_bytes > MAX_DIFF_BYTES:
        raise Unsupported(f"{path} is over {MAX_DIFF_BYTES} bytes", hint="compare it outside")
    data = read_range(connection, blobs, manifest, range(manifest.size_bytes))
    return Side(path, version, data)
