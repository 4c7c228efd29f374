"""Byte strings by their content: each is stored once, counted by those who refer to it, and checked when it is read.

Small ones are rows of the database, large ones files beside it. A file is written under another name, synced and renamed
before its row is committed, so a row never points to half a file; a file without a row is left over from a crash or from
a write that failed, and `collect` removes it.

    piece = blobs.stage(data)                                    # any thread; large ones go to disk here
    try:
        key = await db.write(lambda c: blobs.put(c, piece))      # the caller now holds one reference
    finally:
        blobs.settle(piece)

Who stages many stages each with `stage_later` and then has all of them on disk with one `sync`.
"""

import errno
import os
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NewType

import anyio
import anyio.to_thread
import apsw
from msgspec import Struct

from aios.disk.db import Database
from aios.disk.migrations import Schema
from aios.errors import AiosError, DiskFailed, ResourceExhausted

BlobKey = NewType("BlobKey", int)
"""A blob's number in this database: shorter than its hash where many are listed."""

INLINE_BYTES = 64 << 10
"""Up to here a row: a file of its own costs two syncs, 7 ms, against a share of one for a row."""
HASH_BYTES = 32
N_SYNCS = 8
"""Files that are synced at once."""
PLAIN, ZLIB = 0, 1

SCHEMA = Schema(
    "blobs",
    (
        """
        CREATE TABLE blobs (
            key INTEGER PRIMARY KEY,
            hash BLOB NOT NULL UNIQUE,
            size_bytes INTEGER NOT NULL,
            n_refs INTEGER NOT NULL,
            packing INTEGER NOT NULL,
            data BLOB  -- NULL: in a file
        );
        CREATE INDEX blobs_unused ON blobs (key) WHERE n_refs = 0;
        """,
    ),
)


class Piece(Struct, frozen=True):
    """Bytes that are ready to be committed. `data` is None when they are in their file."""

    hash: bytes
    size_bytes: int
    packing: int
    data: bytes | None

    @property
    def stored_bytes(self) -> int:
        """What it takes on disk."""
        return self.size_bytes if self.data is None else len(self.data)


@dataclass(eq=False)
class _File:
    """The file of a content that is staged: a draft until it is synced. `turn` is held while it is written or synced."""

    draft: Path
    turn: threading.Lock = field(default_factory=threading.Lock)
    is_written: bool = False
    is_whole: bool = False
    """It has its own name: what is in it is on disk."""

    def finish(self, path: Path) -> None:
        """Sync it and give it its name, unless somebody has done so."""
        with self.turn:
            if not self.is_whole:
                _sync(self.draft)
                self.draft.replace(path)
                self.is_whole = True


class Collected(Struct, frozen=True):
    """What a collection removed."""

    n_blobs: int
    n_files: int
    size_bytes: int


class BlobStore:
    """The blobs of one database. `folder` holds the large ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._staged: Counter[bytes] = Counter()
        self._files_of: dict[bytes, _File] = {}
        """Of all that are staged."""
        self._n_drafts = 0
        # Between `stage` and `settle` a file may not be collected, though no row names it.
        self._guard = threading.Lock()
        self._collecting = anyio.Lock()
        self._named: set[Path] = set()
        """Folders whose own names are on disk."""
        self._making = threading.Lock()

    def stage(self, data: bytes) -> Piece:
        """Hash the bytes, pack small ones and bring large ones to disk. Call `settle` whatever happens next.

        Raises:
            ResourceExhausted: The disk is full.
            DiskFailed: The file cannot be written.
        """
        piece = self.stage_later(data)
        try:
            self.sync([piece])
        except BaseException:
            self.settle(piece)
            raise
        return piece

    def stage_later(self, data: bytes) -> Piece:
        """As `stage`, but large ones are on disk only after `sync`, without which none may be put."""
        digest = blake2b(data, digest_size=HASH_BYTES).digest()
        if len(data) <= INLINE_BYTES:
            packed = zlib.compress(data, 1)
            if len(packed) < 0.9 * len(data):
                return Piece(digest, len(data), ZLIB, packed)
            return Piece(digest, len(data), PLAIN, data)
        piece = Piece(digest, len(data), PLAIN, None)
        with self._guard:
            self._staged[digest] += 1
            file = self._files_of.get(digest) or self._new_file(digest)
        try:
            with file.turn:
                if not (file.is_written or file.is_whole):
                    self._write(file.draft, data)
                    file.is_written = True
        except OSError as error:
            self.settle(piece)
            raise failed_write(error, self.folder) from error
        return piece

    def sync(self, pieces: Iterable[Piece]) -> None:
        """Bring what was staged on disk: each file, and then each folder, once.

        Raises:
            ResourceExhausted: The disk is full.
            DiskFailed: A file cannot be written.
        """
        digests = {piece.hash for piece in pieces if piece.data is None}
        with self._guard:
            files = [(self._path(digest), self._files_of[digest]) for digest in digests]
        # Also the folders of those that were there: whose writer renamed them may not have come so far yet.
        folders = {path.parent for path, _ in files}
        try:
            for path, file in files:
                file.finish(path)
            for folder in folders:
                sync_folder(folder)
            if not folders <= self._named:  # as little is known of who made them
                sync_folder(self.folder)
                self._named |= folders
        except OSError as error:
            raise failed_write(error, self.folder) from error

    async def sync_many(self, pieces: Iterable[Piece]) -> None:
        """As `sync`, several files at once: syncs that come together share a commit of the file system.

        Cost: for 400 files a third of one after another; cutting and hashing them takes longer.
        """
        parts: list[list[Piece]] = [[] for _ in range(N_SYNCS)]
        for piece in pieces:
            parts[piece.hash[0] % N_SYNCS].append(piece)  # each folder in one part
        failures: list[AiosError] = []

        def sync(part: list[Piece]) -> None:
            try:
                self.sync(part)
            except AiosError as error:
                failures.append(error)

        threads = anyio.CapacityLimiter(N_SYNCS)
        async with anyio.create_task_group() as tasks:
            for part in filter(None, parts):
                tasks.start_soon(partial(anyio.to_thread.run_sync, sync, part, limiter=threads))
        for failure in failures:
            raise failure

    def _new_file(self, digest: bytes) -> _File:
        path = self._path(digest)
        self._n_drafts += 1
        draft = path.with_name(f"draft.{os.getpid()}.{self._n_drafts}")
        file = self._files_of[digest] = _File(draft, is_whole=path.exists())
        return file

    def _write(self, path: Path, data: bytes) -> None:
        with self._making:
            if not self.folder.exists():
                make_folder(self.folder)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)

    def settle(self, *pieces: Piece) -> None:
        """The transaction with these pieces is over, whether it was committed or not."""
        drafts: list[Path] = []
        with self._guard:
            for piece in pieces:
                if piece.data is None:
                    self._staged[piece.hash] -= 1
                    if not self._staged[piece.hash]:
                        del self._staged[piece.hash]
                        file = self._files_of.pop(piece.hash)
                        if not file.is_whole:
                            drafts.append(file.draft)
        for draft in drafts:
            with suppress(OSError):
                draft.unlink()

    def put(self, connection: apsw.Connection, piece: Piece) -> BlobKey:
        """Inside a write: add a reference, and the row if the content is new."""
        return self.add(connection, piece)[0]

    def add(self, connection: apsw.Connection, piece: Piece) -> tuple[BlobKey, bool]:
        """As `put`; also whether nobody referred to that content before."""
        key, n_refs = connection.execute(
            "INSERT INTO blobs (hash, size_bytes, n_refs, packing, data) VALUES (?, ?, 1, ?, ?) "
            "ON CONFLICT (hash) DO UPDATE SET n_refs = n_refs + 1 RETURNING key, n_refs",
            (piece.hash, piece.size_bytes, piece.packing, piece.data),
        ).get
        return BlobKey(key), n_refs == 1

    def retain(self, connection: apsw.Connection, keys: Iterable[BlobKey]) -> None:
        """Inside a write: add a reference to each; one that is named twice gets two."""
        connection.executemany(
            "UPDATE blobs SET n_refs = n_refs + 1 WHERE key = ?", ((key,) for key in keys)
        )

    def release(self, connection: apsw.Connection, keys: Iterable[BlobKey]) -> None:
        """Inside a write: take a reference from each. What has none left stays until `collect`."""
        connection.executemany(
            "UPDATE blobs SET n_refs = n_refs - 1 WHERE key = ?", ((key,) for key in keys)
        )

    def unused_bytes(self, connection: apsw.Connection, keys: Iterable[BlobKey]) -> int:
        """What those of these blobs take on disk that nobody refers to any more."""
        query = "SELECT coalesce(length(data), size_bytes) FROM blobs WHERE key = ? AND n_refs = 0"
        rows = (connection.execute(query, (key,)).fetchone() for key in set(keys))
        return sum(int(row[0]) for row in rows if row is not None)

    def get(self, connection: apsw.Connection, key: BlobKey) -> bytes:
        """The bytes of a blob.

        Raises:
            DiskFailed: They are gone or not what was stored.
        """
        row = connection.execute(
            "SELECT hash, packing, data FROM blobs WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            raise _damaged(f"blob {key} has no row")
        digest, packing, data = row
        try:
            if data is None:
                data = self._path(digest).read_bytes()
            elif packing == ZLIB:
                data = zlib.decompress(data)
        except (OSError, zlib.error) as error:
            raise _damaged(f"blob {key}: {error}") from error
        if blake2b(data, digest_size=HASH_BYTES).digest() != digest:
            raise _damaged(f"blob {key} is not what was stored")
        return bytes(data)

    async def collect(
        self, db: Database, report: Callable[[int, int], None] | None = None
    ) -> Collected:
        """Remove the blobs that nobody refers to, and the files that no row names; `report` is told how many of how many were looked at."""

        def delete(connection: apsw.Connection) -> list[int]:
            rows = connection.execute(
                "DELETE FROM blobs WHERE n_refs = 0 RETURNING coalesce(length(data), 0)"
            )
            return [size_bytes for (size_bytes,) in rows]  # those in files are counted with them

        async with self._collecting:
            sizes = await db.write(delete)
            strays = await db.read(lambda c: self._find_strays(c, report))
            files = await db.write(lambda c: self._remove_strays(c, strays)) if strays else []
        return Collected(len(sizes), len(files), sum(sizes) + sum(files))

    def _find_strays(
        self, connection: apsw.Connection, report: Callable[[int, int], None] | None
    ) -> list[Path]:
        files, strays = self._files(), []
        for number, path in enumerate(files, 1):
            if report is not None:
                report(number, len(files))
            if not _is_known(connection, path):
                strays.append(path)
        return strays

    def _remove_strays(self, connection: apsw.Connection, strays: list[Path]) -> list[int]:
        """Returns: the bytes of each that is gone. Runs in the writer's thread: a file that was settled since has its row by now, and one that was not is staged."""
        gone: list[int] = []
        with self._guard:
            for path in strays:
                digest = _digest_of(path)
                is_draft_in_use = digest is None and bool(self._staged)
                if digest in self._staged or is_draft_in_use or _is_known(connection, path):
                    continue
                with suppress(FileNotFoundError):
                    gone.append(path.stat().st_size)
                    path.unlink()
        return gone

    def find_damage(
        self, connection: apsw.Connection, report: Callable[[int, int], None] | None = None
    ) -> Iterator[str]:
        """Read every blob and say what is wrong with it; `report` is told how many of how many were read."""
        keys = list(connection.execute("SELECT key FROM blobs ORDER BY key"))
        for number, (key,) in enumerate(keys, 1):
            if report is not None:
                report(number, len(keys))
            try:
                self.get(connection, BlobKey(key))
            except DiskFailed as error:
                yield error.message

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("??/*")) if self.folder.exists() else []

    def _path(self, digest: bytes) -> Path:
        name = digest.hex()
        return self.folder / name[:2] / name[2:]


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; their names are on disk when this returns, also if somebody else made them just now.

    Raises:
        OSError: It cannot be made.
    """
    if not folder.parent.exists():
        make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is never seen in part, and is on disk when this returns.

    Raises:
        OSError: It cannot be written.
    """
    if not path.parent.exists():
        make_folder(path.parent)
    draft = path.with_name(f"draft.{os.getpid()}.{threading.get_ident()}.{path.name[:16]}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def failed_write(error: OSError, where: Path) -> ResourceExhausted | DiskFailed:
    """Our error for a file that could not be written."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ResourceExhausted(
            f"the disk of {where} is full", hint="free space, or `aios fs gc`", retry_after_s=60
        )
    return DiskFailed(f"{where} cannot be written to: {error}", hint="look at the system's log")


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder on disk."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest_of(path: Path) -> bytes | None:
    """The hash that a file's name says; None for a draft."""
    try:
        return bytes.fromhex(path.parent.name + path.name)
    except ValueError:
        return None


def _is_known(connection: apsw.Connection, path: Path) -> bool:
    """Whether a row names this file."""
    digest = _digest_of(path)
    return (
        connection.execute("SELECT 1 FROM blobs WHERE hash = ?", (digest,)).fetchone() is not None
    )


def _damaged(message: str) -> DiskFailed:
    return DiskFailed(message, hint="`aios fsck` lists what is damaged; restore it from a backup")
