"""Any async gate for code that waits: its calls run in an event loop in a thread of anyio's."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from aios.abi.call import Answer, Call
from aios.abi.gate import Frames, Gate, Progress, Result
from aios.errors import InvalidCall
from aios.sdk.http import HttpGate

A = TypeVar("A", bound=Answer)


class PortalGate:
    """A blocking gate over an async one that lives in a portal's event loop."""

    def __init__(self, portal: BlockingPortal, gate: Gate) -> None:
        self._portal = portal
        self._gate = gate
        self._os_pid = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Whether this is a child of the process that opened it, without the thread in which the portal runs."""
        return os.getpid() != self._os_pid

    def call(self, call: Call[A]) -> Result[A]:
        """Make a call and wait for its end.

        Raises:
            InvalidCall: The process was forked since the gate was opened.
        """
        self._check_here()
        return self._portal.call(self._gate.call, call)

    @contextmanager
    def open_call(self, call: Call[A]) -> "Iterator[PortalFrames[A]]":
        """Make a call and read its frames; leaving the block early cancels the call."""
        self._check_here()
        with self._portal.wrap_async_context_manager(self._gate.open_call(call)) as frames:
            yield PortalFrames(self._portal, frames)

    def _check_here(self) -> None:
        """In a forked child there is no thread that could answer: the wait for it would have no end."""
        if self.is_forked:
            raise InvalidCall(
                f"the client was opened in process {self._os_pid}, before this one was forked",
                hint="over HTTP, connect again in the child; over a Unix socket a client outlives a fork",
            )


class PortalFrames(Generic[A]):
    """The frames of one call."""

    def __init__(self, portal: BlockingPortal, frames: Frames[A]) -> None:
        self._portal = portal
        self._frames = frames

    def __iter__(self) -> Iterator[Progress]:
        """Iterate over the frames before the end."""
        pieces = self._frames.__aiter__()
        while True:
            frame = self._portal.call(_next_or_none, pieces)
            if frame is None:
                return
            yield frame

    def result(self) -> Result[A]:
        """Skip what was not read and return the end of the call."""
        return self._portal.call(self._frames.result)


@contextmanager
def open_http_gate(url: str, token: str) -> Iterator[PortalGate]:
    """A blocking gate over HTTP."""
    with start_blocking_portal() as portal:
        http = HttpGate(url, token)
        gate = PortalGate(portal, http)
        try:
            yield gate
        finally:
            if gate.is_forked:
                _mark_stopped(portal)
            else:
                portal.call(http.aclose)


def _mark_stopped(portal: BlockingPortal) -> None:
    """Let the portal's end not wait for its thread, which a forked child does not have."""
    with suppress(StopIteration, RuntimeError):  # asyncio's debug mode minds the thread
        portal.stop().send(None)


async def _next_or_none(pieces: AsyncIterator[Progress]) -> Progress | None:
    """The next frame; `StopAsyncIteration` would not survive the way through a future."""
    try:
        return await pieces.__anext__()
    except StopAsyncIteration:
        return None
