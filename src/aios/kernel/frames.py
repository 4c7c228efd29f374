"""The frames between a call and its reader."""

from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, Protocol, TypeVar

from aios.abi.call import Answer
from aios.abi.gate import Advance, Change, Line, Progress, Result, Token
from aios.errors import AiosError
from aios.kernel.waitqueue import WaitQueue

MAX_UNREAD_BYTES = 256 << 10
"""Of lines and changes in one call's buffer, from which on it is full."""
FRAME_BYTES = 500
"""Of memory that a frame takes beside its texts."""

A = TypeVar("A", bound=Answer)


class Emit(Protocol):
    """Takes the progress frames of a call."""

    @property
    def is_full(self) -> bool:
        """Whether so much is unread that who has many lines or changes should wait."""
        ...

    def __call__(self, frame: Progress) -> None:
        """Take a frame; never waits."""
        ...

    async def wait_room(self) -> None:
        """Wait until it is full no longer."""
        ...


class FrameBuffer(Generic[A]):
    """Frames between a call and its reader. Implements `Emit`.

    Tokens that nobody has read yet come as one frame, and memory is bounded by the generation itself. Lines and changes are bounded by
    who emits them: it waits while the buffer is full. Of advances the newest counts.
    """

    def __init__(self) -> None:
        self._pending: deque[Progress] = deque()
        self._unread_bytes = 0
        self._end: Result[A] | AiosError | None = None
        self._changed = WaitQueue()
        self._read = WaitQueue()

    @property
    def is_full(self) -> bool:
        """As `Emit` says."""
        return self._unread_bytes > MAX_UNREAD_BYTES

    def __call__(self, frame: Progress) -> None:
        """Add a frame; never waits."""
        if isinstance(frame, Advance) and self._pending and isinstance(self._pending[-1], Advance):
            self._pending.pop()
        self._pending.append(frame)
        self._unread_bytes += _weight(frame)
        self._changed.wake_all()

    async def wait_room(self) -> None:
        """As `Emit` says."""
        while self.is_full:
            await self._read.wait()

    def finish(self, end: Result[A] | AiosError) -> None:
        """The call has ended; only the first end counts."""
        if self._end is None:
            self._end = end
            self._changed.wake_all()

    def __aiter__(self) -> AsyncIterator[Progress]:
        return self

    async def __anext__(self) -> Progress:
        while not self._pending:
            if isinstance(self._end, AiosError):
                raise self._end
            if self._end is not None:
                raise StopAsyncIteration
            await self._changed.wait()
        frame = self._pending.popleft()
        if isinstance(frame, Token):
            return self._merged(frame)
        self._unread_bytes -= _weight(frame)
        self._read.wake_all()
        return frame

    def _merged(self, first: Token) -> Token:
        """One token frame of all that come next, at a cost linear in what there is."""
        tokens = [first]
        while self._pending and isinstance(self._pending[0], Token):
            tokens.append(self._pending.popleft())  # type: ignore[arg-type]  # it was looked at
        if len(tokens) == 1:
            return first
        return Token(
            "".join(token.text for token in tokens),
            sum(token.n_tokens for token in tokens),
            tuple(row for token in tokens for row in token.logprobs),
            tuple(call for token in tokens for call in token.tool_calls),
        )

    async def result(self) -> Result[A]:
        """Skip what was not read; return or raise the end."""
        while self._end is None:
            self._pending.clear()
            self._unread_bytes = 0
            self._read.wake_all()
            await self._changed.wait()
        if isinstance(self._end, AiosError):
            raise self._end
        return self._end


def _weight(frame: Progress) -> int:
    """What a line or a change takes of memory, in bytes; 0 for what is bounded otherwise."""
    match frame:
        case Line():
            return FRAME_BYTES + _size(frame.line.text)
        case Change():
            version = frame.version
            texts = (version.path, version.author, version.message, version.taint)
            return FRAME_BYTES + sum(map(_size, texts))
        case _:
            return 0


def _size(text: str) -> int:
    """At most what a text takes, and the same for as long as it lives: `getsizeof` grows when somebody encodes it."""
    return len(text) * (1 if text.isascii() else 8)
