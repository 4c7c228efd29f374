"""A server over stdio: a program behind walls, whose lines are messages. It ends with the connection, and all that it started with it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.abc
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage

from aios.kernel.sandbox.launch import Confined
from aios.kernel.tools.executable import ending
from aios.kernel.tools.mcp.wire import BUFFERED, Incoming, Streams, Traffic, is_rich

MAX_COMPLAINT_BYTES = 2_000
MAX_COMPLAINT_CHARS = 300
"""What is kept, and what is told, of standard error; the end says most."""
WRITE_TIMEOUT_S = 20.0
"""How long a server may leave unread what it is told."""
GRACE_S = 0.5
"""How long it may take to end by itself once its standard input is closed."""


class Complaint:
    """The end of a server's standard error."""

    def __init__(self) -> None:
        self._data = b""
        self.is_whole = anyio.Event()

    def add(self, piece: bytes) -> None:
        """More of it."""
        self._data = (self._data + piece)[-MAX_COMPLAINT_BYTES:]

    @property
    def text(self) -> str:
        """It, for people, in a line; whole words."""
        text = " ".join(self._data.decode("utf-8", "replace").split())
        end = text[-MAX_COMPLAINT_CHARS:]
        return end if end == text else f"... {end.partition(' ')[2] or end}"


@asynccontextmanager
async def stdio_streams(
    running: Confined, traffic: Traffic, *, max_message_bytes: int
) -> AsyncIterator[Streams]:
    """The streams of a program that was started; it is gone when the block ends.

    Args:
        running: The program.
        traffic: Told what passes, and why the program ended.
        max_message_bytes: A longer line ends the connection.
    """
    to_us, incoming = anyio.create_memory_object_stream[Incoming](BUFFERED)
    outgoing, from_us = anyio.create_memory_object_stream[SessionMessage](BUFFERED)
    complaint = Complaint()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_read, running, to_us, traffic, max_message_bytes)
            tasks.start_soon(_write, running.process, from_us, traffic)
            tasks.start_soon(_read_complaint, running.process, complaint)
            tasks.start_soon(_watch, running, traffic, complaint)
            try:
                yield incoming, outgoing
            finally:
                tasks.cancel_scope.cancel()
    finally:
        for stream in (to_us, incoming, outgoing, from_us):
            stream.close()
        with anyio.CancelScope(shield=True):
            await _end(running)


async def _read(
    running: Confined,
    to_us: MemoryObjectSendStream[Incoming],
    traffic: Traffic,
    max_message_bytes: int,
) -> None:
    """Lines to messages. At the end of the connection, the SDK sees the end of the stream."""
    assert running.process.stdout is not None
    rest = bytearray()
    async with to_us:
        async for piece in running.process.stdout:
            *lines, last = piece.split(b"\n")
            for line in lines:
                whole = bytes(rest + line)
                rest.clear()
                if not whole.strip():
                    continue
                for message in traffic.read_line(whole, is_rich=await is_rich(whole)):
                    await to_us.send(message)
            rest += last
            if len(rest) > max_message_bytes:
                traffic.end(f"it sent a message over {max_message_bytes} bytes")
            if traffic.ended.is_set():
                return
        # The SDK fails what it waits for when the stream ends: let it be known first how the program did.
        with anyio.move_on_after(GRACE_S):
            await running.process.wait()
        running.kill()
        with anyio.move_on_after(GRACE_S):
            await traffic.ended.wait()


async def _write(
    process: anyio.abc.Process,
    from_us: MemoryObjectReceiveStream[SessionMessage],
    traffic: Traffic,
) -> None:
    assert process.stdin is not None
    async with from_us:
        async for message in from_us:
            traffic.note_sent(message)
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            try:
                with anyio.fail_after(WRITE_TIMEOUT_S):
                    await process.stdin.send(text.encode("utf-8", "replace") + b"\n")
            except TimeoutError:
                traffic.end(f"it read nothing for {WRITE_TIMEOUT_S:g} s")
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                return  # it ends, and `_watch` says so


async def _read_complaint(process: anyio.abc.Process, complaint: Complaint) -> None:
    assert process.stderr is not None
    async for piece in process.stderr:
        complaint.add(piece)
    complaint.is_whole.set()


async def _watch(running: Confined, traffic: Traffic, complaint: Complaint) -> None:
    """Say how the program ended; what it left behind would hold the pipes open."""
    code = await running.process.wait()
    running.kill()
    with anyio.move_on_after(GRACE_S):
        await complaint.is_whole.wait()
    said = f": {complaint.text}" if complaint.text else ""
    traffic.end(f"it {ending(code)}{said}")


async def _end(running: Confined) -> None:
    """Close its input, wait a moment for it, and end what is left."""
    stdin = running.process.stdin
    if stdin is not None:
        with suppress(anyio.BrokenResourceError, OSError):  # it has ended
            await stdin.aclose()
    with anyio.move_on_after(GRACE_S):
        await running.process.wait()
    running.kill()
    await running.wait_gone()
    await running.process.aclose()
