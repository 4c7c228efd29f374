"""The gate for callers in the kernel's own process. The server uses the same gate, so there is one way in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import anyio
import anyio.abc

from aios.abi.call import Answer, Call
from aios.abi.gate import Result, current_job
from aios.abi.types import Pid
from aios.errors import AiosError, KernelStopping
from aios.kernel.frames import FrameBuffer
from aios.kernel.handlers import Services
from aios.kernel.process import Process, Run
from aios.kernel.syscall import perform

A = TypeVar("A", bound=Answer)


class GateServices(Services, Protocol):
    """What a gate uses of the kernel."""

    tasks: anyio.abc.TaskGroup
    """The kernel's root task group."""
    is_stopping: bool


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
                    emit=frames,
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
