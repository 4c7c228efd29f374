"""A server over Streamable HTTP: the transport of the SDK, whose client is bounded.

Answers are taken uncompressed and up to a length, streams of events up to a rate; redirects are followed within the endpoint's origin only (the SDK's own rule), and
no proxy or key of the environment is used.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
import httpx2
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import CONNECTION_CLOSED

from aios.kernel.tools.mcp.flow import REQUEST, Flow
from aios.kernel.tools.mcp.wire import (
    BUFFERED,
    FLOOD,
    TOO_RICH,
    Head,
    Incoming,
    Streams,
    Traffic,
    is_rich,
)
from aios.readers import from_json

CONNECT_S = 10.0
STREAM_BURST, STREAM_S = 4, 60.0
"""A stream of events may hold so many of the longest messages at once, and one more in each so many seconds: most hold one answer."""
ACK_S = 5.0
"""So long may an endpoint take a message that asks nothing: the SDK sends what comes next, of whomever, only then."""
INITIALIZED = "notifications/initialized"
UNKNOWN, FORBIDDEN, GONE = 401, 403, 404
SUCCESS = range(200, 300)
SESSION = "mcp-session-id"
MAX_CONNECTIONS = 64
EVENTS = "text/event-stream"
_DATA_OR_END = re.compile(rb"^(?:data:(.*))?\n", re.MULTILINE)
"""Of whole lines: one of an event's data, or the empty one that ends it."""


class Writer(Protocol):
    """Where messages for the server go."""

    async def send(self, item: SessionMessage, /) -> None:
        """Hand one over."""
        ...


@asynccontextmanager
async def http_streams(
    url: str,
    headers: Mapping[str, str],
    traffic: Traffic,
    *,
    max_message_bytes: int,
    silence_s: float,
) -> AsyncIterator[Streams]:
    """The streams of a server at an endpoint.

    Args:
        url: The endpoint.
        headers: What each request carries.
        traffic: Told what passes.
        max_message_bytes: A longer answer is malformed.
        silence_s: Longest silence in the middle of an answer.
    """
    to_us, incoming = anyio.create_memory_object_stream[Incoming](BUFFERED)
    outgoing, from_us = anyio.create_memory_object_stream[SessionMessage](BUFFERED)
    client = httpx2.AsyncClient(
        headers={**headers, "accept-encoding": "identity"},
        timeout=httpx2.Timeout(CONNECT_S, read=silence_s, pool=silence_s),
        transport=_Bounded(max_message_bytes, traffic),
        trust_env=False,
    )
    try:
        async with (
            client,
            streamable_http_client(
                url, http_client=client, max_sse_event_size=max_message_bytes
            ) as (read, write),
            anyio.create_task_group() as tasks,
        ):

            async def receive() -> None:
                async with to_us:
                    async for message in read:
                        for each in traffic.sort(message):
                            await to_us.send(each)
                        if traffic.ended.is_set():
                            return
                traffic.end("the connection to it ended")

            tasks.start_soon(receive)
            tasks.start_soon(_send, from_us, write, traffic)
            try:
                yield incoming, outgoing
            finally:
                tasks.cancel_scope.cancel()
    finally:
        for stream in (to_us, incoming, outgoing, from_us):
            stream.close()


async def _send(
    from_us: MemoryObjectReceiveStream[SessionMessage],
    write: Writer,
    traffic: Traffic,
) -> None:
    async with from_us:
        async for message in from_us:
            traffic.note_sent(message)
            try:
                await write.send(message)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # it ended, and `receive` sees that too


class _Bounded(httpx2.AsyncHTTPTransport):
    """Refuses answers that are compressed or too long, and answers itself where a connection breaks.

    Whatever a POST raises ends the whole session in the SDK, with the calls of everybody: it raises nothing, and its own call alone gets an
    error. A stream of events that ends is asked for again, as soon as the server says and as often as it ends: that counts as what nobody
    asked for.
    """

    def __init__(self, max_bytes: int, traffic: Traffic) -> None:
        super().__init__(limits=httpx2.Limits(max_connections=MAX_CONNECTIONS), trust_env=False)
        self._max_bytes = max_bytes
        self._traffic = traffic
        self._is_let_in = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            return await self._post(request)
        if request.method == "GET" and not self._traffic.is_admitted(REQUEST):
            raise httpx2.ConnectError(FLOOD)
        return await self._exchange(request)

    async def _post(self, request: httpx2.Request) -> httpx2.Response:
        sent = from_json(await request.aread(), Head)
        why = f"it did not take a message within {ACK_S:g} s"
        try:
            is_waited_for = sent.is_request or sent.method == INITIALIZED
            with anyio.move_on_after(None if is_waited_for else ACK_S):
                response = await self._exchange(request)
                why = await _misfit(response, sent)
                if not why:
                    return response
        except httpx2.TransportError as error:
            why = f"the connection broke ({type(error).__name__}: {error})"
        except httpx2.StreamError as error:
            why = str(error)
        return _made_up(why)

    async def _exchange(self, request: httpx2.Request) -> httpx2.Response:
        """An answer with its whole body, or with events that still come."""
        response = await super().handle_async_request(request)
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        if request.method == "POST":
            self._note_refusal(request, response.status_code)
        is_plain = response.headers.pop("content-encoding", "identity") == "identity"
        is_well = is_plain and response.status_code in SUCCESS
        if is_well and _is_of(response, EVENTS):
            response.headers["content-type"] = EVENTS  # read as UTF-8, as what was counted is
            response.stream = _Events(stream, self._max_bytes, self._traffic)
            return response
        try:
            body = await _whole(stream, self._max_bytes if is_plain else 0)
        finally:
            await stream.aclose()
        response.stream = httpx2.ByteStream(body)
        return response

    def _note_refusal(self, request: httpx2.Request, status: int) -> None:
        """End where no request will do any more: of why the SDK says nothing, and it would go on with a session that is gone."""
        if status == UNKNOWN or (status == FORBIDDEN and not self._is_let_in):
            self._traffic.end(f"the endpoint answers {status}: check its `headers`")
        elif status == GONE and SESSION in request.headers:
            self._traffic.end("its session has ended")
        self._is_let_in |= status in SUCCESS


async def _whole(stream: httpx2.AsyncByteStream, max_bytes: int) -> bytes:
    """The body of an answer up to a length.

    Raises:
        StreamError: It is longer, or has more values than are made.
    """
    body = bytearray()
    async for piece in stream:
        body += piece
        if len(body) > max_bytes:
            raise httpx2.StreamError("the answer is too long, or compressed")
    if await is_rich(bytes(body)):
        raise httpx2.StreamError(TOO_RICH)
    return bytes(body)


def _is_of(response: httpx2.Response, media: str) -> bool:
    return response.headers.get("content-type", "").lower().startswith(media)


async def _misfit(response: httpx2.Response, sent: Head) -> str:
    """Why an answer is none to this request, where the SDK does not see it; else nothing. It puts the request's id into errors itself."""
    status = response.status_code
    if status == FORBIDDEN and b'"jsonrpc"' not in await response.aread():
        return f"the endpoint answers {FORBIDDEN}: its `headers` do not allow this"
    if not sent.is_request or status not in SUCCESS or not _is_of(response, "application/json"):
        return ""
    try:
        answer = from_json(await response.aread(), Head)
    except (ValueError, RecursionError):
        return ""  # the SDK fails the call, or reads what this does not, such as NaN
    return "" if str(answer.id) == str(sent.id) else "the answer is to another request"


def _made_up(why: str) -> httpx2.Response:
    """What the SDK takes for the endpoint's own word that a request failed; it puts the request's id in."""
    error = {"code": CONNECTION_CLOSED, "message": why}
    return httpx2.Response(502, json={"jsonrpc": "2.0", "id": None, "error": error})


class _Events(httpx2.AsyncByteStream):
    """A stream of events, which has no end, up to a rate. The SDK bounds each event, and reads on after its call has ended.

    An event with more values than are made fails its call: the piece that ends it is not handed on.
    """

    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int, traffic: Traffic) -> None:
        self._stream, self._traffic = stream, traffic
        self._flow = Flow(STREAM_BURST * max_bytes, max_bytes / STREAM_S)
        self._line, self._data = bytearray(), bytearray()
        self._last = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            if not self._flow.admit(self._traffic.now_s(), len(piece)):
                self._traffic.end(FLOOD)
                raise httpx2.StreamError(FLOOD)
            await self._count(piece)
            yield piece
        await self._end_event()  # the SDK takes a carriage return at the end for an empty line, too

    async def _count(self, piece: bytes) -> None:
        """Count what the piece ends. Lines that hold no data are none of JSON: a quote in one would hide what follows.

        Raises:
            SSEError: An event has more values than are made.
        """
        new = piece[1:] if self._last == b"\r" and piece.startswith(b"\n") else piece
        self._last = piece[-1:] or self._last
        self._line += new.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in new and b"\r" not in new:
            return
        lines, _, rest = bytes(self._line).rpartition(b"\n")
        self._line = bytearray(rest)
        for found in _DATA_OR_END.finditer(lines + b"\n"):
            if found[1] is None:
                await self._end_event()
            else:
                self._data += found[1] + b"\n"

    async def _end_event(self) -> None:
        data, self._data = bytes(self._data), bytearray()
        if await is_rich(data):
            raise httpx2.SSEError(TOO_RICH)

    async def aclose(self) -> None:
        await self._stream.aclose()
