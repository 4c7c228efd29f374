"""The native protocol (`abi/packets.py`) on a Unix socket: many calls in flight on each connection.

    reader --- one task a call ---> outbox ---> writer        the writer sends all that waits in one piece

A client that does not read fills its own outbox and nothing else: progress frames stay in the call's buffer, where
tokens merge, and a call whose buffer is full waits; the reader takes no further calls. What a client and its family hold in all is bounded
(`held.py`). A client that goes away takes its calls with it.
"""

import logging
import os
import socket
import struct
from collections import Counter
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec
from msgspec import Struct

from aios.abi.call import Call
from aios.abi.every import AnyAnswer, AnyCall, Frame
from aios.abi.gate import Fault, Gate, Progress, Result, fault_of, in_course_of
from aios.abi.packets import (
    WIRE_VERSION,
    Cancel,
    Hello,
    Refusal,
    Reply,
    Request,
    Welcome,
    pack,
)
from aios.abi.wire import LARGE_BYTES, unpack_to_server, weighing
from aios.errors import (
    AccessDenied,
    AiosError,
    Conflict,
    DeadlineExceeded,
    InvalidCall,
    KernelBug,
    ResourceExhausted,
    TooLarge,
    Unauthenticated,
    Unsupported,
)
from aios.kernel.kernel import Kernel
from aios.kernel.process import INIT_PID
from aios.kernel.waitqueue import WaitQueue
from aios.readers import Reader
from aios.sdk.packets import PacketBuffer
from aios.sdk.stream import UnixStream
from aios.server.held import Families, Held, Share

HELLO_TIMEOUT_S = 5.0
MAX_HELLO_BYTES = 64 << 10
MAX_SILENT = 256
"""Connections without a hello; the next takes the place of the oldest, so that nobody can keep the owner out by saying nothing."""
MAX_IN_FLIGHT = 1_024
"""Calls of one connection; the next is refused."""
ROOT_UID = 0
BACKLOG = 1_024
ACCEPT_PAUSE_S = 0.05
BUSY_BYTES = 256 << 10
"""Unsent bytes from which on progress frames wait in their call's buffer."""
FULL_BYTES = 4 << 20
"""Unsent bytes from which on no further call is read."""
TAKEN_AT_ONCE = 16
"""Packets of one connection that are cut and taken before others have their turn; thousands fit into what is read at once."""
ROOM_TIMEOUT_S = 30.0
"""How long a large packet may wait in its middle until others of its family are whole."""

_log = logging.getLogger(__name__)


async def serve_unix(
    kernel: Kernel,
    path: Path,
    *,
    max_connections: int = 1_024,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a kernel at a socket until cancelled; `task_status` tells when it listens.

    A file that is in the way is removed, so the caller must hold the lock of this `AIOS_HOME`.
    """
    server = _Server(kernel, max_connections)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            _listen(listener, path)
            async with anyio.create_task_group() as tasks:
                task_status.started()
                while True:
                    stream = await _accept(listener)
                    server.streams.add(stream)
                    tasks.start_soon(server.attend, stream)
        finally:
            server.close()
            path.unlink(missing_ok=True)  # noqa: ASYNC240 - a file of this machine's, gone at once


def _listen(listener: socket.socket, path: Path) -> None:
    path.unlink(missing_ok=True)
    listener.setblocking(False)
    listener.bind(str(path))
    path.chmod(0o600)  # until here the mode of its folder, 700, kept others out
    listener.listen(BACKLOG)


async def _accept(listener: socket.socket) -> UnixStream:
    while True:
        await anyio.lowlevel.checkpoint()  # the next may be there already, again and again
        try:
            return UnixStream(listener.accept()[0])
        except BlockingIOError:
            await anyio.wait_readable(listener)
        except OSError as error:  # out of files, or the client was quicker to leave
            _log.warning("a connection could not be taken: %s", error)
            await anyio.sleep(ACCEPT_PAUSE_S)


class _Server:
    """What the connections share."""

    def __init__(self, kernel: Kernel, max_connections: int) -> None:
        self._kernel = kernel
        self._max_connections = max_connections
        self._families = Families(kernel)
        self._arriving = Families(kernel, "packets that are not whole")
        self._n_others = Counter[str]()
        """Connections of others than the owner, who is never kept out: else a program could not be killed that takes all there are. By the child
        of init that they descend from: with all that it started, it has half of what there are at most."""
        self._silent: dict[UnixStream, anyio.CancelScope] = {}
        self.streams: set[UnixStream] = set()
        """The open connections, those included that nobody attends to yet."""

    async def attend(self, stream: UnixStream) -> None:
        """Serve one connection; whatever the client does stays within."""
        try:
            with suppress(OSError, anyio.ClosedResourceError):
                await self._converse(stream)
        finally:
            stream.close()
            self.streams.discard(stream)

    def close(self) -> None:
        """Close what is left."""
        for stream in self.streams:
            stream.close()

    async def _converse(self, stream: UnixStream) -> None:
        buffer = PacketBuffer()
        try:
            _check_peer(stream)
            hello = await self._hear(stream, buffer)
            if hello is None:
                return
            pid = self._kernel.authenticate(hello.token)
            gate = self._kernel.gate(pid)
            share, arriving = self._families.share_of(pid), self._arriving.share_of(pid)
            family = share.held.family
            if pid != INIT_PID:
                self._check_room(family)
        except TimeoutError:
            late = DeadlineExceeded(
                f"no hello within {HELLO_TIMEOUT_S} s", hint="send it first of all"
            )
            await _refuse(stream, late)
        except EOFError:
            return
        except AiosError as error:
            await _refuse(stream, error)
        else:
            self._n_others[family] += pid != INIT_PID
            try:
                await stream.send(pack(Welcome(pid)))
                connection = _Connection(stream, gate, buffer, share=share, arriving=arriving)
                await connection.attend()
            finally:
                self._n_others[family] -= pid != INIT_PID
                self._n_others += Counter()  # without those that have none any more

    async def _hear(self, stream: UnixStream, buffer: PacketBuffer) -> Hello | None:
        """The hello of a connection; None if it was silent for so long that others took its place.

        Raises:
            TimeoutError: None came in time.
        """
        if len(self._silent) >= MAX_SILENT:
            next(iter(self._silent.values())).cancel()
        try:
            with anyio.fail_after(HELLO_TIMEOUT_S), anyio.CancelScope() as scope:
                self._silent[stream] = scope
                return await _read_hello(stream, buffer)
        finally:
            del self._silent[stream]
        return None

    def _check_room(self, family: str) -> None:
        n_all, n_own = self._n_others.total(), self._n_others[family]
        if n_all >= self._max_connections or n_own >= max(1, self._max_connections // 2):
            raise ResourceExhausted(
                f"{n_all} connections are open, {n_own} of {family} and what it started",
                hint="one connection carries many calls; or raise server.max_connections",
                retry_after_s=1.0,
            )


class _Connection:
    """One client that has been let in."""

    def __init__(
        self,
        stream: UnixStream,
        gate: Gate,
        buffer: PacketBuffer,
        *,
        share: Share,
        arriving: Share,
    ) -> None:
        self._stream = stream
        self._gate = gate
        self._buffer = buffer
        self._share = share
        self._arriving = arriving
        self._calls: dict[int, anyio.CancelScope] = {}
        self._outbox: list[bytes] = []
        self._unsent_bytes = 0
        self._is_parting = False
        self._filled = WaitQueue()
        self._emptied = WaitQueue()

    async def attend(self) -> None:
        """Serve until either side closes; then every call that is left is cancelled."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, tasks.cancel_scope)
                try:
                    await self._read(tasks)
                except AiosError as error:
                    await self._part(error)
                except (OSError, EOFError):
                    pass  # gone
                tasks.cancel_scope.cancel()
        finally:
            self._share.close()
            self._arriving.close()

    async def _part(self, error: AiosError) -> None:
        """Say why the connection ends, as its last packet."""
        self._post(pack(Refusal(fault_of(error))))
        self._is_parting = True
        with anyio.move_on_after(HELLO_TIMEOUT_S):
            while self._unsent_bytes:
                await self._emptied.wait()

    async def _read(self, tasks: anyio.abc.TaskGroup) -> None:
        data = b""  # the first may have come with the hello
        while True:
            bodies = self._buffer.feed(data, at_most=TAKEN_AT_ONCE)
            data = b""  # nor is it kept while nothing comes
            is_last = len(bodies) < TAKEN_AT_ONCE
            while bodies:
                await self._take(bodies.pop(0), tasks)  # none is kept beyond its call
            if is_last:
                self._arriving.add(self._buffer.n_held - self._arriving.n_bytes)
                await self._wait_for_room()
                data = await _receive(self._stream)
            else:
                await anyio.lowlevel.checkpoint()

    async def _wait_for_room(self) -> None:
        """Until more may be read.

        Raises:
            ResourceExhausted: For too long there is no room for the rest of a large packet.
        """
        while self._unsent_bytes > (0 if self._share.held.is_full else FULL_BYTES):
            await self._emptied.wait()
        held = self._arriving.held
        if held.is_full and self._arriving.n_bytes > LARGE_BYTES:
            try:
                with anyio.fail_after(ROOM_TIMEOUT_S):
                    while held.is_full:
                        await held.room.wait()
            except TimeoutError as error:
                raise held.refusal() from error

    async def _take(self, body: bytes, tasks: anyio.abc.TaskGroup) -> None:
        """Act on a packet.

        Raises:
            InvalidCall: It makes no sense and cannot be answered by a `Fault`.
            ResourceExhausted: The same, and it is too large now.
        """
        try:
            weight = await self._weigh(body) if len(body) > LARGE_BYTES else 0
            self._share.held.check_room(weight)
            packet = unpack_to_server(body)
        except (InvalidCall, ResourceExhausted) as error:
            number = _find_id(body)
            if number is None:
                raise
            self._put(Reply(number, fault_of(error)))
            return
        match packet:
            case Request():
                self._begin(packet, weight, tasks)
            case Cancel(id=number):
                if number in self._calls:
                    self._calls[number].cancel()
            case Hello():
                raise InvalidCall("a second hello", hint="open another connection")

    async def _weigh(self, body: bytes) -> int:
        """What a packet will take in memory, while others have their turn; it counts for its sender meanwhile."""
        self._share.held.check_room(len(body))
        self._share.add(len(body))
        try:
            weight = 0
            for weight_so_far in weighing(body):
                weight = weight_so_far
                await anyio.lowlevel.checkpoint()
            return weight
        finally:
            self._share.add(-len(body))

    def _begin(self, request: Request[AnyCall], weight: int, tasks: anyio.abc.TaskGroup) -> None:
        if request.id in self._calls:
            raise InvalidCall(f"a call with the id {request.id} is in flight", hint="count upwards")
        if len(self._calls) >= MAX_IN_FLIGHT:
            full = ResourceExhausted(
                f"{MAX_IN_FLIGHT} calls are in flight on this connection",
                hint="wait for some of them",
                retry_after_s=1.0,
            )
            self._put(Reply(request.id, fault_of(full)))
            return
        scope = self._calls[request.id] = anyio.CancelScope()
        if weight:
            self._share.add(weight)
        tasks.start_soon(self._perform, request, weight, scope)

    async def _perform(
        self, request: Request[AnyCall], weight: int, scope: anyio.CancelScope
    ) -> None:
        """Carry out one call; exactly one `Result` or `Fault` goes out whatever happens."""
        cancelled = Conflict("the caller cancelled the call", hint="make it again")
        end: Result[AnyAnswer] | Fault = fault_of(cancelled)
        try:
            with scope, in_course_of(request.job):
                call: Call[AnyAnswer] = request.call
                if request.stream:
                    end = await self._stream_call(request.id, call)
                else:
                    end = await self._gate.call(call)
        except AiosError as error:
            end = fault_of(error)
        except Exception as error:  # noqa: BLE001 - the edge: a bug of ours ends this call only
            _log.exception("a call failed")
            bug = KernelBug(f"{type(error).__name__}: {error}", hint="please report it")
            end = fault_of(bug)
        finally:
            del self._calls[request.id]
            if weight:
                self._share.add(-weight)
        self._put(Reply(request.id, end))

    async def _stream_call(self, number: int, call: Call[AnyAnswer]) -> Result[AnyAnswer]:
        async with self._gate.open_call(call) as frames:
            async for frame in frames:
                await self._put_progress(number, frame)
            return await frames.result()

    async def _put_progress(self, number: int, frame: Progress) -> None:
        while self._unsent_bytes > BUSY_BYTES:
            await self._emptied.wait()
        self._put(Reply(number, frame))

    def _put(self, reply: Reply[Frame]) -> None:
        if self._is_parting:
            return
        packet = _packed(reply)
        if len(packet) > LARGE_BYTES and isinstance(reply.frame, Result):
            held = self._share.held
            if held.is_full:
                packet = pack(Reply(reply.id, fault_of(_unkept(len(packet), held))))
        self._post(packet)

    def _post(self, packet: bytes) -> None:
        """Hand a packet to the writer; never waits."""
        self._outbox.append(packet)
        self._unsent_bytes += len(packet)
        self._share.add(len(packet))
        self._filled.wake_all()

    async def _write(self, connection: anyio.CancelScope) -> None:
        try:
            while True:
                while not self._outbox:
                    await self._filled.wait()
                await self._flush()
        except (OSError, anyio.ClosedResourceError):
            connection.cancel()

    async def _flush(self) -> None:
        data = b"".join(self._outbox)
        self._outbox.clear()
        await self._stream.send(data)
        self._unsent_bytes -= len(data)
        self._share.add(-len(data))
        self._emptied.wake_all()


class _Numbered(Struct, tag_field="type", tag="request"):
    """As much of a malformed request as is needed to answer it."""

    id: int


_numbered = Reader(msgspec.msgpack.Decoder, _Numbered)


def _find_id(body: bytes) -> int | None:
    try:
        return _numbered.decode(body).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _packed(reply: Reply[Frame]) -> bytes:
    """The packet of a reply; one that cannot be sent becomes a `Fault`."""
    try:
        return pack(reply)
    except TooLarge as error:
        return pack(Reply(reply.id, fault_of(error)))
    except InvalidCall as error:  # lone surrogates, for one
        bug = KernelBug(f"the answer cannot be sent: {error}", hint="please report it")
        return pack(Reply(reply.id, fault_of(bug)))


def _unkept(n_bytes: int, held: Held) -> ResourceExhausted:
    full = held.refusal()
    return ResourceExhausted(
        f"the call is done, but its answer of {n_bytes:,} bytes cannot be kept: {full.message}",
        hint="read the answers of some calls before you make others",
        retry_after_s=full.retry_after_s,
    )


async def _read_hello(stream: UnixStream, buffer: PacketBuffer) -> Hello:
    n_bytes, bodies = 0, list[bytes]()
    while not bodies:
        data = await _receive(stream)
        n_bytes += len(data)
        bodies = buffer.feed(data, at_most=1)
        if n_bytes > MAX_HELLO_BYTES and not bodies:
            raise TooLarge(f"a hello of over {MAX_HELLO_BYTES} bytes", hint="send a token first")
    hello = unpack_to_server(bodies[0])
    if not isinstance(hello, Hello):
        raise Unauthenticated("the first packet must be a hello", hint="send the token first")
    if hello.version != WIRE_VERSION:
        raise Unsupported(
            f"the client speaks version {hello.version} of the protocol, this kernel {WIRE_VERSION}",
            hint="use the SDK of the kernel's own version",
        )
    return hello


async def _receive(stream: UnixStream) -> bytes:
    data = await stream.receive()
    if not data:
        raise EOFError
    return data


async def _refuse(stream: UnixStream, error: AiosError) -> None:
    packet = Refusal(fault_of(error))
    with anyio.move_on_after(HELLO_TIMEOUT_S):
        await stream.send(pack(packet))


def _check_peer(stream: UnixStream) -> None:
    """Only the user that runs the kernel may talk to it, whatever the mode of the socket.

    Raises:
        AccessDenied: It is another user.
    """
    layout = "3i"  # struct ucred: pid, uid, gid
    found = stream.raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(layout))
    _, uid, _ = struct.unpack(layout, found)
    if uid not in (os.getuid(), ROOT_UID):
        raise AccessDenied(
            f"the socket belongs to user {os.getuid()}, you are user {uid}",
            hint="use the HTTP address with a token",
        )
