"""Any async gate for code that waits: its calls run in an event loop in a thread of anyio's."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from aios.abi.call import Answer, Call
from aios.abi.gate import Frames, Gate, Progress, Result
from aios.sdk.http import HttpGate

A = TypeVar("A", bound=Answer)


class PortalGate:
    """A blocking gate over an async one that lives in a portal's event loop."""

    def __init__(self, portal: BlockingPortal, gate: Gate) -> None:
        self._portal = portal
        self._gate = gate

    def call(self, call: Call[A]) -> Result[A]:
        """Make a call and wait for its end."""
        return self._portal.call(self._gate.call, call)

    @contextmanager
    def open_call(self, call: Call[A]) -> "Iterator[PortalFrames[A]]":
        """Make a call and read its frames; leaving the block early cancels the call."""
        with self._portal.wrap_async_context_manager(self._gate.open_call(call)) as frames:
            yield PortalFrames(self._portal, frames)


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
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(HttpGate(url, token)) as gate,
    ):
        yield PortalGate(portal, gate)


async def _next_or_none(pieces: AsyncIterator[Progress]) -> Progress | None:
    """The next frame; `StopAsyncIteration` would not survive the way through a future."""
    try:
        return await pieces.__anext__()
    except StopAsyncIteration:
        return None
