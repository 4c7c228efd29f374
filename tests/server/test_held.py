"""What one program and those that it started may hold at the socket, and that nobody else notices."""

import base64
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing

import anyio
import httpx
import msgspec
import pytest
from tests.server.serving import Served, serving, slow_engine, until_idle
from tests.server.test_native import Peer, framed

from aios.abi import wire
from aios.abi.calls import Complete, GetPid
from aios.abi.gate import Fault, Result
from aios.abi.packets import Cancel, Hello, Refusal, Reply, Request, Welcome, pack
from aios.abi.storage import FileEdit, FileRead, Put
from aios.errors import InvalidCall, ResourceExhausted
from aios.sdk.socket import UnixGate
from aios.sdk.stream import UnixStream
from aios.server import held, limits, native

pytestmark = pytest.mark.anyio

MIB = 1 << 20


def edit(n_bytes: int) -> FileEdit:
    return FileEdit(edits=(Put(path="mine", data=b"x" * n_bytes),))


@pytest.fixture(autouse=True)
def _bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "MAX_HELD_BYTES", MIB)


@asynccontextmanager
async def guest_of(served: Served, token: str) -> AsyncIterator[Peer]:
    stream = await UnixStream.connect(served.path)
    with closing(stream):
        peer = Peer(stream)
        await peer.say(Hello(token))
        assert isinstance(await peer.hear(), Welcome)
        yield peer


async def assert_others_are_served(served: Served) -> None:
    """The owner and another guest, with packets that the crew may not send now."""
    bystander = served.kernel.admit("bystander")[1]
    for token, path in ((served.token, "/shared/theirs"), (bystander, "theirs")):
        async with UnixGate.connect(served.path, token) as gate:
            await gate.call(FileEdit(edits=(Put(path=path, data=b"x" * 500_000),)))


async def assert_served(peer: Peer, number: int) -> None:
    """It may send large packets again, once the server has seen that there is room."""
    with anyio.fail_after(30):
        while True:
            await peer.say(Request(number, edit(300_000)))
            end = await peer.hear_end(number)
            if isinstance(end, Result):
                return
            assert end.code == ResourceExhausted.code
            await anyio.sleep(0.02)


async def test_calls_in_flight_are_bounded_by_their_bytes() -> None:
    async with serving(slow_engine(n_slots=1), http=False) as served:
        token = served.kernel.admit("crew")[1]
        async with guest_of(served, token) as peer, guest_of(served, token) as other:
            call = Complete(prompt="x" * 300_000)
            for number in range(3):
                await peer.say(Request(number, call))
            await other.say(Request(7, call))
            end = await other.hear_end(7)
            assert isinstance(end, Fault)
            assert end.code == ResourceExhausted.code
            assert "crew and what it started hold" in end.message
            await other.say(Request(8, GetPid()))
            assert isinstance(await other.hear_end(8), Result), "small ones go on"
            await assert_others_are_served(served)
            await peer.say(*map(Cancel, range(3)))
            await assert_served(other, 9)


async def test_packets_that_never_become_whole_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "ROOM_TIMEOUT_S", 0.2)
    async with serving(http=False) as served:
        token = served.kernel.admit("crew")[1]
        async with guest_of(served, token) as first, guest_of(served, token) as second:
            for peer in (first, second):
                await peer.say(framed(b"x" * 900_000)[:600_000])
            refusal = await second.hear()
            assert isinstance(refusal, Refusal)
            assert refusal.fault.code == ResourceExhausted.code
            assert "in packets that are not whole" in refusal.fault.message
            assert await second.hear() is None
            await assert_others_are_served(served)
        async with guest_of(served, token) as peer:
            await assert_served(peer, 1)


async def test_a_large_packet_waits_in_its_middle_for_the_others() -> None:
    async with serving(http=False) as served:
        token = served.kernel.admit("crew")[1]
        packet = pack(Request(5, edit(900_000)))
        async with (
            guest_of(served, token) as last,
            anyio.create_task_group() as tasks,
            AsyncExitStack() as stack,
        ):
            await last.say(packet[:100_000])
            for _ in range(4):
                peer = await stack.enter_async_context(guest_of(served, token))
                await peer.say(framed(b"x" * 900_000)[:260_000])
            said = anyio.Event()

            async def go_on() -> None:
                await last.say(packet[100_000:])
                said.set()

            tasks.start_soon(go_on)
            with anyio.move_on_after(0.2) as scope:
                await said.wait()
            assert scope.cancelled_caught, "there is no room"
            await stack.aclose()
            assert isinstance(await last.hear_end(5), Result)


async def test_answers_that_nobody_reads_are_bounded() -> None:
    async with serving(http=False) as served:
        token = served.kernel.admit("crew")[1]
        async with guest_of(served, token) as peer:
            await peer.say(Request(1, edit(300_000)))
            assert isinstance(await peer.hear_end(1), Result)
            numbers = range(2, 30)
            for number in numbers:
                await peer.say(Request(number, FileRead(path="mine")))
            with anyio.fail_after(30):
                while served.kernel.info().n_calls < len(numbers):
                    await anyio.sleep(0.01)
            await until_idle(served.kernel)
            await assert_others_are_served(served)
            packets = [await peer.hear() for _ in numbers]
            ends = [packet.frame for packet in packets if isinstance(packet, Reply)]
            faults = [end for end in ends if isinstance(end, Fault)]
            assert {end.code for end in faults} == {ResourceExhausted.code}
            assert "the call is done, but its answer of 300," in faults[0].message
            assert 2 <= len(ends) - len(faults) <= 2 + MIB // 300_000
            await assert_served(peer, 40)


async def test_a_call_of_too_many_values_fails_alone_wherever_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "MAX_VALUES", 30_000)
    async with serving(http=False) as served, guest_of(served, served.token) as peer:
        many = msgspec.msgpack.encode({"schema": {"enum": [[]] * 40_000}})
        few = msgspec.msgpack.encode({"name": "x", "arguments": {}})
        for field in (b"tools", b"constraint", b"arguments", b"no such field"):
            twice = b"\xa9arguments" + many + b"\xa9arguments" + few
            call = b"\x84\xa4call\xa8tool_run" + bytes([0xA0 + len(field)]) + field + many + twice
            await peer.say(framed(b"\x83\xa4type\xa7request\xa2id\x07\xa4call" + call))
            end = await peer.hear_end(7)
            assert isinstance(end, Fault)
            assert end.code == InvalidCall.code
            assert "over 30,000 values" in end.message
        await peer.say(Request(8, GetPid()))
        assert isinstance(await peer.hear_end(8), Result)


async def post(served: Served, token: str, body: bytes, path: str = "/aios/call") -> httpx.Response:
    async with served.client(token) as client:
        return await client.post(path, content=body)


PATHS = ["/aios/call", "/v1/chat/completions", "/v1/responses"]


@pytest.mark.parametrize("path", PATHS)
async def test_bodies_over_http_are_bounded_as_they_come(path: str) -> None:
    async with serving() as served, anyio.create_task_group() as tasks:
        token = served.kernel.admit("crew")[1]
        has_begun = anyio.Event()

        async def never_whole() -> AsyncIterator[bytes]:
            yield b"[" + b" " * 900_000
            has_begun.set()
            await anyio.sleep_forever()

        async def begin() -> None:
            async with served.client(token) as client:
                await client.post("/aios/call", content=never_whole())

        tasks.start_soon(begin)
        with anyio.fail_after(30):
            await has_begun.wait()
            while True:  # until the server has read it
                reply = await post(served, token, b'"%s"' % (b"x" * 300_000), path)
                if reply.status_code == 429:
                    break
        assert "crew and what it started hold" in reply.text
        assert (await post(served, token, b'{"call":"getpid"}')).status_code == 200
        other = await post(served, served.token, b'"%s"' % (b"x" * 900_000), path)
        assert other.status_code == 400
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_of_many_values_counts_for_what_they_take(path: str) -> None:
    async with serving() as served:
        token = served.kernel.admit("crew")[1]
        reply = await post(served, token, b"[%s0]" % (b"[]," * 20_000), path)
        assert reply.status_code == 429
        assert (await post(served, token, b"[]", path)).status_code == 400


async def test_a_body_of_too_many_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_VALUES", 100_000)
    async with serving() as served:
        for path in PATHS:
            reply = await post(served, served.token, b"[%s0]" % (b"[]," * 200_000), path)
            assert reply.status_code == 400
            assert "values" in reply.text


async def test_answers_over_http_that_nobody_reads_are_bounded() -> None:
    small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 << 10)]
    size = 8_000_000  # more than what the system buffers for a connection
    async with serving() as served, AsyncExitStack() as stack:
        token = served.kernel.admit("crew")[1]
        content = Put(path="/agents/crew/mine", data=b"x" * size)
        await served.kernel.init_gate().call(FileEdit(edits=(content,)))
        transport = httpx.AsyncHTTPTransport(socket_options=small)
        headers = {"Authorization": f"Bearer {token}"}
        client = httpx.AsyncClient(
            transport=transport, base_url=served.url, headers=headers, timeout=30
        )
        await stack.enter_async_context(client)
        call = {"call": "file_read", "path": "mine"}
        first = await stack.enter_async_context(client.stream("POST", "/aios/call", json=call))
        assert first.status_code == 200
        refused = await client.post("/aios/call", json=call)
        assert refused.status_code == 429
        assert "crew and what it started hold" in refused.json()["message"]
        stream = await client.post("/aios/stream", json=call)
        assert msgspec.json.decode(stream.content)["code"] == ResourceExhausted.code
        assert (await client.post("/aios/call", json={"call": "getpid"})).status_code == 200
        answer = msgspec.json.decode(await first.aread())
        assert len(base64.b64decode(answer["value"]["data"])) == size
        body = b'"%s"' % (b"x" * 300_000)
        with anyio.fail_after(30):
            while (await client.post("/aios/call", content=body)).status_code == 429:
                await anyio.sleep(0.01)
