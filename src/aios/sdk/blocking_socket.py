"""The gate over a Unix socket for plain scripts: no event loop, quick to import, safe to use from several threads.

Each call has a connection of its own while it runs; connections are kept and used again.
"""

import os
import select
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

from msgspec import Raw

from aios.abi.call import Answer, Call
from aios.abi.gate import Fault, Progress, Result, current_job, error_of
from aios.abi.packets import (
    Cancel,
    Hello,
    Refusal,
    Reply,
    Request,
    pack,
    unpack_frame,
    unpack_to_client,
)
from aios.errors import AiosError, DeadlineExceeded
from aios.sdk.packets import CHUNK_BYTES, PacketBuffer, broken, read_greeting, unreachable

CONNECT_TIMEOUT_S = 10.0
CANCEL_GRACE_S = 2.0
"""How long leaving a call early waits for the kernel to say that the call has ended."""
MAX_IDLE = 8
"""Connections that are kept for the next calls."""

A = TypeVar("A", bound=Answer)


class BlockingUnixGate:
    """A way into the kernel on behalf of the process that `token` stands for; connects with the first call.

    Args:
        path: The kernel's socket.
        token: Who one is.
        timeout_s: The longest silence of the kernel during a call; None waits as long as it takes.
    """

    def __init__(self, path: str, token: str, *, timeout_s: float | None = None) -> None:
        self._path = path
        self._token = token
        self._timeout_s = timeout_s
        self._idle: deque[_Connection] = deque()
        self._os_pid = os.getpid()

    def call(self, call: Call[A]) -> Result[A]:
        """Make a call and wait for its end.

        Raises:
            AiosError: The call ended in a `Fault`.
            DeadlineExceeded: The kernel was silent for `timeout_s`.
            KernelUnreachable: No kernel listens, or the connection broke.
        """
        with self._begin(call, stream=False) as frames:
            return frames.result()

    @contextmanager
    def open_call(self, call: Call[A]) -> "Iterator[BlockingFrames[A]]":
        """Make a call and read its frames; leaving the block early cancels the call."""
        with self._begin(call, stream=True) as frames:
            yield frames

    def close(self) -> None:
        """Close the connections that no call uses. The gate may be used again."""
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> "BlockingUnixGate":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _begin(self, call: Call[A], *, stream: bool) -> "Iterator[BlockingFrames[A]]":
        packet = pack(Request(1, call, stream, current_job.get()))
        connection = self._connection()
        frames: BlockingFrames[A] = BlockingFrames(connection, type(call))
        try:
            connection.send(packet)
            yield frames
        finally:
            # Whatever cut the block short, an interrupt included, may have left half a packet: then start afresh.
            if frames.is_over or frames.cancel():
                self._keep(connection)
            else:
                connection.close()

    def _connection(self) -> "_Connection":
        if self._os_pid != os.getpid():  # forked: the parent's connections are not ours
            self._idle.clear()
            self._os_pid = os.getpid()
        while self._idle:
            with suppress(IndexError):  # another thread was quicker
                connection = self._idle.pop()
                if connection.is_fresh():
                    return connection
                connection.close()
        return _Connection(self._path, self._token, self._timeout_s)

    def _keep(self, connection: "_Connection") -> None:
        if len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()


class BlockingFrames(Generic[A]):
    """The frames of one call, in order; iterate over them, then ask for `result`."""

    def __init__(self, connection: "_Connection", call: type[Call[A]]) -> None:
        self._connection = connection
        self._call = call
        self._result: Result[A] | None = None
        self._error: AiosError | None = None

    @property
    def is_over(self) -> bool:
        """The end of the call is here."""
        return self._result is not None or self._error is not None

    def __iter__(self) -> Iterator[Progress]:
        return self

    def __next__(self) -> Progress:
        if not self.is_over:
            frame = unpack_frame(self._connection.receive().frame, self._call)
            match frame:
                case Result():
                    self._result = frame
                case Fault():
                    self._error = error_of(frame)
                case _:
                    return frame
        if self._error is not None:
            raise self._error
        raise StopIteration

    def result(self) -> Result[A]:
        """Skip what was not read and return the end of the call.

        Raises:
            AiosError: The call ended in a `Fault`, or the connection broke.
        """
        for _ in self:
            pass
        assert self._result is not None
        return self._result

    def cancel(self) -> bool:
        """Cancel the call; whether the kernel said in time that it has ended."""
        if not self._connection.is_usable:
            return False
        with suppress(AiosError):
            self._connection.set_timeout(CANCEL_GRACE_S)
            self._connection.send(pack(Cancel(1)))
            self.result()
        self._connection.restore_timeout()
        return self.is_over


class _Connection:
    """One connection, used by one call at a time."""

    def __init__(self, path: str, token: str, timeout_s: float | None) -> None:
        self.is_usable = True
        self._timeout_s = timeout_s
        self._buffer = PacketBuffer()
        self._bodies: deque[bytes] = deque()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.set_timeout(CONNECT_TIMEOUT_S)
            self._socket.connect(path)
            self._socket.sendall(pack(Hello(token)))
            self._fill()
            read_greeting(self._bodies.popleft())
            self.restore_timeout()
        except (OSError, ValueError) as error:
            self.close()
            raise unreachable(path, error) from error
        except BaseException:
            self.close()
            raise

    def set_timeout(self, timeout_s: float | None) -> None:
        """The longest that sending and receiving may take."""
        self._socket.settimeout(timeout_s)

    def restore_timeout(self) -> None:
        """Back to the gate's own time-out."""
        if self.is_usable:
            self._socket.settimeout(self._timeout_s)

    def is_fresh(self) -> bool:
        """Whether the kernel is still there and has said nothing since the last call."""
        poll = select.poll()  # a socket with a time-out would wait that long in `recv`
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def send(self, packet: bytes) -> None:
        """Send a packet whole, or give the connection up."""
        self.is_usable = False
        try:
            self._socket.sendall(packet)
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            raise broken(error) from error
        self.is_usable = True

    def receive(self) -> Reply[Raw]:
        """The next packet, or give the connection up."""
        self.is_usable = False
        try:
            while not self._bodies:
                self._fill()
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            raise broken(error) from error
        packet = unpack_to_client(self._bodies.popleft())
        if isinstance(packet, Refusal):
            raise broken(packet.fault.message)
        if not isinstance(packet, Reply):
            raise broken("the server sent a packet out of turn")
        self.is_usable = True
        return packet

    def close(self) -> None:
        """The kernel cancels what was in flight."""
        self.is_usable = False
        self._socket.close()

    def _fill(self) -> None:
        while not self._bodies:
            data = self._socket.recv(CHUNK_BYTES)
            if not data:
                raise ConnectionResetError("the kernel closed it")
            self._bodies.extend(self._buffer.feed(data))

    def _silent(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"the kernel was silent for {self._timeout_s} s",
            hint="allow more time, or see `aios top` for what is in the way",
        )
