"""Frames of one call on their way from a connection to a reader that may be slow. Pure."""

from collections import deque
from dataclasses import dataclass, field

from aios.abi.gate import Advance, Change, Line, Progress, Token, after_missed
from aios.abi.types import TokenLogprob, ToolCall

MAX_SEPARATE_FRAMES = 1_000
"""Tokens that wait as frames of their own; later ones merge."""
MAX_LINE_BYTES = 8 << 20
"""Lines that wait; eight times what a process's log holds by default."""
LINE_OVERHEAD_BYTES = 200


@dataclass(eq=False)
class _Merging:
    """Tokens that become one frame."""

    text: list[str] = field(default_factory=list)
    n_tokens: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)

    def add(self, token: Token) -> None:
        self.text.append(token.text)
        self.n_tokens += token.n_tokens
        self.logprobs += token.logprobs
        self.tool_calls += token.tool_calls

    def token(self) -> Token:
        text = "".join(self.text)
        return Token(text, self.n_tokens, tuple(self.logprobs), tuple(self.tool_calls))


class FrameQueue:
    """Holds frames until they are taken; `put` never waits and memory stays bounded.

    A reader that falls behind gets larger tokens (nothing is dropped), fewer lines and changes (the oldest go, and the next one
    tells how many), and the newest advance.
    """

    def __init__(self) -> None:
        self._frames: deque[Progress] = deque()
        self._merging: _Merging | None = None
        self._n_missed = 0
        self._line_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._frames) or self._merging is not None

    def put(self, frame: Progress) -> None:
        """Add a frame."""
        if isinstance(frame, Line | Change):
            self._put_line(frame)
        elif isinstance(frame, Advance):
            if self._frames and isinstance(self._frames[-1], Advance):
                self._frames.pop()
            self._frames.append(frame)
        elif self._merging is not None or len(self._frames) >= MAX_SEPARATE_FRAMES:
            self._merging = self._merging or _Merging()
            self._merging.add(frame)
        else:
            self._frames.append(frame)

    def take(self) -> Progress | None:
        """The next frame, or None."""
        if self._frames:
            frame = self._frames.popleft()
            if isinstance(frame, Line | Change):
                self._line_bytes -= _size(frame)
                frame, self._n_missed = after_missed(frame, self._n_missed), 0
            return frame
        if self._merging is not None:
            token, self._merging = self._merging.token(), None
            return token
        return None

    def clear(self) -> None:
        """Forget what was not taken."""
        self._frames.clear()
        self._merging = None
        self._line_bytes = 0

    def _put_line(self, line: Line | Change) -> None:
        self._frames.append(line)
        self._line_bytes += _size(line)
        while self._line_bytes > MAX_LINE_BYTES and isinstance(self._frames[0], Line | Change):
            oldest = self._frames.popleft()
            assert isinstance(oldest, Line | Change)
            self._line_bytes -= _size(oldest)
            self._n_missed += 1 + oldest.n_missed


def _size(frame: Line | Change) -> int:
    text = frame.line.text if isinstance(frame, Line) else frame.version.path
    return len(text) + LINE_OVERHEAD_BYTES
