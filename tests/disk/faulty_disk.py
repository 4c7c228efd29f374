"""A VFS that remembers what was synced, and can say what the disk might hold if the power failed now."""

import random
from pathlib import Path
from threading import Lock

import apsw

SECTOR_BYTES = 512

Write = tuple[int, bytes | None]
"""An offset and the bytes written there; None cuts the file there."""


class FileState:
    """What is surely on disk, and the writes since, of which any part may be."""

    def __init__(self, synced: bytes) -> None:
        self.synced = synced
        self.pending: list[Write] = []

    def sync(self) -> None:
        content = bytearray(self.synced)
        for write in self.pending:
            apply(content, write)
        self.synced, self.pending = bytes(content), []

    def after_crash(self, draw: random.Random) -> bytes:
        """The synced content with a random part of the pending writes, some of them torn between sectors."""
        content = bytearray(self.synced)
        for offset, data in self.pending:
            fate = draw.random()
            if data is None or fate < 0.4:
                if fate < 0.4:
                    apply(content, (offset, data))
            elif fate < 0.7:
                n_sectors = max(1, len(data) // SECTOR_BYTES)
                apply(content, (offset, data[: SECTOR_BYTES * draw.randrange(n_sectors)]))
        return bytes(content)


def apply(content: bytearray, write: Write) -> None:
    offset, data = write
    if data is None:
        del content[offset:]
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


class FaultyDisk(apsw.VFS):
    """Writes go through to the real files; beside that it keeps the state of each."""

    def __init__(self, name: str) -> None:
        self.files: dict[str, FileState] = {}
        self.guard = Lock()
        self.n_writes = 0
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return FaultyFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        with self.guard:
            self.files.pop(filename, None)
        super().xDelete(filename, syncdir)

    def power_fails(self, folder: Path, seed: int) -> None:
        """Write into `folder` what the disk might hold after a crash at this moment."""
        draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
        folder.mkdir()
        with self.guard:
            for name, state in self.files.items():
                (folder / Path(name).name).write_bytes(state.after_crash(draw))


class FaultyFile(apsw.VFSFile):
    def __init__(
        self, disk: FaultyDisk, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        content = Path(path).read_bytes() if path and Path(path).exists() else b""
        super().__init__("", name, flags)
        self._disk = disk
        with disk.guard:
            self._state = disk.files.setdefault(path, FileState(content)) if path else None

    def _note(self, write: Write) -> None:
        with self._disk.guard:
            self._disk.n_writes += 1
            if self._state is not None:
                self._state.pending.append(write)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._note((offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._note((newsize, None))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        with self._disk.guard:
            if self._state is not None:
                self._state.sync()
