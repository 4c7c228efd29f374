"""Named snapshots of contexts on disk: one file each, which appears whole or not at all, and is checked when it is read.

    magic 8 | blake2b-128 of the rest | length of the head u32 | head (SnapshotInfo) | body (Saved)

The text is what counts: a context that is restored goes on from its messages. Its pages of KV rows are pinned under
`pin_name` as long as the snapshot is there, by whoever writes it. Every method waits for the disk; call them in a thread.
"""

import os
import secrets
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import msgspec
from msgspec import Struct

from aios.abi.contexts import SnapshotInfo, WindowPolicy
from aios.abi.types import ToolSpec
from aios.errors import Conflict, DiskFailed, NotFound, ResourceExhausted, SnapshotIncompatible
from aios.kernel.context.pins import sync_folder
from aios.kernel.context.transcript import Transcript, check_invariants
from aios.readers import from_msgpack

MAGIC = b"AIOSCTX1"
CHECK_BYTES = 16
HEAD_START = len(MAGIC) + CHECK_BYTES + 4
MAX_HEAD_BYTES = 1 << 16
SUFFIX = ".context"
BESIDE = ".new"
"""The suffix of a file that is being written."""
PIN = "snapshot:"
"""Before the names of pins."""


class Saved(Struct, frozen=True):
    """All that a context is made of; `pages` are the names of its KV rows."""

    tools: tuple[ToolSpec, ...]
    window: WindowPolicy
    transcript: Transcript
    n_tokens: int
    pages: tuple[bytes, ...] = ()
    taint: str = ""
    """Where data in it came from outside, empty if none did."""


class Snapshots:
    """The snapshots of all owners, each in a folder of its own.

    Args:
        folder: Made when the first snapshot is written.
        max_snapshots: How many an owner may have.
    """

    def __init__(self, folder: Path, max_snapshots: int) -> None:
        self._folder = folder
        self._max_snapshots = max_snapshots

    def write(self, info: SnapshotInfo, saved: Saved, *, is_replacing: bool) -> SnapshotInfo:
        """Keep a snapshot; on return it survives a crash. Returns: its row, with its size.

        One that is there already with the same text is left: a kernel that was killed may have written it and told nobody.

        Raises:
            Conflict: The name is taken by another text, and it is not to be replaced.
            ResourceExhausted: The owner has as many as it may, or the disk is full.
        """
        path = self._path(info.owner, info.name)
        if not is_replacing and path.exists():
            return self._same(info, saved)
        n_others = sum(1 for each in self._files(info.owner) if each != path)
        if n_others >= self._max_snapshots:
            raise ResourceExhausted(
                f"{info.owner} has {n_others} snapshots, the limit is {self._max_snapshots}",
                hint="remove some (`aios ctx rm --snapshot NAME`) or raise context.max_snapshots",
            )
        body = msgspec.msgpack.encode(saved)
        info = msgspec.structs.replace(info, size_bytes=len(body))
        head = msgspec.msgpack.encode(info)
        rest = len(head).to_bytes(4, "little") + head + body
        try:
            _write_whole(path, MAGIC + _check(rest) + rest, is_replacing=is_replacing)
        except FileExistsError:
            return self._same(info, saved)
        except OSError as error:
            raise ResourceExhausted(
                f"snapshot {info.name!r} cannot be written: {error.strerror}",
                hint=f"make room in {self._folder}",
            ) from error
        return info

    def _same(self, info: SnapshotInfo, saved: Saved) -> SnapshotInfo:
        """The row of a snapshot that is there already.

        Raises:
            Conflict: It is of another text or model, or damaged.
        """
        try:
            found, there = self.read(info.owner, info.name)
        except (NotFound, SnapshotIncompatible) as error:
            raise _taken(info.name) from error
        is_same = (there.transcript, there.tools) == (saved.transcript, saved.tools)
        if not is_same or (found.model, found.fingerprint) != (info.model, info.fingerprint):
            raise _taken(info.name)
        return found

    def read(self, owner: str, name: str) -> tuple[SnapshotInfo, Saved]:
        """A snapshot and its row.

        Raises:
            NotFound: The owner has none of that name.
            SnapshotIncompatible: It is damaged, or another version of AIOS wrote it.
            DiskFailed: The disk does not give it.
        """
        try:
            data = self._path(owner, name).read_bytes()
        except FileNotFoundError:
            raise _missing(name) from None
        except OSError as error:
            raise DiskFailed(
                f"snapshot {name!r} cannot be read: {error.strerror}",
                hint="see whether its disk is there, and allow AIOS to read it",
            ) from error
        check, rest = data[len(MAGIC) : HEAD_START - 4], data[HEAD_START - 4 :]
        if not data.startswith(MAGIC) or check != _check(rest):
            raise SnapshotIncompatible(
                f"snapshot {name!r} is damaged, or of another version of AIOS",
                hint="what it holds cannot be trusted; remove it",
            )
        n_head = int.from_bytes(rest[:4], "little")
        try:
            info = from_msgpack(rest[4 : 4 + n_head], SnapshotInfo)
            saved = from_msgpack(rest[4 + n_head :], Saved)
            check_invariants(saved.transcript.items)
        except (msgspec.DecodeError, AssertionError) as error:
            raise SnapshotIncompatible(
                f"snapshot {name!r} is of another version of AIOS: {error}",
                hint="restore it with the version that wrote it",
            ) from error
        return info, saved

    def pin_name(self, owner: str, name: str) -> str:
        """What the pages of a snapshot are pinned under."""
        path = self._path(owner, name)
        return f"{PIN}{path.parent.name}/{path.stem}"

    def is_wanted(self, pin: str) -> bool:
        """Whether a pin is none of a snapshot's, or of one that is still there."""
        kept = pin.removeprefix(PIN)
        return kept == pin or (self._folder / f"{kept}{SUFFIX}").is_file()

    def sweep(self) -> int:
        """Remove what a kernel that was killed left half-written. Returns: how many files; only while nobody writes."""
        strays = list(self._folder.glob(f"*/.*{BESIDE}"))
        for stray in strays:
            stray.unlink(missing_ok=True)
        return len(strays)

    def list_all(self, owner: str) -> list[SnapshotInfo]:
        """The snapshots of an owner by name; reads their heads only, and passes over what it cannot read."""
        found = (_head(path) for path in self._files(owner))
        return sorted((info for info in found if info is not None), key=lambda info: info.name)

    def check_there(self, owner: str, name: str) -> None:
        """Return if there is a snapshot of that name.

        Raises:
            NotFound: The owner has none.
        """
        if not self._path(owner, name).is_file():
            raise _missing(name)

    def remove(self, owner: str, name: str) -> None:
        """Forget a snapshot.

        Raises:
            NotFound: The owner has none of that name.
            DiskFailed: The disk keeps it.
        """
        path = self._path(owner, name)
        try:
            path.unlink()
            sync_folder(path.parent)
        except FileNotFoundError:
            raise _missing(name) from None
        except OSError as error:
            raise DiskFailed(
                f"snapshot {name!r} cannot be removed: {error.strerror}",
                hint="see whether its disk is there, and allow AIOS to write to it",
            ) from error

    def _files(self, owner: str) -> Iterator[Path]:
        return self._owned(owner).glob(f"*{SUFFIX}")

    def _owned(self, owner: str) -> Path:
        # The owner of a guest is whatever name it was given: a digest is a plain name for a folder.
        return self._folder / blake2b(owner.encode(), digest_size=8).hexdigest()

    def _path(self, owner: str, name: str) -> Path:
        return self._owned(owner) / f"{name}{SUFFIX}"


def _write_whole(path: Path, data: bytes, *, is_replacing: bool) -> None:
    """Write a file such that a crash leaves the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{BESIDE}")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if is_replacing:
            beside.replace(path)
        else:
            path.hardlink_to(beside)  # fails if the name is taken, whoever took it meanwhile
        sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _head(path: Path) -> SnapshotInfo | None:
    """The row of a snapshot; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(HEAD_START)
            n_head = int.from_bytes(start[-4:], "little")
            if not start.startswith(MAGIC) or n_head > MAX_HEAD_BYTES:
                return None
            return from_msgpack(file.read(n_head), SnapshotInfo)
    except (OSError, msgspec.DecodeError):
        return None


def _check(rest: bytes) -> bytes:
    return blake2b(rest, digest_size=CHECK_BYTES).digest()


def _taken(name: str) -> Conflict:
    return Conflict(
        f"there is a snapshot {name!r} already", hint="choose another name, or replace it"
    )


def _missing(name: str) -> NotFound:
    return NotFound(f"no snapshot {name!r}", hint="`aios ctx ls --snapshots`")
