"""A real HTTP server on a loopback port that serves files badly on demand: it drops, redirects, refuses, changes."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256

import anyio
from anyio.abc import SocketAttribute, SocketStream


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    path: str
    headers: dict[str, str]


@dataclass
class Reply:
    """What it gets. `cut_after` bytes of the body are sent before the connection is dropped."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None


@dataclass
class FileServer:
    """Serves `files` with ranges and ETags; what is in `script` is answered first, one reply a request."""

    files: dict[str, bytes] = field(default_factory=dict)
    script: list[Reply | int] = field(default_factory=list)
    """A reply, or a number: the file as usual, but cut after so many bytes."""
    knows_ranges: bool = True
    sends_etag: bool = True
    stalls: bool = False
    """A body that is cut ends in silence, not in a closed connection."""
    gate: anyio.Event | None = None
    """Bodies are sent only when it is set."""
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def answer(self, request: Request) -> Reply:
        """The reply to a request."""
        self.requests.append(request)
        planned = self.script.pop(0) if self.script else None
        if isinstance(planned, Reply):
            return planned
        reply = self._file(request)
        reply.cut_after = planned
        return reply

    def _file(self, request: Request) -> Reply:
        data = self.files.get(request.path.partition("?")[0])
        if data is None:
            return Reply(404, body=b"not here")
        etag = f'"{sha256(data).hexdigest()[:12]}"'
        headers = {"ETag": etag} if self.sends_etag else {}
        if request.path.endswith("/"):
            headers["Content-Type"] = "application/vnd.pypi.simple.v1+json"
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        condition = request.headers.get("if-range", etag)
        if wanted is None or not self.knows_ranges or condition != etag:
            return Reply(headers=headers, body=data)
        start = int(wanted[1])
        if start >= len(data):
            return Reply(416, {"Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return Reply(206, headers, data[start:])

    async def handle(self, stream: SocketStream) -> None:
        """Serve one connection: one request."""
        async with stream:
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += await stream.receive()
                await self._reply(stream, self.answer(_parse(head)))
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # the client has had enough

    async def _reply(self, stream: SocketStream, reply: Reply) -> None:
        headers = {"Content-Length": str(len(reply.body)), "Connection": "close", **reply.headers}
        lines = [f"HTTP/1.1 {reply.status} X", *(f"{k}: {v}" for k, v in headers.items() if v)]
        await stream.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        if self.gate is not None:
            await self.gate.wait()
        body = reply.body if reply.cut_after is None else reply.body[: reply.cut_after]
        if body:
            await stream.send(body)
        if self.stalls and reply.cut_after is not None:
            await anyio.sleep_forever()


@asynccontextmanager
async def serving(server: FileServer) -> AsyncIterator[FileServer]:
    """Run the server; its `url` is set."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - anyio's, not Django's
    server.url = f"http://127.0.0.1:{port}"
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, server.handle)
        yield server
        group.cancel_scope.cancel()


def _parse(head: bytes) -> Request:
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in rest:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return Request(first.split(" ")[1], headers)
