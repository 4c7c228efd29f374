"""A connected Unix socket for both ends of the native protocol.

anyio's own stream gives way to other tasks before every attempt; here only an attempt that cannot succeed waits, which
makes a system call a quarter cheaper.
"""

import socket

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from aios.sdk.packets import CHUNK_BYTES

CONNECT_PAUSE_S = 0.01


class UnixStream:
    """Sends and receives bytes; one task may send while another receives. Owns the socket until `close`."""

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        self.raw = raw
        self._kept = b""
        """Was received by a task that was cancelled before it had it."""

    @classmethod
    async def connect(cls, path: str) -> "UnixStream":
        """Connect to a listening socket; waits while its queue is full.

        Raises:
            OSError: Nobody listens there.
        """
        stream = cls(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            while True:
                try:
                    stream.raw.connect(path)
                except BlockingIOError:  # the queue is full; no event tells when it is not
                    await anyio.sleep(CONNECT_PAUSE_S)
                else:
                    return stream
        except BaseException:
            stream.close()
            raise

    async def receive(self) -> bytes:
        """The bytes that have arrived, or nothing when the other side has closed. Cancelling loses none.

        Raises:
            OSError: The connection broke.
            ClosedResourceError: It was closed here meanwhile.
        """
        await checkpoint_if_cancelled()
        try:
            data = self._kept or self.raw.recv(CHUNK_BYTES)
        except BlockingIOError:
            await anyio.wait_readable(self.raw)
            return self.raw.recv(CHUNK_BYTES)
        self._kept = data
        # Who sends without end must not keep others from running. A cancel of asyncio's own breaks through the shield.
        await cancel_shielded_checkpoint()
        self._kept = b""
        return data

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Send as much as fits now. Returns: how many bytes.

        Raises:
            OSError: The connection broke.
        """
        try:
            return self.raw.send(data)
        except BlockingIOError:
            return 0

    async def send(self, data: bytes) -> None:
        """Send all of it; raises as `receive` does. When cancelled, part of it may have been sent."""
        rest = memoryview(data)
        while rest:
            n_bytes = self.send_nowait(rest)
            rest = rest[n_bytes:]
            if not n_bytes:
                await self.wait_writable()

    async def wait_writable(self) -> None:
        """Return when it takes bytes again; raises as `receive` does."""
        await anyio.wait_writable(self.raw)

    def close(self) -> None:
        """Close it; who waits at it gets `ClosedResourceError`. Twice is nothing."""
        if self.raw.fileno() >= 0:
            anyio.notify_closing(self.raw)
            self.raw.close()
