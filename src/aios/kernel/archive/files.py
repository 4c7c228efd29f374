"""Files with all their versions in and out of an archive. Runs in one read, or one write, of the database.

What is saved is what the storage manager keeps of its own: `/agents`, `/groups` and `/shared`. A mounted folder is in the user's hands
as it is, and is copied there.

A version that comes in keeps its number, its author and its time. A path that is here already must have the same versions, as far as
both have them; then what is missing is added.
"""

import zlib
from collections.abc import Iterator

import apsw

from aios.abi.types import Pid
from aios.disk.blobs import BlobKey, BlobStore
from aios.errors import Conflict
from aios.kernel.archive.format import FileEntry, SavedBlob, SavedShare, SavedVersion, damaged
from aios.kernel.archive.taken import Taken
from aios.kernel.storage import tables
from aios.kernel.storage.content import (
    ContentId,
    Manifest,
    Stored,
    get_manifest,
    put_content,
)
from aios.kernel.storage.paths import ROOTS, file_path, parse, root_of
from aios.kernel.storage.versions import Author, Transaction

MAX_BLOB_BYTES = 8 << 20
NO_QUOTA = 1 << 62
"""The owner's files come back whole; later writes meet the quota."""

_VERSIONS = (
    "SELECT path, version, content, tx, boot, pid, author, unix_s, message, taint FROM versions "
    "WHERE path GLOB '/agents/*' OR path GLOB '/groups/*' OR path GLOB '/shared/*' ORDER BY change"
)


def save_files(connection: apsw.Connection, blobs: BlobStore) -> Iterator[FileEntry]:
    """All versions in their order, each behind the blobs that it is the first to need, then the shares.

    Raises:
        DiskFailed: A blob is damaged, or was removed by a kernel that runs.
    """
    seen = bytearray()  # a bit a blob
    for path, version, content, *rest in connection.execute(_VERSIONS):
        manifest = Manifest() if content is None else get_manifest(connection, content)
        for key in manifest.keys:
            if _is_new(seen, key):
                yield _saved_blob(blobs.get(connection, key))
        hashes = None if content is None else _hashes(connection, manifest)
        yield SavedVersion(path, version, hashes, *rest)
    for share in tables.all_shares(connection):
        if share.path.split("/", 2)[1] in ROOTS:
            yield SavedShare(share.path, share.grantee, share.access, share.taint)


class FileIntake:
    """Takes files in, inside one write.

    Args:
        connection: The writer's.
        blobs: Where contents go; large ones are on disk before the write ends.
        taken: Told what came of it.
        keeps_mine: Leave a path alone that has other versions here; else that is a conflict.
    """

    def __init__(
        self, connection: apsw.Connection, blobs: BlobStore, taken: Taken, *, keeps_mine: bool
    ) -> None:
        self._connection = connection
        self._blobs = blobs
        self._taken = taken
        self._keeps_mine = keeps_mine
        self._transaction = (0, 0)
        """The number of the last one in the archive, and here."""
        connection.execute("CREATE TEMP TABLE archive_kept (path TEXT PRIMARY KEY) WITHOUT ROWID")

    def close(self) -> None:
        """Forget what was needed on the way."""
        self._connection.execute("DROP TABLE IF EXISTS temp.archive_kept")

    def take(self, entry: FileEntry) -> None:
        """Take an entry in.

        Raises:
            Conflict: Something else is at a path.
            DiskFailed, ResourceExhausted: A content cannot be written.
            InvalidCall: It names what did not stand before it, or a path that no file can have.
        """
        match entry:
            case SavedBlob():
                self._take_blob(entry)
            case SavedVersion():
                self._take_version(entry)
            case SavedShare():
                self._take_share(entry)

    def _take_blob(self, saved: SavedBlob) -> None:
        piece = self._blobs.stage(_unpacked(saved))
        try:
            key = self._blobs.put(self._connection, piece)
            self._blobs.release(self._connection, [key])  # versions take references of their own
        finally:
            self._blobs.settle(piece)

    def _take_version(self, saved: SavedVersion) -> None:
        path = _own_path(saved.path)
        if self._is_kept(path):
            return
        here = self._connection.execute(
            "SELECT content, unix_s, author, message FROM versions WHERE path = ? AND version = ?",
            (path, saved.version),
        ).fetchone()
        if here is None:
            if saved.version > self._last_version(path):  # what is older was purged here
                self._add(path, saved)
        elif self._is_same(saved, here[0], list(here[1:])):
            self._taken.n_known += 1
        else:
            self._leave(path, f"{path} has another version {saved.version} here")

    def _add(self, path: str, saved: SavedVersion) -> None:
        author = Author(
            Pid(saved.pid), saved.boot, saved.author, saved.unix_s, saved.message, saved.taint
        )
        tx = Transaction(self._connection, self._blobs, author, NO_QUOTA)
        if saved.transaction == self._transaction[0]:
            tx.number = self._transaction[1]
        size_bytes, content = None, None
        if saved.blobs is not None:
            stored = self._stored(saved.blobs)
            size_bytes = stored.manifest.size_bytes
            content = put_content(self._connection, self._blobs, stored, root_of(path))
        tx.set_content(path, content, size_bytes, version=saved.version)
        self._transaction = (saved.transaction, tx.number)
        self._taken.n_versions += 1

    def _stored(self, hashes: tuple[bytes, ...]) -> Stored:
        """The manifest of these blobs, with one reference more each."""
        keys: list[BlobKey] = []
        sizes: list[int] = []
        new_bytes = 0
        for each in hashes:
            row = self._connection.execute(
                "SELECT key, size_bytes, n_refs, coalesce(length(data), size_bytes) FROM blobs WHERE hash = ?",
                (each,),
            ).fetchone()
            if row is None:
                raise damaged("a version names a content that did not stand before it")
            key, size_bytes, n_refs, stored_bytes = row
            keys.append(BlobKey(key))
            sizes.append(size_bytes)
            new_bytes += 0 if n_refs else stored_bytes
            self._blobs.retain(self._connection, keys[-1:])
        return Stored(Manifest(tuple(keys), tuple(sizes)), new_bytes)

    def _is_same(self, saved: SavedVersion, content: ContentId | None, said: list[object]) -> bool:
        hashes = None
        if content is not None:
            hashes = _hashes(self._connection, get_manifest(self._connection, content))
        return hashes == saved.blobs and said == [saved.unix_s, saved.author, saved.message]

    def _leave(self, path: str, why: str) -> None:
        if not self._keeps_mine:
            raise Conflict(
                why, hint="leave what is here as it is with --keep-mine, or use another AIOS_HOME"
            )
        self._connection.execute("INSERT INTO archive_kept VALUES (?)", (path,))
        self._taken.kept.append(path)

    def _take_share(self, saved: SavedShare) -> None:
        path = _own_path(saved.path)
        if parse(saved.grantee, "/") != saved.grantee:
            raise damaged(f"nobody is {saved.grantee!r}")
        row = (path, saved.grantee, saved.access, saved.taint)
        self._connection.execute("INSERT OR IGNORE INTO shares VALUES (?, ?, ?, ?)", row)
        self._taken.n_shares += self._connection.changes()

    def _is_kept(self, path: str) -> bool:
        sql = "SELECT 1 FROM archive_kept WHERE path = ?"
        return self._connection.execute(sql, (path,)).fetchone() is not None

    def _last_version(self, path: str) -> int:
        sql = "SELECT coalesce(max(version), 0) FROM versions WHERE path = ?"
        found: int = self._connection.execute(sql, (path,)).get
        return found


def _is_new(seen: bytearray, key: BlobKey) -> bool:
    """Whether a blob comes for the first time; it is seen from now on."""
    place, bit = key >> 3, 1 << (key & 7)
    if place >= len(seen):
        seen.extend(bytes(place + 1 - len(seen)))
    is_new = not seen[place] & bit
    seen[place] |= bit
    return is_new


def _saved_blob(data: bytes) -> SavedBlob:
    packed = zlib.compress(data, 1)
    is_packed = len(packed) < len(data)
    return SavedBlob(len(data), is_packed, packed if is_packed else data)


def _unpacked(saved: SavedBlob) -> bytes:
    """The bytes of a blob, never more than it says."""
    if saved.size_bytes > MAX_BLOB_BYTES:
        raise damaged(f"a content claims {saved.size_bytes} bytes")
    data = saved.data
    if saved.is_packed:
        try:
            data = zlib.decompressobj().decompress(data, saved.size_bytes + 1)
        except zlib.error as error:
            raise damaged(f"a content cannot be unpacked: {error}") from error
    if len(data) != saved.size_bytes:
        raise damaged("a content has another length than it says")
    return data


def _hashes(connection: apsw.Connection, manifest: Manifest) -> tuple[bytes, ...]:
    return tuple(
        bytes(connection.execute("SELECT hash FROM blobs WHERE key = ?", (key,)).get)
        for key in manifest.keys
    )


def _own_path(path: str) -> str:
    """A path in one of the folders that are saved, in canonical form, as every path of ours is."""
    if parse(path, "/") != path or path.split("/", 2)[1] not in ROOTS:
        raise damaged(f"no file is at {path!r}")
    return file_path(path)
