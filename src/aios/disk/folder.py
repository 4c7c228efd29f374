"""A real folder of the machine, and no way out of it.

Every path is walked part by part from a descriptor of the folder, and no part may be a symbolic link, a way up, or lie on another file
system; what stands at its end must be a plain file with one name. Nothing is ever looked up by a whole path, so whoever swaps a
folder for a link while we walk gains nothing: the next step starts from the descriptor of the folder that was checked.

Source: the walk that `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)` does inside Linux, done outside, because containers
with an older filter of system calls refuse that one, and Python has no binding for it.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from aios.errors import AccessDenied, Conflict, DiskFailed, NotFound

DRAFT_PREFIX = b".~aios-"
"""Files on their way; who lists a folder does not see them, and those that a crash left are removed."""
DRAFT_BYTES = len(DRAFT_PREFIX) + 16
READ_BYTES = 1 << 20
A_LINK = "a symbolic link"

_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW
_OPEN_FOLDER = _OPEN | os.O_DIRECTORY | os.O_RDONLY
_OPEN_PLACE = _OPEN | os.O_DIRECTORY | os.O_PATH

_NOT_PLAIN = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.ENODEV}
"""What `open` says of a link, of what is no folder, and of pipes, sockets and devices."""

Parts = Sequence[bytes]
"""Names from the folder down, as the file system has them."""


class Stamp(Struct, frozen=True):
    """What tells that a file was changed: another file, another length, or another time. Times in nanoseconds."""

    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    """0: it was read so soon after a change that another one could have the same time."""

    def fits(self, now: "Stamp | None") -> bool:
        """Whether `now` may be the stamp of the same content."""
        if now is None:
            return False
        return now == (replace(self, ctime_ns=now.ctime_ns) if not self.ctime_ns else self)


class Kind(Enum):
    """What a name in a folder is."""

    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"  # a link, a device, a pipe, a socket, a file with several names, another file system


class Item(Struct, frozen=True):
    """A name in a folder; `stamp` is that of a plain file, `why` says what is wrong with another thing."""

    name: bytes
    kind: Kind
    stamp: Stamp | None = None
    why: str = ""


class Folder:
    """A real folder, held open. It stays the same one when somebody renames it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        self._device = found.st_dev
        self.inode = found.st_ino

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a folder by its real path. A link on the way was put there later, perhaps by a program that may not go where it leads.

        Raises:
            NotFound: There is no folder, or a link on the way.
            AccessDenied: It may not be entered.
        """
        here = Path("/")
        try:
            place = os.open(here, _OPEN_PLACE)
            try:
                for part in path.parts[1:]:
                    here /= part
                    below = os.open(part, _OPEN_PLACE, dir_fd=place)
                    os.close(place)
                    place = below
                return cls(os.open(".", _OPEN_FOLDER, dir_fd=place))
            finally:
                os.close(place)
        except PermissionError as error:
            raise AccessDenied(
                f"{path} may not be entered", hint="allow it, or mount another"
            ) from error
        except OSError as error:
            if here.is_symlink():
                raise NotFound(
                    f"{here} is a symbolic link now: put the folder back, or name the one that it leads to",
                    hint="`aios fs umount` and `aios fs mount` take another folder",
                ) from error
            raise NotFound(
                f"{path} is no folder: {error.strerror}", hint="name a folder that is there"
            ) from error

    def close(self) -> None:
        """Let go of it; twice is nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def is_removed(self) -> bool:
        """Whether the folder itself was removed; what is in it then says nothing."""
        return os.fstat(self._descriptor).st_nlink == 0

    def is_at(self, path: Path) -> bool:
        """Whether a path leads to this very folder."""
        try:
            found = path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (self._device, self.inode)

    @contextmanager
    def inside(self, parts: Parts, *, makes: bool = False) -> Iterator[int]:
        """A descriptor of a folder below, closed with the block; with `makes` those that are missing are made.

        Raises:
            NotFound: There is none.
            AccessDenied: A part is a link or no folder, or lies on another file system.
            DiskFailed: The machine does not let us look, so what is there is not known.
        """
        try:
            here = os.dup(self._descriptor)
        except OSError as error:
            raise _hidden(b".", error) from error
        try:
            for part in parts:
                below = self._step(here, part, makes=makes)
                os.close(here)
                here = below
            yield here
        finally:
            os.close(here)

    def find(self, parts: Parts) -> Item | None:
        """What stands at a path, without following it; None if nothing does.

        Raises:
            AccessDenied, DiskFailed: As `inside`.
        """
        try:
            with self.inside(parts[:-1]) as folder:
                return self._item(folder, parts[-1])
        except NotFound:
            return None

    def items(self, parts: Parts) -> list[Item]:
        """What is in a folder. Cost: 3 us a name.

        Raises:
            NotFound, AccessDenied, DiskFailed: As `inside`.
        """
        with self.inside(parts) as folder:
            names = _names(folder)
            found = [self._item(folder, name) for name in names if not is_draft(name)]
        return [item for item in found if item is not None]

    @contextmanager
    def open_file(self, parts: Parts) -> Iterator[tuple[int, Stamp]]:
        """A descriptor to read a plain file, and its stamp at that moment.

        Raises:
            NotFound: There is none.
            AccessDenied: It is no plain file with one name.
            DiskFailed: The machine does not let us read it.
        """
        with self.inside(parts[:-1]) as folder:
            item = self._item(folder, parts[-1])
            if item is None:
                raise _missing(parts[-1])
            if item.kind is not Kind.FILE:
                raise _no_plain_file(parts[-1], item.why)
            # A pipe put here since the look cannot hold us: O_NONBLOCK; and it is looked at again, by its descriptor.
            descriptor = _opened(
                parts[-1], _OPEN | os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, folder
            )
        try:
            found = os.fstat(descriptor)
            if why := self._why_not_plain(found):
                raise _no_plain_file(parts[-1], why)
            yield descriptor, _stamp(found)
        finally:
            os.close(descriptor)

    def replace(self, parts: Parts, pieces: Iterable[bytes], expected: Stamp | None) -> Stamp:
        """Give a path this content: it has the old one or the new one at every moment, and the new one is on disk at the end.

        Args:
            parts: The path; folders on the way are made.
            pieces: The content.
            expected: The file that is there; None if none is.

        Returns: The stamp of the new file, which keeps the mode of the old one.

        Raises:
            Conflict: Something else is there.
            AccessDenied, DiskFailed: As `inside`.
            OSError: The folder may not be written to, or the disk is full or fails.
        """
        with self.inside(parts[:-1], makes=True) as folder:
            self._check_expected(folder, parts[-1], expected)
            draft = DRAFT_PREFIX + secrets.token_hex(8).encode()
            flags = _OPEN | os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = os.open(draft, flags, 0o666, dir_fd=folder)
            with ExitStack() as files, ExitStack() as undo:
                files.callback(os.close, descriptor)
                undo.callback(_unlink, draft, folder)
                for piece in pieces:
                    _write_all(descriptor, piece)
                if expected is not None:
                    mode = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode
                    os.fchmod(descriptor, stat.S_IMODE(mode) & 0o777)
                os.fsync(descriptor)
                self._check_expected(folder, parts[-1], expected)
                os.rename(draft, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
                stamp = _stamp(os.fstat(descriptor))
                undo.pop_all()
            os.fsync(folder)
        return stamp

    def remove(self, parts: Parts, expected: Stamp) -> None:
        """Remove a file, and the folders that hold nothing any more without it; on disk at the end.

        Raises:
            Conflict: Something else is there.
            AccessDenied, OSError: As `replace`.
        """
        with self.inside(parts[:-1]) as folder:
            self._check_expected(folder, parts[-1], expected)
            os.unlink(parts[-1], dir_fd=folder)
            os.fsync(folder)
        for depth in range(len(parts) - 1, 0, -1):
            with self.inside(parts[: depth - 1]) as above:
                try:
                    os.rmdir(parts[depth - 1], dir_fd=above)
                except OSError:
                    return
                os.fsync(above)

    def remove_drafts(self, parts: Parts) -> int:
        """Remove what a crash has left in a folder; returns how many."""
        with self.inside(parts) as folder:
            drafts = [name for name in _names(folder) if is_draft(name)]
            for name in drafts:
                _unlink(name, folder)
        return len(drafts)

    def _step(self, here: int, part: bytes, *, makes: bool) -> int:
        _check_part(part)
        if makes:
            with suppress(FileExistsError):
                os.mkdir(part, 0o777, dir_fd=here)
                os.fsync(here)
        below = _opened(part, _OPEN_FOLDER, here)
        if os.fstat(below).st_dev != self._device:
            os.close(below)
            raise _no_plain_file(part, "another file system")
        return below

    def _item(self, folder: int, name: bytes) -> Item | None:
        _check_part(name)
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _hidden(name, error) from error
        if stat.S_ISDIR(found.st_mode) and found.st_dev == self._device:
            return Item(name, Kind.FOLDER)
        if why := self._why_not_plain(found):
            return Item(name, Kind.OTHER, why=why)
        return Item(name, Kind.FILE, _stamp(found))

    def _why_not_plain(self, found: os.stat_result) -> str:
        if found.st_dev != self._device:
            return "another file system"
        if stat.S_ISLNK(found.st_mode):
            return A_LINK
        if not stat.S_ISREG(found.st_mode):
            return "a device, a pipe or a socket"
        # Another name of it may be outside, where whoever may write here has no business.
        return f"a file with {found.st_nlink} names" if found.st_nlink > 1 else ""

    def _check_expected(self, folder: int, name: bytes, expected: Stamp | None) -> None:
        item = self._item(folder, name)
        if item is not None and item.kind is not Kind.FILE:
            raise _no_plain_file(name, item.why or "a folder")
        now = item.stamp if item else None
        if now is not expected and not (expected is not None and expected.fits(now)):
            raise Conflict(
                f"{os.fsdecode(name)!r} was changed by another program meanwhile",
                hint="read it again and decide anew",
            )


def read_pieces(descriptor: int) -> Iterator[bytes]:
    """The content of an open file, at most 1 MiB at a time."""
    while piece := os.read(descriptor, READ_BYTES):
        yield piece


def read_exactly(descriptor: int, n_bytes: int) -> bytes:
    """The next bytes of an open file; fewer only at its end."""
    parts: list[bytes] = []
    while n_bytes and (piece := os.read(descriptor, n_bytes)):
        parts.append(piece)
        n_bytes -= len(piece)
    return b"".join(parts)


def stamp_of(descriptor: int) -> Stamp:
    """The stamp of an open file now."""
    return _stamp(os.fstat(descriptor))


def is_draft(name: bytes) -> bool:
    """Whether a name is one that `replace` gives to a file on its way."""
    return name.startswith(DRAFT_PREFIX) and len(name) == DRAFT_BYTES


def _names(folder: int) -> list[bytes]:
    try:
        with os.scandir(folder) as entries:
            return [os.fsencode(entry.name) for entry in entries]
    except OSError as error:
        raise _hidden(b".", error) from error


def _check_part(part: bytes) -> None:
    if part in {b"", b".", b".."} or b"/" in part or b"\0" in part:
        raise AccessDenied(f"{part!r} is no name in a folder", hint="name a file below the folder")


def _opened(name: bytes, flags: int, folder: int) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError as error:
        raise _missing(name) from error
    except OSError as error:
        if error.errno in _NOT_PLAIN:
            raise _no_plain_file(name, error.strerror or "") from error
        raise _hidden(name, error) from error


def _unlink(name: bytes, folder: int) -> None:
    """Remove a file that may not be there."""
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _missing(name: bytes) -> NotFound:
    return NotFound(f"no {os.fsdecode(name)!r} in the folder", hint="look at what is there")


def _hidden(name: bytes, error: OSError) -> DiskFailed:
    return DiskFailed(
        f"{os.fsdecode(name)!r} in the folder cannot be looked at: {error.strerror}",
        hint="allow it outside, or see whether its disk is there",
    )


def _no_plain_file(name: bytes, why: str) -> AccessDenied:
    return AccessDenied(
        f"{os.fsdecode(name)!r} is no plain file or folder: {why}",
        hint="links, devices, pipes, files with several names and other file systems are left alone",
    )
