"""A server over Streamable HTTP by hand, in the protocol of 2025-03-26."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import anyio
import anyio.abc

Answer = Callable[[dict[str, object]], bytes]


def reply(request: dict[str, object], result: object) -> bytes:
    """A whole answer of HTTP with a result in it."""
    return whole(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode())


def whole(body: bytes, *headers: str) -> bytes:
    """A whole answer of HTTP."""
    head = ["HTTP/1.1 200 OK", "content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*head, "connection: close", *headers, "", ""]).encode() + body


@asynccontextmanager
async def by_hand(
    answer: Answer,
    *,
    events: bytes = b"",
    sessions: list[str] | None = None,
    hold: Callable[[dict[str, object]], Awaitable[bytes | None]] | None = None,
) -> AsyncIterator[str]:
    """The endpoint of a server of 2025-03-26 that lists one tool, and whose calls `answer` answers.

    With `events`, the whole answer to who asks for its stream of events; else it has none. With `sessions`, each that begins is added there,
    and one that is there no more has ended. With `hold`, each message is answered when that returns, and by
    what it returns, if that is anything.
    """

    async def serve(stream: anyio.abc.SocketStream) -> None:
        # Who asked may be gone, or have had enough.
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
            async with stream:
                await converse(stream)

    async def converse(stream: anyio.abc.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive()
        head, _, body = data.partition(b"\r\n\r\n")
        n_bytes = next(
            (int(line[15:]) for line in head.lower().splitlines() if b"content-length" in line),
            0,
        )
        while len(body) < n_bytes:
            body += await stream.receive()
        if not head.startswith(b"POST"):
            await stream.send(events or b"HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n")
            return
        request = json.loads(body)
        session = _session(head)
        if sessions is not None and session and session not in sessions:
            await stream.send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        held = await hold(request) if hold is not None else None
        said = held or _answer(request, answer)
        if sessions is not None and request.get("method") == "initialize":
            sessions.append(uuid4().hex)
            said = said.replace(b"\r\n", f"\r\nmcp-session-id: {sessions[-1]}\r\n".encode(), 1)
        if events:  # of which only who has a session is sent any
            said = said.replace(b"\r\n", b"\r\nmcp-session-id: s\r\n", 1)
        await stream.send(said)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no Django here
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{port}/mcp"
        tasks.cancel_scope.cancel()


def _session(head: bytes) -> str:
    """The session that a request names; empty if it names none."""
    found = (
        line.split()[1] for line in head.splitlines() if line.lower().startswith(b"mcp-session-id:")
    )
    return next(found, b"").decode()


def _answer(request: dict[str, object], answer: Answer) -> bytes:
    method = request.get("method")
    if "id" not in request or method is None:
        return b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
    if method == "initialize":
        return reply(
            request,
            {
                "protocolVersion": "2025-03-26",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "hand", "version": "1"},
            },
        )
    if method == "tools/list":
        return reply(request, {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]})
    if method == "tools/call":
        return answer(request)
    error = {"code": -32601, "message": "Method not found"}
    return whole(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode())
