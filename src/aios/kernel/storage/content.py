"""What a file holds: a list of blobs, stored once for all versions and files with the same bytes."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

import apsw
from msgspec import Struct

from aios.disk.blobs import BlobKey, BlobStore, Piece
from aios.disk.chunks import cut, sizes_for

ContentId = int


class Manifest(Struct, frozen=True):
    """The blobs of a content in their order, and the length of each in bytes."""

    keys: tuple[BlobKey, ...] = ()
    sizes: tuple[int, ...] = ()

    @property
    def size_bytes(self) -> int:
        """The length of the whole."""
        return sum(self.sizes)

    def encode(self) -> bytes:
        """Eight bytes a blob."""
        return array(
            "I", [n for pair in zip(self.keys, self.sizes, strict=True) for n in pair]
        ).tobytes()

    @classmethod
    def decode(cls, data: bytes) -> "Manifest":
        """Read what `encode` wrote."""
        numbers = array("I", data)
        return cls(tuple(BlobKey(n) for n in numbers[::2]), tuple(numbers[1::2]))


class Stored(Struct, frozen=True):
    """A manifest whose blobs hold one reference each, and the bytes of disk that were new."""

    manifest: Manifest
    new_bytes: int


def stage_all(blobs: BlobStore, data: bytes) -> list[Piece]:
    """Cut a content and stage its chunks; the caller settles them.

    Raises:
        DiskFailed: A chunk cannot be written.
    """
    return stage(blobs, cut(data, sizes_for(len(data))))


def stage(blobs: BlobStore, chunks: Iterable[bytes]) -> list[Piece]:
    """Stage chunks, all or none; the caller settles them.

    Raises:
        DiskFailed: A chunk cannot be written.
    """
    pieces: list[Piece] = []
    with ExitStack() as undo:
        undo.callback(lambda: blobs.settle(*pieces))
        for chunk in chunks:
            pieces.append(blobs.stage_later(chunk))  # noqa: PERF401 - what was staged must be known if one fails
        blobs.sync(pieces)
        undo.pop_all()
    return pieces


def put_pieces(connection: apsw.Connection, blobs: BlobStore, pieces: Sequence[Piece]) -> Stored:
    """Inside a write: refer to each piece."""
    keys: list[BlobKey] = []
    new_bytes = 0
    for piece in pieces:
        key, is_new = blobs.add(connection, piece)
        keys.append(key)
        if is_new:
            new_bytes += piece.stored_bytes
    return Stored(Manifest(tuple(keys), tuple(piece.size_bytes for piece in pieces)), new_bytes)


def put_content(
    connection: apsw.Connection, blobs: BlobStore, stored: Stored, root: str
) -> ContentId:
    """Inside a write: the content with these blobs, with one more reference. It takes over the references to the blobs."""
    packed = stored.manifest.encode()
    content, n_refs = connection.execute(
        "INSERT INTO contents (chunks, size_bytes, n_refs, stored_bytes, root) VALUES (?, ?, 1, ?, ?) "
        "ON CONFLICT (chunks) DO UPDATE SET n_refs = n_refs + 1 RETURNING id, n_refs",
        (packed, stored.manifest.size_bytes, stored.new_bytes, root),
    ).get
    if n_refs > 1:
        blobs.release(connection, stored.manifest.keys)
    elif stored.new_bytes:
        connection.execute(
            "INSERT INTO usage (root, stored_bytes) VALUES (?, ?) "
            "ON CONFLICT (root) DO UPDATE SET stored_bytes = stored_bytes + excluded.stored_bytes",
            (root, stored.new_bytes),
        )
    return int(content)


def retain_content(connection: apsw.Connection, content: ContentId) -> None:
    """Inside a write: one more reference."""
    connection.execute("UPDATE contents SET n_refs = n_refs + 1 WHERE id = ?", (content,))


def release_content(
    connection: apsw.Connection,
    blobs: BlobStore,
    content: ContentId,
    *,
    heir: ContentId | None = None,
) -> int:
    """Inside a write: one reference less; the last one frees it. Returns the bytes that its root no longer pays for.

    A content pays for the blobs that were new with it: for those that others have still, `heir` pays from now on, if it is of the same root.
    """
    n_refs: int = connection.execute(
        "UPDATE contents SET n_refs = n_refs - 1 WHERE id = ? RETURNING n_refs", (content,)
    ).get
    if n_refs:
        return 0
    chunks, stored_bytes, root = connection.execute(
        "DELETE FROM contents WHERE id = ? RETURNING chunks, stored_bytes, root", (content,)
    ).get
    keys = Manifest.decode(chunks).keys
    blobs.release(connection, keys)
    if heir is not None and stored_bytes:
        kept_bytes = max(0, stored_bytes - blobs.unused_bytes(connection, keys))
        connection.execute(
            "UPDATE contents SET stored_bytes = stored_bytes + ? WHERE id = ? AND root = ?",
            (kept_bytes, heir, root),
        )
        stored_bytes -= kept_bytes * connection.changes()
    connection.execute(
        "UPDATE usage SET stored_bytes = stored_bytes - ? WHERE root = ?", (stored_bytes, root)
    )
    return int(stored_bytes)


def get_manifest(connection: apsw.Connection, content: ContentId) -> Manifest:
    """The blobs of a content."""
    chunks: bytes = connection.execute("SELECT chunks FROM contents WHERE id = ?", (content,)).get
    return Manifest.decode(chunks)


def read_range(
    connection: apsw.Connection, blobs: BlobStore, manifest: Manifest, span: range
) -> bytes:
    """The bytes of a content at the positions of `span`; less at its end.

    Raises:
        DiskFailed: A blob is damaged.
    """
    return b"".join(_ranges(connection, blobs, manifest, span))


def _ranges(
    connection: apsw.Connection, blobs: BlobStore, manifest: Manifest, span: range
) -> Iterator[bytes]:
    begin = 0
    for key, size in zip(manifest.keys, manifest.sizes, strict=True):
        if begin >= span.stop:
            return
        if begin + size > span.start:
            data = blobs.get(connection, key)
            yield data[max(0, span.start - begin) : span.stop - begin]
        begin += size
