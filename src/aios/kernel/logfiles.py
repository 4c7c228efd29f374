"""Logs of processes on disk, so that they outlive their kernel as long as the processes are remembered.

Lines are gathered and written soon, in a thread; a kernel that is killed loses those of the last moment. A process has two files at most, each
half as long as its log may be: when the newer one is full it takes the place of the older. Every line has its number, and
one that a crash has torn is passed over. Secrets that are known are not written. What waits for a slow disk is bounded too: a process's oldest
lines go, and a line in their place says how many.
"""

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from aios.abi.types import LogLine, Pid
from aios.kernel.logs import LINE_OVERHEAD_BYTES, LogBuffer
from aios.readers import Reader

WRITE_S = 0.2
TAIL_BYTES = 1 << 17
"""More than any line takes: the last whole one is in so many bytes."""
NEW, OLD = ".log", ".log.1"

Numbered = tuple[int, LogLine]
Hide = Callable[[Pid, str], str]
"""A text of a process without the secrets that are known."""

_encode = msgspec.json.Encoder().encode
_numbered = Reader(msgspec.json.Decoder, tuple[int, LogLine])


@dataclass
class Waiting:
    """The lines of a process that are not written yet."""

    lines: deque[Numbered] = field(default_factory=deque)
    size_bytes: int = 0
    n_dropped: int = 0

    def add(self, number: int, line: LogLine, max_bytes: int) -> None:
        """Add a line; the oldest go when all take more than that."""
        self.lines.append((number, line))
        self.size_bytes += _size(line)
        while self.size_bytes > max_bytes and len(self.lines) > 1:
            self.size_bytes -= _size(self.lines.popleft()[1])
            self.n_dropped += 1

    def all(self) -> list[Numbered]:
        """Them, in order, and before them what is missing."""
        if not self.n_dropped:
            return list(self.lines)
        number, line = self.lines[0]
        told = f"{self.n_dropped} lines are missing here: the disk took them too slowly"
        gap = msgspec.structs.replace(line, stream="kernel", text=told, number=number - 1)
        return [(number - 1, gap), *self.lines]


class LogFiles:
    """The logs in a folder, which is made when the first line is written.

    Args:
        folder: Where.
        max_bytes: The most that the two files of a process take.
        hide: Applied to each line before it is written.
    """

    def __init__(self, folder: Path, max_bytes: int, hide: Hide) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._hide = hide
        self._pending: dict[Pid, Waiting] = defaultdict(Waiting)
        self._forgotten: set[Pid] = set()
        self._begun: set[Pid] = set()
        """Logs that were written to by this kernel: they end with a whole line."""
        self._next: dict[Pid, int] = {}
        self._dirty = anyio.Event()
        self._turn = anyio.Lock()

    def load(self) -> None:
        """Look how far the logs of the kernel before come. Waits for the disk."""
        for path in sorted(self._folder.glob(f"*{NEW}")):
            with suppress(ValueError, OSError):
                lines = _lines_of(path, last_bytes=TAIL_BYTES)
                if lines:
                    self._next[Pid(int(path.name.removesuffix(NEW)))] = lines[-1][0] + 1

    def sweep(self, known: Iterable[Pid]) -> None:
        """Forget the logs of processes that nobody remembers."""
        for pid in set(self._next) - set(known):
            self.forget(pid)

    def open(self, pid: Pid) -> LogBuffer:
        """The log of a process, which goes on where the files end."""
        begun = self._next.get(pid, 0)
        return LogBuffer(pid, self._max_bytes, n_dropped=begun, keep=self.add, earlier=self.read)

    def add(self, number: int, line: LogLine) -> None:
        """Write a line, soon."""
        hidden = msgspec.structs.replace(line, text=self._hide(line.pid, line.text))
        self._pending[line.pid].add(number, hidden, self._max_bytes)
        self._dirty.set()

    def forget(self, pid: Pid) -> None:
        """Remove the log of a process, soon."""
        self._forgotten.add(pid)
        self._dirty.set()

    async def read(self, pid: Pid, first: int, end: int) -> list[Numbered]:
        """The lines of a process from one number to before another, as far as they are there."""
        await self.flush()

        def read() -> list[Numbered]:
            paths = (self._path(pid, suffix) for suffix in (OLD, NEW))
            return [each for path in paths for each in _lines_of(path) if first <= each[0] < end]

        return await anyio.to_thread.run_sync(read)

    async def flush(self) -> None:
        """Return when all lines are written that were added."""
        async with self._turn:
            pending, forgotten = self._taken()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._write, pending, forgotten)

    async def run(self) -> None:
        """See to it that lines are written, until cancelled; then write what is left."""
        try:
            while True:
                await self._dirty.wait()
                await anyio.sleep(WRITE_S)
                self._dirty = anyio.Event()
                await self.flush()
        finally:
            self._write(*self._taken())

    def _taken(self) -> tuple[dict[Pid, list[Numbered]], set[Pid]]:
        pending, self._pending = self._pending, defaultdict(Waiting)
        forgotten, self._forgotten = self._forgotten, set()
        kept = {pid: waiting.all() for pid, waiting in pending.items() if pid not in forgotten}
        return kept, forgotten

    # --- in a thread ---------------------------------------------------------------------------------------------

    def _write(self, pending: dict[Pid, list[Numbered]], forgotten: set[Pid]) -> None:
        """A disk that takes nothing loses lines of logs, and harms nobody else."""
        for pid in forgotten:
            for suffix in (NEW, OLD):
                with suppress(OSError):
                    self._path(pid, suffix).unlink(missing_ok=True)
        for pid, lines in pending.items():
            with suppress(OSError):
                self._append(pid, lines)

    def _append(self, pid: Pid, lines: list[Numbered]) -> None:
        path = self._path(pid, NEW)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size_bytes = os.fstat(file).st_size
            if pid not in self._begun:
                self._begun.add(pid)
                if size_bytes and os.pread(file, 1, size_bytes - 1) != b"\n":
                    os.write(file, b"\n")  # a crash has torn the last line
            for line in lines:
                data = _encode(line) + b"\n"
                if size_bytes and size_bytes + len(data) > self._max_bytes // 2:
                    path.replace(self._path(pid, OLD))
                    os.close(file)
                    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
                    size_bytes = 0
                size_bytes += os.write(file, data)
        finally:
            os.close(file)

    def _path(self, pid: Pid, suffix: str) -> Path:
        return self._folder / f"{pid}{suffix}"


def _size(line: LogLine) -> int:
    return len(line.text) + LINE_OVERHEAD_BYTES


def _lines_of(path: Path, *, last_bytes: int | None = None) -> list[Numbered]:
    """The whole lines of a file, or of its end."""
    try:
        with path.open("rb") as file:
            if last_bytes is not None:
                file.seek(max(0, path.stat().st_size - last_bytes))
            rows = file.read().splitlines()
    except FileNotFoundError:
        return []
    found: list[Numbered] = []
    for row in rows:
        with suppress(msgspec.DecodeError):
            number, line = _numbered.decode(row)
            if line.number != number:  # an earlier version of AIOS wrote it
                line = msgspec.structs.replace(line, number=number)
            found.append((number, line))
    return found
