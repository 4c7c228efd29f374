"""Hosts on this machine that remember what they were sent, for tests."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.abc

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


@dataclass
class Host:
    """One host: its port, and all bytes that came, one entry a connection."""

    port: int = 0
    said: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def host(answer: Callable[[bytes], bytes] = lambda _: HELLO) -> AsyncIterator[Host]:
    """A host that answers each request, once its head is there, and reads on until the other side ends."""
    found = Host()

    async def attend(stream: anyio.abc.SocketStream) -> None:
        number = len(found.said)
        found.said.append(b"")
        async with stream:
            try:
                while True:
                    found.said[number] += await stream.receive()
                    if found.said[number].endswith((b"\r\n\r\n", b"BODY")):
                        await stream.send(answer(found.said[number]))
                        with anyio.move_on_after(0.3):
                            while True:
                                found.said[number] += await stream.receive()
                        return
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        found.port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no Django here
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, attend)
            yield found
            tasks.cancel_scope.cancel()
