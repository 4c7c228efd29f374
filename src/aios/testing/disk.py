"""A disk below SQLite that fails as asked, and can say what it might hold if the power failed now.

It remembers of each file what was synced, and the writes since. After a loss of power any of those may be there, gone, or torn
between two sectors, in any combination: so they are dropped, torn and reordered.
"""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Literal

import apsw

BASE = "unix"
"""The VFS below: by its name, for the default one may be this."""
SECTOR_BYTES = 512
KEPT, TORN = 0.4, 0.7
"""Shares, added up, of unsynced writes that are there after a crash, and of those that are there in part."""

Write = tuple[int, bytes | None]
"""An offset and the bytes written there; None cuts the file there."""
Kind = Literal["write", "truncate", "sync"]
BeforeWrite = Callable[[Kind, str, int, int], None]
"""Told the kind, the file's name, offset and length; raises what the disk is to answer instead of doing it."""


class FileState:
    """What is surely on disk, and the writes since, of which any part may be."""

    def __init__(self, synced: bytes) -> None:
        self.synced = bytearray(synced)
        self.pending: list[Write] = []
        self.n_open = 0

    def sync(self) -> None:
        """All that was written is there for good."""
        for write in self.pending:
            apply(self.synced, write)
        self.pending.clear()

    def after_crash(self, draw: random.Random) -> bytes:
        """The synced content with a random part of the pending writes, some of them torn between sectors."""
        content = self.synced.copy()
        for offset, data in self.pending:
            fate = draw.random()
            if fate < KEPT:
                apply(content, (offset, data))
            elif fate < TORN and data is not None:
                n_sectors = max(1, len(data) // SECTOR_BYTES)
                apply(content, (offset, data[: SECTOR_BYTES * draw.randrange(n_sectors)]))
        return bytes(content)


def apply(content: bytearray, write: Write) -> None:
    """Do a write to a content."""
    offset, data = write
    if data is None:
        del content[offset:]
        return
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class FaultyDisk(apsw.VFS):
    """Writes go through to the real files; beside that it keeps the state of each.

    Args:
        name: Under which connections ask for it.
        before: Asked before each write and sync; for counting, failing, and crashing in between.
        is_default: Every new connection gets it, also where none is named.
    """

    def __init__(
        self, name: str, *, before: BeforeWrite | None = None, is_default: bool = False
    ) -> None:
        self.files: dict[str, FileState] = {}
        self.guard = Lock()
        self.before = before
        self.n_writes = 0
        super().__init__(name, BASE, is_default)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return FaultyFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        with self.guard:
            self.files.pop(filename, None)
        super().xDelete(filename, syncdir)

    def contents(self, draw: random.Random, folder: Path) -> Mapping[Path, bytes]:
        """What each file of a folder that was opened might hold after a crash at this moment."""
        with self.guard:
            return {
                Path(path): state.after_crash(draw)
                for path, state in self.files.items()
                if Path(path).parent == folder
            }

    def power_fails(self, folder: Path, *, into: Path, seed: int) -> None:
        """Write into a folder what another might hold after a crash at this moment."""
        into.mkdir()
        draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
        for path, content in self.contents(draw, folder).items():
            (into / path.name).write_bytes(content)


class FaultyFile(apsw.VFSFile):
    """One open file; all of the same path share what is known of it."""

    def __init__(
        self, disk: FaultyDisk, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        content = Path(path).read_bytes() if path and Path(path).exists() else b""
        super().__init__(BASE, name, flags)
        self._disk = disk
        self._name = Path(path).name if path else ""
        with disk.guard:
            known = disk.files.get(path) if path else None
            if known is not None and not known.n_open and not content:
                known = None  # it was deleted by others, and is made anew
            self._state = known or (FileState(content) if path else None)
            if self._state is not None and path:
                disk.files[path] = self._state
                self._state.n_open += 1

    def _ask(self, kind: Kind, offset: int, size: int) -> None:
        if self._disk.before is not None:
            self._disk.before(kind, self._name, offset, size)

    def _note(self, write: Write) -> None:
        with self._disk.guard:
            self._disk.n_writes += 1
            if self._state is not None:
                self._state.pending.append(write)

    def xClose(self) -> None:
        super().xClose()
        with self._disk.guard:
            if self._state is not None:
                self._state.n_open -= 1

    def xWrite(self, data: bytes, offset: int) -> None:
        self._ask("write", offset, len(data))
        self._note((offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._ask("truncate", newsize, 0)
        self._note((newsize, None))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        self._ask("sync", 0, 0)
        super().xSync(flags)
        with self._disk.guard:
            if self._state is not None:
                self._state.sync()
