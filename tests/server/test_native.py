import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.serving import Served, chat, serving, slow_engine, until_idle, until_running

from aios.abi.calls import GetPid, Kill, Log, Logs, Stop, Wait
from aios.abi.every import Frame
from aios.abi.gate import Fault, Line, Result, Token
from aios.abi.packets import HEADER_BYTES, Cancel, Hello, Refusal, Reply, Request, Welcome, pack
from aios.abi.types import Pid
from aios.abi.wire import MAX_VALUES, STEP_VALUES, ToServer, unpack_to_server
from aios.config import ServerConfig
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import Conflict, InvalidCall, KernelBug, ResourceExhausted
from aios.sdk.packets import PacketBuffer
from aios.sdk.socket import UnixGate
from aios.sdk.stream import UnixStream
from aios.server import native

pytestmark = pytest.mark.anyio

ToClient = Welcome | Refusal | Reply[Frame]
_to_client: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


class Peer:
    """A client that says what it likes."""

    def __init__(self, stream: UnixStream) -> None:
        self.stream = stream
        self._buffer = PacketBuffer()
        self._bodies: list[bytes] = []

    async def say(self, *packets: ToServer | bytes) -> None:
        data = (packet if isinstance(packet, bytes) else pack(packet) for packet in packets)
        await self.stream.send(b"".join(data))

    async def hear(self) -> ToClient | None:
        """The next packet; None when the server has closed."""
        with anyio.fail_after(30):
            while not self._bodies:
                try:
                    data = await self.stream.receive()
                except OSError:
                    return None
                if not data:
                    return None
                self._bodies = self._buffer.feed(data)
        return _to_client.decode(self._bodies.pop(0))

    async def hear_end(self, number: int) -> Result[object] | Fault:  # type: ignore[type-var] # any answer
        """The end of a call."""
        while True:
            packet = await self.hear()
            assert isinstance(packet, Reply), packet
            if packet.id == number and isinstance(packet.frame, Result | Fault):
                return packet.frame  # type: ignore[return-value] # as above


@asynccontextmanager
async def peer_of(served: Served, *, greets: bool = True) -> AsyncIterator[Peer]:
    stream = await UnixStream.connect(served.path)
    with closing(stream):
        peer = Peer(stream)
        if greets:
            await peer.say(Hello(served.token))
            assert await peer.hear() == Welcome(Pid(1))
        yield peer


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


async def test_the_socket_is_private() -> None:
    async with serving(http=False) as served:
        path = Path(served.path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()


async def test_calls_may_come_with_the_hello() -> None:
    async with serving(http=False) as served, peer_of(served, greets=False) as peer:
        await peer.say(Hello(served.token), Request(1, GetPid()), Request(2, GetPid()))
        assert await peer.hear() == Welcome(Pid(1))
        assert isinstance(await peer.hear_end(1), Result)
        assert isinstance(await peer.hear_end(2), Result)


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (Request(1, GetPid()), "unauthenticated"),
        (Hello("aios_wrong"), "unauthenticated"),
        (Hello("x" * 50_000), "unauthenticated"),
        (Hello("t", version=99), "unsupported"),
        (framed(b"\xc1"), "invalid_call"),
        (framed(b""), "invalid_call"),
        (b"\xff\xff\xff\xff", "too_large"),
        (b"GET / HTTP/1.1\r\n\r\n", "too_large"),
        (framed(b"x" * 200_000)[:100_000], "too_large"),
    ],
)
async def test_a_bad_first_packet_is_refused_and_the_connection_closed(
    first: ToServer | bytes, code: str
) -> None:
    async with serving(http=False) as served:
        async with peer_of(served, greets=False) as peer:
            await peer.say(first)
            refusal = await peer.hear()
            assert isinstance(refusal, Refusal)
            assert refusal.fault.code == code
            assert await peer.hear() is None
        async with UnixGate.connect(served.path, served.token) as gate:
            assert (await gate.call(GetPid())).value.pid == 1


async def test_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "HELLO_TIMEOUT_S", 0.05)
    async with serving(http=False) as served, peer_of(served, greets=False) as peer:
        refusal = await peer.hear()
        assert isinstance(refusal, Refusal)
        assert "hello" in refusal.fault.message
        assert await peer.hear() is None


@pytest.mark.parametrize(
    "request_",
    [
        {"type": "request", "id": 7},
        {"type": "request", "id": 7, "call": {"call": "no-such-call"}},
        {"type": "request", "id": 7, "call": {"call": "kill", "pid": "x"}},
        {"type": "request", "id": 7, "call": {"call": "getpid", "more": 1}},
        {"type": "request", "id": 7, "call": {"call": "getpid", "deadline_s": float("nan")}},
        {"type": "request", "id": 7, "call": {"call": "nice", "pid": 1, "nice": 10**6}},
        {"type": "request", "id": 7, "call": {"call": "chat", "messages": []}},
        {"type": "request", "id": 7, "call": {"call": "log", "text": 5}},
        {"type": "request", "id": 7, "call": {"call": "getpid"}, "job": 1 << 63},
    ],
)
async def test_a_malformed_call_fails_alone(request_: object) -> None:
    async with serving(http=False) as served, peer_of(served) as peer:
        await peer.say(framed(msgspec.msgpack.encode(request_)), Request(8, GetPid()))
        end = await peer.hear_end(7)
        assert isinstance(end, Fault)
        assert end.code == InvalidCall.code
        assert isinstance(await peer.hear_end(8), Result)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x93" * 100_000,
        msgspec.msgpack.encode({"type": "request", "id": "x"}),
        msgspec.msgpack.encode({"type": "reply", "id": 1}),
        msgspec.msgpack.encode([1, 2, 3]),
        pack(Hello("again"))[4:],
    ],
)
async def test_a_packet_without_an_id_ends_the_connection_with_a_reason(body: bytes) -> None:
    async with serving(http=False) as served:
        async with peer_of(served) as peer:
            await peer.say(Request(1, GetPid()), framed(body))
            packets = []
            while (packet := await peer.hear()) is not None:
                packets.append(packet)
            assert isinstance(packets[-1], Refusal)
            assert packets[-1].fault.code == InvalidCall.code
        async with UnixGate.connect(served.path, served.token) as gate:
            assert (await gate.call(GetPid())).value.pid == 1


async def test_no_bytes_hurt_anybody_else() -> None:
    async with serving(http=False) as served:
        async with UnixGate.connect(served.path, served.token) as gate:

            @settings(
                max_examples=60,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            )
            @given(st.lists(st.binary(max_size=300), max_size=4), st.booleans(), st.booleans())
            def throw(bodies: list[bytes], greets: bool, is_framed: bool) -> None:
                with socket.socket(socket.AF_UNIX) as raw:
                    raw.settimeout(0.0)
                    raw.connect(served.path)
                    if greets:
                        raw.send(pack(Hello(served.token)))
                    for body in bodies:
                        raw.send(framed(body) if is_framed else body)

            throw()
            assert (await gate.call(GetPid())).value.pid == 1
        await until_idle(served.kernel)


async def test_an_id_in_use_ends_the_connection() -> None:
    async with serving(http=False) as served, peer_of(served) as peer:
        guest, _ = served.kernel.admit("g")
        await peer.say(Request(1, Wait(pid=guest.pid)), Request(1, GetPid()))
        packet = await peer.hear()
        while isinstance(packet, Reply):
            packet = await peer.hear()
        assert isinstance(packet, Refusal)
        await until_idle(served.kernel)


async def test_a_cancelled_call_still_gets_its_one_end() -> None:
    async with serving(http=False) as served, peer_of(served) as peer:
        guest, _ = served.kernel.admit("g")
        for stream in (False, True):
            await peer.say(
                Request(1, Wait(pid=guest.pid), stream), Cancel(1), Cancel(1), Cancel(99)
            )
            end = await peer.hear_end(1)
            assert isinstance(end, Fault)
            assert end.code == Conflict.code
        await peer.say(Request(2, GetPid()))
        assert isinstance(await peer.hear_end(2), Result)


async def test_too_many_calls_in_flight_are_refused_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "MAX_IN_FLIGHT", 3)
    async with serving(http=False) as served, peer_of(served) as peer:
        guest, _ = served.kernel.admit("g")
        for number in range(5):
            await peer.say(Request(number, Wait(pid=guest.pid)))
        for number in (3, 4):
            end = await peer.hear_end(number)
            assert isinstance(end, Fault)
            assert end.code == ResourceExhausted.code


async def test_a_client_that_goes_takes_its_calls_with_it() -> None:
    async with serving(slow_engine(), http=False) as served:
        async with peer_of(served) as peer:
            for number in range(3):
                await peer.say(Request(number, chat(max_tokens=None), number % 2 == 0))
            await until_running(served.kernel, 3)
        await until_idle(served.kernel)


@pytest.mark.no_cover
async def test_a_slow_reader_gets_every_token_and_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "BUSY_BYTES", 2_000)
    text = "".join(f"{number} " for number in range(15_000))
    engine = ScriptedEngine(
        script=Script(replies=(text,)), tokens_per_read=4, window_tokens=1_000_000
    )
    async with serving(engine, http=False) as served, peer_of(served) as peer:
        await peer.say(Request(1, chat(max_tokens=None), stream=True))
        async with UnixGate.connect(served.path, served.token) as gate:
            with anyio.fail_after(30):
                while served.kernel.info().n_in_flight:
                    assert (await gate.call(GetPid())).value.pid == 1
        read: list[str] = []
        while True:
            packet = await peer.hear()
            assert isinstance(packet, Reply)
            if isinstance(packet.frame, Result):
                break
            assert isinstance(packet.frame, Token)
            read.append(packet.frame.text)
        assert "".join(read) == text
        assert max(map(len, read)) > 1_000, "what could not be sent came in larger pieces"


async def test_a_client_that_never_reads_costs_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "FULL_BYTES", 10_000)
    async with serving(http=False) as served, peer_of(served) as peer:
        await served.kernel.init_gate().call(Log(text="x" * 60_000))
        with anyio.move_on_after(0.5) as scope:
            for number in range(100_000):
                await peer.say(Request(number, Logs(pid=Pid(1)), stream=True))
        assert scope.cancelled_caught, "the server stopped taking calls"
        async with UnixGate.connect(served.path, served.token) as gate:
            assert (await gate.call(GetPid())).value.pid == 1
            async with gate.open_call(Logs(pid=Pid(1))) as frames:
                assert [frame async for frame in frames if isinstance(frame, Line)]


async def test_one_connection_too_many_is_told_so() -> None:
    config = ServerConfig(port=0, max_connections=4)
    async with serving(http=False, server=config) as served:
        guest, token = served.kernel.admit("crew")
        async with (
            UnixGate.connect(served.path, token) as first,
            UnixGate.connect(served.path, token) as second,
        ):
            for gate in (first, second):
                await gate.call(GetPid())
            async with peer_of(served, greets=False) as third:
                await third.say(Hello(token))
                refusal = await third.hear()
                assert isinstance(refusal, Refusal)
                assert "2 of crew and what it started" in refusal.fault.message
            async with (
                UnixGate.connect(served.path, served.kernel.admit("a")[1]),
                UnixGate.connect(served.path, served.kernel.admit("b")[1]),
                peer_of(served, greets=False) as last,
            ):
                await last.say(Hello(served.kernel.admit("c")[1]))
                refusal = await last.hear()
                assert isinstance(refusal, Refusal)
                assert refusal.fault.code == ResourceExhausted.code
                assert "4 connections are open" in refusal.fault.message
            async with UnixGate.connect(served.path, served.token) as owner:
                await owner.call(Kill(pid=guest.pid))
        with anyio.fail_after(30):
            other = served.kernel.admit("other")[1]
            while True:
                with suppress(ResourceExhausted):  # until the server has seen the others go
                    async with UnixGate.connect(served.path, other):
                        break


async def test_connections_that_say_nothing_keep_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "MAX_SILENT", 2)
    config = ServerConfig(port=0, max_connections=2)
    async with serving(http=False, server=config) as served, AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(peer_of(served, greets=False)) for _ in range(3)]
        assert await silent[0].hear() is None, "the oldest has to go"
        async with UnixGate.connect(served.path, served.token) as owner:
            assert (await owner.call(GetPid())).value.pid == 1
        await silent[2].say(Hello(served.token))
        assert await silent[2].hear() == Welcome(Pid(1))


def n_open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


async def test_who_connects_again_and_again_lets_others_have_their_turn() -> None:
    async with serving(http=False) as served:
        await anyio.wait_all_tasks_blocked()
        with ExitStack() as stack, anyio.fail_after(30):
            for _ in range(100):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(served.path)
            n_before = n_open = n_open_files()
            while n_open < n_before + 100:
                await anyio.lowlevel.checkpoint()
                n_last, n_open = n_open, n_open_files()
                assert n_open <= n_last + 2, "one in each turn of the event loop"


async def test_who_sends_many_small_packets_lets_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[bytes] = []

    def unpack(body: bytes) -> ToServer:
        taken.append(body)
        return unpack_to_server(body)

    async with serving(http=False) as served, peer_of(served) as peer:
        monkeypatch.setattr(native, "unpack_to_server", unpack)
        with anyio.fail_after(30):
            await peer.say(*(Cancel(number) for number in range(5_000)))
            n_taken = 0
            while n_taken < 5_000:
                await anyio.lowlevel.checkpoint()
                assert len(taken) <= n_taken + 2 * native.TAKEN_AT_ONCE
                n_taken = len(taken)
    assert [unpack_to_server(body) for body in taken[:20]] == [Cancel(n) for n in range(20)]


async def test_others_have_their_turn_while_the_values_of_a_packet_are_counted() -> None:
    values = b"\xdd" + (1_100_000).to_bytes(4, "big") + b"\xc0" * 1_100_000
    async with serving(http=False) as served, peer_of(served) as peer:
        n_turns = 0
        async with anyio.create_task_group() as tasks:

            async def count() -> None:
                nonlocal n_turns
                while True:
                    await anyio.lowlevel.checkpoint()
                    n_turns += 1

            await peer.say(len(values).to_bytes(HEADER_BYTES, "big") + values)
            tasks.start_soon(count)
            assert isinstance(await peer.hear(), Refusal)
            tasks.cancel_scope.cancel()
    assert n_turns > MAX_VALUES // STEP_VALUES


async def test_a_stale_socket_file_is_no_obstacle() -> None:
    async with serving(http=False) as served:
        path = Path(served.path)
        async with anyio.create_task_group() as tasks:
            stale = path.with_name("stale")
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(stale))
            await tasks.start(native.serve_unix, served.kernel, stale)
            async with UnixGate.connect(str(stale), served.token) as gate:
                assert (await gate.call(GetPid())).value.pid == 1
            tasks.cancel_scope.cancel()
        assert not stale.exists()


async def test_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(http=False) as served, peer_of(served, greets=False) as peer:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getuid", lambda: 12345)
            patch.setattr(native, "ROOT_UID", 12346)
            refusal = await peer.hear()
        assert isinstance(refusal, Refusal)
        assert refusal.fault.code == "access_denied"


async def test_a_stopped_process_gets_its_answer_after_cont() -> None:
    async with serving(http=False) as served:
        guest, token = served.kernel.admit("held")
        owner = served.kernel.init_gate()
        async with UnixGate.connect(served.path, token) as gate:
            await owner.call(Stop(pid=guest.pid))
            with anyio.move_on_after(0.1) as scope:
                await gate.call(GetPid())
            assert scope.cancelled_caught


async def test_an_answer_that_cannot_be_sent_is_a_fault_of_its_call_alone() -> None:
    engine = ScriptedEngine(script=Script(replies=("lone \ud800", "lone \ud800")))
    async with serving(engine, http=False) as served:
        async with UnixGate.connect(served.path, served.token) as gate:
            for _ in range(2):
                with pytest.raises(KernelBug, match="encoded"):
                    await gate.call(chat(max_tokens=None))
                assert (await gate.call(GetPid())).value.pid == 1


async def test_a_bug_in_the_kernel_is_a_fault_of_its_call_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(http=False) as served:
        async with UnixGate.connect(served.path, served.token) as gate:
            with monkeypatch.context() as patch:
                patch.setattr(served.kernel.journal, "begin", lambda *_, **__: 1 // 0)
                with pytest.raises(KernelBug, match="ZeroDivisionError"):
                    await gate.call(GetPid())
            assert (await gate.call(GetPid())).value.pid == 1
        served.kernel.init.runs.clear()  # what the bug left
