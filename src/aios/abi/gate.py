"""The one door into the kernel, and the frames that come back through it.

Every way in (in-process, Unix socket, HTTP) is a `Gate`. A call comes back as any number of `Token`, `Line`, `Change` or
`Advance` frames and then exactly one `Result` or `Fault`. Leaving `open_call` early cancels the call.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from typing import Generic, Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from aios.abi.call import Answer, Call
from aios.abi.types import FileVersion, LogLine, TokenLogprob, ToolCall
from aios.errors import AiosError, KernelBug, error_classes

A = TypeVar("A", bound=Answer)

current_job: ContextVar[int] = ContextVar("current_job", default=0)
"""The number of the call of a tool (`ToolJob.id`) that the caller is running here, 0 for none; gates tell it with each call."""


@contextmanager
def in_course_of(job: int) -> Iterator[None]:
    """All calls in the block, also of threads and tasks begun in it, are made for the sake of that call of a tool."""
    before = current_job.set(job)
    try:
        yield
    finally:
        current_job.reset(before)


class Token(Struct, frozen=True, tag="token"):
    """The next piece of a generation. A slow reader gets larger pieces; nothing is dropped.

    `tool_calls` are whole calls: they come once each, when they are complete.
    """

    text: str = ""
    n_tokens: int = 1
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()


class Line(Struct, frozen=True, tag="line"):
    """A line of a log. `n_missed` lines before it are missing because the reader was too slow."""

    line: LogLine
    n_missed: int = 0


class Change(Struct, frozen=True, tag="change"):
    """A file has changed. `n_missed` changes before it were dropped because the reader was too slow: `FileWatch` with the last change that it had gives them."""

    version: FileVersion
    n_missed: int = 0


class Advance(Struct, frozen=True, tag="advance"):
    """How far a long call is; `n_total` None is not known. A slow reader gets the newest only."""

    what: str
    n_done: int
    n_total: int | None = None


class Result(Struct, Generic[A], frozen=True, tag="result"):
    """The call succeeded. `waited_s` was spent in queues, `ran_s` with a turn; `n_urgent` urgent letters wait for the caller."""

    value: A
    waited_s: float = 0.0
    ran_s: float = 0.0
    n_preemptions: int = 0
    n_urgent: int = 0


class Fault(Struct, frozen=True, tag="fault"):
    """The call failed; `code` is one of `aios.errors`."""

    code: str
    message: str
    hint: str = ""
    retry_after_s: float | None = None


Progress = Token | Line | Change | Advance


class Frames(Protocol[A]):
    """The frames of one call, in order."""

    def __aiter__(self) -> AsyncIterator[Progress]:
        """Iterate over the frames before the end; raises the `AiosError` of a `Fault`."""
        ...

    async def result(self) -> Result[A]:
        """Skip what was not read and return the end of the call.

        Raises:
            AiosError: The call ended in a `Fault`.
        """
        ...


class Gate(Protocol):
    """A way into the kernel on behalf of one process."""

    async def call(self, call: Call[A]) -> Result[A]:
        """Make a call and wait for its end; its progress frames are dropped.

        Raises:
            AiosError: The call ended in a `Fault`.
        """
        ...

    def open_call(self, call: Call[A]) -> AbstractAsyncContextManager[Frames[A]]:
        """Make a call and read its frames; leaving the block early cancels the call."""
        ...


def after_missed(frame: Line | Change, n_missed: int) -> Line | Change:
    """The frame, if so many more before it were dropped."""
    return replace(frame, n_missed=frame.n_missed + n_missed) if n_missed else frame


def fault_of(error: AiosError) -> Fault:
    """The frame that carries an error over the line."""
    return Fault(error.code, error.message, error.hint, error.retry_after_s)


def error_of(fault: Fault) -> AiosError:
    """The error that a frame carries; a code that this version does not know becomes a `KernelBug`."""
    cls = error_classes().get(fault.code, KernelBug)
    return cls(fault.message, hint=fault.hint, retry_after_s=fault.retry_after_s)
