"""Calls made for an HTTP client: plain or streamed, and always cancelled when the client goes away."""

from typing import Any, Generic, Protocol, TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from aios.abi.call import Answer, Call
from aios.abi.gate import Gate, Progress, Result, fault_of
from aios.abi.wire import frame_to_json
from aios.errors import AiosError
from aios.server.faults import fault_response

A = TypeVar("A", bound=Answer)

NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"


class Shape(Protocol[A]):
    """How the frames of a call look in a stream. Empty bytes are not sent."""

    media_type: str

    def progress(self, frame: Progress) -> bytes:
        """A frame before the end."""
        ...

    def result(self, result: Result[A]) -> bytes:
        """The end of a call that succeeded."""
        ...

    def fault(self, error: AiosError) -> bytes:
        """The end of a call that failed in mid-stream."""
        ...


async def make_call(request: Request, gate: Gate, call: Call[A]) -> Result[A]:
    """Make a call for a client that waits for its end.

    Raises:
        AiosError: The call failed.
        ClientDisconnect: The client went away, and the call with it.
    """
    end: Result[A] | AiosError | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_when_gone, request.receive, tasks.cancel_scope)
        try:
            end = await gate.call(call)
        except AiosError as error:
            end = error
        tasks.cancel_scope.cancel()
    if end is None:
        raise ClientDisconnect
    if isinstance(end, AiosError):
        raise end
    return end


class CallStream(Generic[A]):
    """An ASGI reply that streams the frames of a call.

    The head goes out with the first frame, so that an early failure still has a status of its own. A client that reads
    slowly gets fewer and larger pieces, because frames that nobody has read merge in the call's buffer.
    """

    def __init__(self, gate: Gate, call: Call[A], shape: Shape[A]) -> None:
        self._gate = gate
        self._call = call
        self._shape = shape
        self._is_started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_gone, receive, tasks.cancel_scope)
            try:
                await self._stream(send)
            except AiosError as error:
                await self._fail(error, scope, receive, send)
            tasks.cancel_scope.cancel()

    async def _stream(self, send: Send) -> None:
        async with self._gate.open_call(self._call) as frames:
            async for frame in frames:
                await self._send(send, self._shape.progress(frame))
            end = self._shape.result(await frames.result())
        await self._send(send, end, is_last=True)

    async def _fail(self, error: AiosError, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_started:
            await self._send(send, self._shape.fault(error), is_last=True)
        else:
            await fault_response(error, scope["path"])(scope, receive, send)

    async def _send(self, send: Send, data: bytes, *, is_last: bool = False) -> None:
        if not data and not is_last:
            return
        if not self._is_started:
            self._is_started = True
            headers = [
                (b"content-type", self._shape.media_type.encode("ascii")),
                (b"cache-control", b"no-store"),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data, "more_body": not is_last})


class Lines:
    """The native stream: one frame a line."""

    media_type = NDJSON

    def progress(self, frame: Progress) -> bytes:
        return frame_to_json(frame) + b"\n"

    def result(self, result: Result[Any]) -> bytes:
        return frame_to_json(result) + b"\n"

    def fault(self, error: AiosError) -> bytes:
        return frame_to_json(fault_of(error)) + b"\n"


class FrameEvents:
    """The native stream as server-sent events, for browsers: one frame an event."""

    media_type = EVENTS

    def progress(self, frame: Progress) -> bytes:
        return event(frame_to_json(frame))

    def result(self, result: Result[Any]) -> bytes:
        return event(frame_to_json(result))

    def fault(self, error: AiosError) -> bytes:
        return event(frame_to_json(fault_of(error)))


def event(data: bytes) -> bytes:
    """A server-sent event; JSON has no line breaks of its own."""
    return b"data: " + data + b"\n\n"


async def _cancel_when_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
