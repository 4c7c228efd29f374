"""The log of a process: a bounded ring of lines that readers can follow."""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aios.abi.types import LogLine, Pid
from aios.kernel.waitqueue import WaitQueue

LINE_OVERHEAD_BYTES = 120
MAX_LINE_CHARS = 16_384


Keep = Callable[[int, LogLine], None]
"""Told the number of each line, and the line."""
Earlier = Callable[[Pid, int, int], Awaitable[list[tuple[int, LogLine]]]]
"""Reads lines of a process from one number to before another, with their numbers, where they were kept."""


@dataclass
class LogBuffer:
    """The last `max_bytes` of what a process wrote; the oldest lines are dropped and counted.

    Lines are numbered from 0 for the life of the process, so a reader knows what it missed. `keep` is told of each, and `earlier` reads
    those that are not in memory: the first `n_dropped` of a process of the kernel before, say.
    """

    pid: Pid
    max_bytes: int
    lines: deque[LogLine] = field(default_factory=deque)
    n_dropped: int = 0
    size_bytes: int = 0
    is_closed: bool = False
    keep: Keep | None = None
    earlier: Earlier | None = None
    _changed: WaitQueue = field(default_factory=WaitQueue)

    def write(self, text: str, *, stream: str, unix_s: float) -> None:
        """Add the lines of a text; a line over `MAX_LINE_CHARS` is cut into several."""
        for line in text.splitlines() or [""]:
            for start in range(0, max(len(line), 1), MAX_LINE_CHARS):
                number = self.n_dropped + len(self.lines)
                part = line[start : start + MAX_LINE_CHARS]
                self._append(LogLine(self.pid, unix_s, stream, part, number))
        self._changed.wake_all()

    def read(self, number: int, limit: int | None = None) -> tuple[list[LogLine], int, int]:
        """Lines from that number on, at most `limit`.

        Returns: The lines, the number after the last one, and how many before the first are gone.
        """
        n_missed = max(0, self.n_dropped - number)
        start = max(number, self.n_dropped) - self.n_dropped
        end = len(self.lines) if limit is None else min(len(self.lines), start + limit)
        found = [self.lines[i] for i in range(start, end)]
        return found, self.n_dropped + max(start, end), n_missed

    async def read_earlier(self, number: int) -> tuple[list[LogLine], int, int]:
        """Lines from that number on that are in memory no more.

        Returns: The lines, the number after the last one, and how many before the first are gone.
        """
        end = self.n_dropped
        if self.earlier is None or number >= end:
            return [], number, 0
        found = await self.earlier(self.pid, number, end)
        if not found:
            return [], number, 0
        return [line for _, line in found], found[-1][0] + 1, found[0][0] - number

    def tail(self, n_lines: int | None) -> int:
        """The number at which to start for the last `n_lines` lines; None starts at 0."""
        return 0 if n_lines is None else max(0, self.n_dropped + len(self.lines) - n_lines)

    def close(self) -> None:
        """No more lines will come; followers are woken to end."""
        self.is_closed = True
        self._changed.wake_all()

    async def wait_changed(self) -> None:
        """Wait for a line or for the end."""
        await self._changed.wait()

    def _append(self, line: LogLine) -> None:
        if self.keep is not None:
            self.keep(line.number, line)
        self.lines.append(line)
        self.size_bytes += len(line.text) + LINE_OVERHEAD_BYTES
        while self.size_bytes > self.max_bytes and len(self.lines) > 1:
            self.size_bytes -= len(self.lines.popleft().text) + LINE_OVERHEAD_BYTES
            self.n_dropped += 1
