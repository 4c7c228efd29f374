"""The gate for callers in the kernel's own process, and the buffer through which frames reach any reader.

The server uses the same gate, so there is one way in.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeVar

import anyio
import anyio.abc

from aios.abi.call import Answer, Call
from aios.abi.gate import Advance, Change, Line, Progress, Result, Token, after_missed, current_job
from aios.abi.types import Pid
from aios.errors import AiosError, KernelStopping
from aios.kernel.handlers import Services
from aios.kernel.process import Process, Run
from aios.kernel.syscall import perform
from aios.kernel.waitqueue import WaitQueue

MAX_PENDING_LINES = 10_000
"""And changes: frames that may be dropped."""

A = TypeVar("A", bound=Answer)


class GateServices(Services, Protocol):
    """What a gate uses of the kernel."""

    tasks: anyio.abc.TaskGroup
    """The kernel's root task group."""
    is_stopping: bool


class FrameBuffer(Generic[A]):
    """Frames between a call and its reader. The call never waits for the reader.

    Tokens that nobody has read yet come as one frame, and memory is bounded by the generation itself. Lines and changes beyond
    `MAX_PENDING_LINES` push out the oldest, and the next one says how many were missed. Of advances the newest counts.
    """

    def __init__(self) -> None:
        self._pending: deque[Progress] = deque()
        self._n_missed = 0
        self._end: Result[A] | AiosError | None = None
        self._changed = WaitQueue()

    def put(self, frame: Progress) -> None:
        """Add a frame; never waits."""
        if isinstance(frame, Advance) and self._pending and isinstance(self._pending[-1], Advance):
            self._pending.pop()
        self._pending.append(frame)
        if isinstance(frame, Line | Change) and len(self._pending) > MAX_PENDING_LINES:
            self._drop_oldest()
        self._changed.wake_all()

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
        if self._n_missed and isinstance(frame, Line | Change):
            frame, self._n_missed = after_missed(frame, self._n_missed), 0
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
            await self._changed.wait()
        if isinstance(self._end, AiosError):
            raise self._end
        return self._end

    def _drop_oldest(self) -> None:
        dropped = self._pending.popleft()
        self._n_missed += 1 + (dropped.n_missed if isinstance(dropped, Line | Change) else 0)


class LocalGate:
    """The door for one process, without a wire. Implements `aios.abi.gate.Gate`.

    Args:
        kernel: What is behind it.
        process: Whose it is.
        within: A tool of the kernel's own makes the calls, in the course of this one.
    """

    def __init__(self, kernel: GateServices, process: Process, within: Run | None = None) -> None:
        self._kernel = kernel
        self._process = process
        self._within = within

    @property
    def pid(self) -> Pid:
        """Of the process."""
        return self._process.pid

    async def call(self, call: Call[A]) -> Result[A]:
        """Make a call in the caller's own task.

        Raises:
            AiosError: The call failed.
        """
        if self._kernel.is_stopping:
            raise _stopping()
        return await perform(
            self._kernel, self._process, call, within=self._within, job=current_job.get()
        )

    @asynccontextmanager
    async def open_call(self, call: Call[A]) -> AsyncIterator[FrameBuffer[A]]:
        """Make a call in a task of the kernel's and read its frames; leaving early cancels it and waits until it has ended."""
        if self._kernel.is_stopping:
            raise _stopping()
        frames: FrameBuffer[A] = FrameBuffer()
        scope, over = anyio.CancelScope(), anyio.Event()
        self._kernel.tasks.start_soon(self._perform, call, frames, scope, over)
        try:
            yield frames
        finally:
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await over.wait()

    async def _perform(
        self, call: Call[A], frames: FrameBuffer[A], scope: anyio.CancelScope, over: anyio.Event
    ) -> None:
        try:
            with scope:
                end = await perform(
                    self._kernel,
                    self._process,
                    call,
                    emit=frames.put,
                    within=self._within,
                    job=current_job.get(),
                )
                frames.finish(end)
        except AiosError as error:
            frames.finish(error)
        finally:
            frames.finish(KernelStopping("the call was cancelled", hint="ask again"))
            over.set()


def _stopping() -> KernelStopping:
    return KernelStopping(
        "the kernel is shutting down", hint="start it again (`aios serve`) and repeat the call"
    )
