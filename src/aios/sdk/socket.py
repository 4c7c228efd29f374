"""The gate over a Unix socket, for async programs: one connection, many calls in flight.

There is no background task: of the tasks that wait for an answer, one reads the socket for all of them (the leader, as in
the leader/followers pattern) and hands the reading on when its own answer is there. So a gate can be used from any task,
errors reach their caller bare, and an answer takes one task switch less.
"""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import anyio

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
from aios.abi.types import Pid
from aios.errors import AiosError, KernelUnreachable
from aios.sdk.frames import FrameQueue
from aios.sdk.packets import PacketBuffer, broken, read_greeting, unreachable
from aios.sdk.stream import UnixStream

CONNECT_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 60.0
"""A kernel that takes no bytes for so long is gone."""
CANCEL_GRACE_S = 2.0
"""How long leaving a call early waits for the kernel to say that the call has ended."""

A = TypeVar("A", bound=Answer)


class UnixGate:
    """A way into the kernel on behalf of the process that `token` stands for. Implements `aios.abi.gate.Gate`.

    Every caller that waits gets `KernelUnreachable` when the connection breaks; the gate is of no use after that.
    """

    def __init__(self, stream: UnixStream, pid: Pid, buffer: PacketBuffer) -> None:
        self.pid = pid
        self._stream = stream
        self._buffer = buffer
        self._pending: dict[int, UnixFrames[Any]] = {}
        self._followers: dict[int, anyio.Event] = {}
        self._last_id = 0
        self._is_reading = False
        self._outbox = bytearray()
        """What did not fit at once, from the middle of a packet on; who sends next sends it."""
        self._sending = anyio.Lock(fast_acquire=True)
        self._error: KernelUnreachable | None = None

    @classmethod
    async def open(cls, path: str, token: str) -> "UnixGate":
        """Connect to the kernel at a socket; the caller closes it with `aclose`.

        Raises:
            KernelUnreachable: Nobody listens there, or no kernel.
            Unauthenticated: The token is not valid.
        """
        try:
            with anyio.fail_after(CONNECT_TIMEOUT_S):
                stream = await UnixStream.connect(path)
                try:
                    return await cls._greet(stream, token)
                except BaseException:
                    stream.close()
                    raise
        except TimeoutError as error:
            raise unreachable(path, f"no answer within {CONNECT_TIMEOUT_S} s") from error
        except OSError as error:
            raise unreachable(path, error) from error

    @classmethod
    @asynccontextmanager
    async def connect(cls, path: str, token: str) -> "AsyncIterator[UnixGate]":
        """`open` for the length of a block."""
        gate = await cls.open(path, token)
        try:
            yield gate
        finally:
            await gate.aclose()

    @classmethod
    async def _greet(cls, stream: UnixStream, token: str) -> "UnixGate":
        await stream.send(pack(Hello(token)))
        buffer, bodies = PacketBuffer(), list[bytes]()
        while not bodies:
            data = await stream.receive()
            if not data:
                raise broken("it was closed before the greeting")
            bodies = buffer.feed(data)
        return cls(stream, read_greeting(bodies[0]), buffer)

    async def call(self, call: Call[A]) -> Result[A]:
        """Make a call and wait for its end. Cancelling cancels the call; one that was done all the same is answered, for its journal says so.

        Raises:
            AiosError: The call ended in a `Fault`, or the connection broke.
        """
        frames, packet = self._begin(call, stream=False)
        try:
            await self._send(packet)
            return await frames.result()
        except anyio.get_cancelled_exc_class():
            await self._stop(frames)
            is_by_scope = anyio.current_effective_deadline() == -math.inf
            if is_by_scope and (told := frames.told) is not None:
                return told  # its scope is heard of at the next wait
            raise
        finally:
            await self._end(frames)

    @asynccontextmanager
    async def open_call(self, call: Call[A]) -> "AsyncIterator[UnixFrames[A]]":
        """Make a call and read its frames; leaving the block early cancels the call."""
        frames, packet = self._begin(call, stream=True)
        try:
            await self._send(packet)
            yield frames
        finally:
            await self._end(frames)

    async def aclose(self) -> None:
        """Close the connection: every call in flight is cancelled. Twice is nothing."""
        self._break("it was closed here")

    def _begin(self, call: Call[A], *, stream: bool) -> "tuple[UnixFrames[A], bytes]":
        self._last_id += 1
        frames = UnixFrames(self, self._last_id, type(call))
        packet = pack(Request(frames.id, call, stream, current_job.get()))
        self._pending[frames.id] = frames
        return frames, packet

    async def _end(self, frames: "UnixFrames[A]") -> None:
        await self._stop(frames)
        del self._pending[frames.id]

    async def _stop(self, frames: "UnixFrames[A]") -> None:
        """Return when the call has ended."""
        if not frames.is_over and self._error is None:
            with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_GRACE_S):
                await self._cancel(frames)

    async def _cancel(self, frames: "UnixFrames[Any]") -> None:
        try:
            await self._send(pack(Cancel(frames.id)))
            await frames.result()
        except AiosError:
            return  # it has ended, which is all that matters

    async def _send(self, packet: bytes) -> None:
        """Send a packet, and with it those that others left in the meantime."""
        if self._error is not None:
            raise self._error
        try:
            if not self._outbox and not self._sending.locked():
                packet = packet[self._stream.send_nowait(packet) :]
            if packet:
                self._outbox += packet
                await self._send_rest()
        except (OSError, anyio.ClosedResourceError) as error:
            raise self._break(error) from error

    async def _send_rest(self) -> None:
        """Send what did not fit at once. Shielded: half a packet would spoil the connection for everybody.

        A cancel of asyncio's own breaks through; then the rest stays for the next one, which is the `Cancel` of that call.
        """
        async with self._sending:
            while self._outbox:
                n_bytes = self._stream.send_nowait(self._outbox)
                del self._outbox[:n_bytes]
                if not n_bytes:
                    await self._wait_writable()

    async def _wait_writable(self) -> None:
        with anyio.move_on_after(SEND_TIMEOUT_S, shield=True) as scope:
            await self._stream.wait_writable()
        if scope.cancelled_caught:
            raise self._break(f"it took no bytes for {SEND_TIMEOUT_S} s")

    async def wait(self, frames: "UnixFrames[Any]") -> None:
        """Return when something new came for `frames`, or the connection broke."""
        frames.is_new = False
        try:
            while not frames.is_new and self._error is None:
                if self._is_reading:
                    await self._follow(frames.id)
                else:
                    await self._lead(frames)
        finally:
            if self._followers and not self._is_reading:
                next(iter(self._followers.values())).set()

    async def _follow(self, number: int) -> None:
        event = self._followers[number] = anyio.Event()
        try:
            await event.wait()
        finally:
            del self._followers[number]

    async def _lead(self, frames: "UnixFrames[Any]") -> None:
        self._is_reading = True
        try:
            while not frames.is_new and self._error is None:
                data = await self._stream.receive()
                if not data:
                    self._break("the kernel closed it")
                for body in self._buffer.feed(data):
                    self._deliver(body)
        except (OSError, anyio.ClosedResourceError) as error:
            self._break(error)
        except AiosError as error:
            self._break(error.message)
        finally:
            self._is_reading = False

    def _deliver(self, body: bytes) -> None:
        match unpack_to_client(body):
            case Reply(id=number, frame=frame):
                frames = self._pending.get(number)
                if frames is not None:
                    frames.put(unpack_frame(frame, frames.call))
                    self._wake(number)
            case Refusal(fault=fault):
                self._break(fault.message)
            case _:
                self._break("the server sent a packet out of turn")

    def _wake(self, number: int) -> None:
        follower = self._followers.get(number)
        if follower is not None:
            follower.set()

    def _break(self, why: object) -> KernelUnreachable:
        """From now on every call fails; the first reason stays."""
        if self._error is None:
            self._error = broken(why)
            for frames in self._pending.values():
                frames.fail(self._error)
            for follower in self._followers.values():
                follower.set()
            self._stream.close()  # wakes who reads
        return self._error


class UnixFrames(Generic[A]):
    """The frames of one call. Implements `aios.abi.gate.Frames`."""

    def __init__(self, gate: UnixGate, number: int, call: type[Call[A]]) -> None:
        self.id = number
        self.call = call
        self.is_new = False
        self._gate = gate
        self._queue = FrameQueue()
        self._result: Result[A] | None = None
        self._error: AiosError | None = None

    @property
    def is_over(self) -> bool:
        """The end of the call is here."""
        return self._result is not None or self._error is not None

    @property
    def told(self) -> Result[A] | None:
        """What the call was answered, if it has been."""
        return self._result

    def put(self, frame: Progress | Result[Any] | Fault) -> None:
        """Called by the gate: the next frame."""
        self.is_new = True
        match frame:
            case Result():
                self._result = frame
            case Fault():
                self._error = error_of(frame)
            case _:
                self._queue.put(frame)

    def fail(self, error: AiosError) -> None:
        """Called by the gate: no frame will come any more."""
        if not self.is_over:
            self._error = error
            self.is_new = True

    def __aiter__(self) -> AsyncIterator[Progress]:
        return self

    async def __anext__(self) -> Progress:
        while not self._queue:
            if self._error is not None:
                raise self._error
            if self._result is not None:
                raise StopAsyncIteration
            await self._gate.wait(self)
        frame = self._queue.take()
        assert frame is not None
        return frame

    async def result(self) -> Result[A]:
        """Skip what was not read and return the end of the call.

        Raises:
            AiosError: The call ended in a `Fault`, or the connection broke.
        """
        while not self.is_over:
            self._queue.clear()
            await self._gate.wait(self)
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result
