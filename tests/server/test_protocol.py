import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.abc
import msgspec
import pytest
from tests.server.serving import Served, chat, serving, slow_engine, until_idle, until_running

from aios.config import ServerConfig
from aios.sdk.files import Files
from aios.server.protocol import GuardedProtocol

pytestmark = pytest.mark.anyio

QUICK = ServerConfig(port=0, header_timeout_s=0.3, max_header_bytes=4096, max_body_bytes=100_000)


@asynccontextmanager
async def connected(served: Served) -> AsyncIterator[anyio.abc.SocketStream]:
    async with await anyio.connect_tcp("127.0.0.1", served.port) as stream:
        yield stream


async def read_all(stream: anyio.abc.SocketStream) -> bytes:
    """All that comes until the server closes."""
    found = b""
    with anyio.fail_after(30):
        try:
            while True:
                found += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return found


def head_of(served: Served, *lines: str, path: str = "/v1/chat/completions") -> bytes:
    start = [f"POST {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {served.token}"]
    return "\r\n".join([*start, *lines, "", ""]).encode()


async def assert_alive(served: Served) -> None:
    async with served.client() as client:
        assert (await client.get("/v1/models")).status_code == 200


def status_of(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1])


def error_of(reply: bytes) -> str:
    return str(json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["message"])


@pytest.mark.no_cover
@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT evil.com:443 HTTP/1.1\r\nHost: evil.com\r\n\r\n",
        b"GET http://[bad HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n X: folded\r\n\r\n",
        b"\x00" * 100,
    ],
)
async def test_what_is_no_http_gets_a_4xx_or_is_cut(data: bytes) -> None:
    async with serving(server=QUICK) as served:
        async with connected(served) as stream:
            await stream.send(data)
            reply = await read_all_or_stop(stream)
            assert 400 <= status_of(reply) < 500, reply
        await assert_alive(served)


async def read_all_or_stop(stream: anyio.abc.SocketStream) -> bytes:
    """The reply, whether or not the server keeps the connection."""
    found = b""
    with anyio.move_on_after(2):
        try:
            while True:
                found += await stream.receive()
                head, end, body = found.partition(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                if end and len(body) >= int(length or 0):
                    break
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass
    return found


async def test_a_large_head_is_refused_however_it_comes() -> None:
    async with serving(server=QUICK) as served:
        for head in (
            head_of(served, "X-Large: " + "x" * 6_000),
            head_of(served, *(f"X-{n}: x" for n in range(1_000))),
            head_of(served, path="/" + "x" * 6_000),
        ):
            async with connected(served) as stream:
                await stream.send(head)
                reply = await read_all(stream)
                assert status_of(reply) == 431, reply[:200]
                assert "4096" in error_of(reply)
        await assert_alive(served)


@pytest.mark.parametrize("kind", ["header", "url", "chunk-extension", "trailer"])
async def test_a_head_without_end_is_cut_off(kind: str) -> None:
    async with serving(server=QUICK) as served, connected(served) as stream:
        chunked = head_of(served, "Transfer-Encoding: chunked")
        start = {
            "header": b"GET / HTTP/1.1\r\nX: ",
            "url": b"GET /",
            "chunk-extension": chunked + b"1;",
            "trailer": chunked + b"0\r\nX: ",
        }[kind]
        n_sent = 0
        with anyio.fail_after(30):
            try:
                await stream.send(start)
                while True:
                    await stream.send(b"x" * 10_000)
                    n_sent += 10_000
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                pass
        assert n_sent < 10_000_000
        await assert_alive(served)


async def test_a_head_that_drips_is_given_up() -> None:
    async with serving(server=QUICK) as served, connected(served) as stream:
        with anyio.fail_after(30):
            try:
                for byte in head_of(served):
                    await stream.send(bytes([byte]))
                    await anyio.sleep(0.02)
                pytest.fail("the server waited for ever")
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                pass
        await assert_alive(served)


async def test_a_late_head_is_told_so_and_silence_is_just_closed() -> None:
    async with serving(server=QUICK) as served:
        async with connected(served) as stream:
            await stream.send(b"POST /v1/chat")
            reply = await read_all(stream)
            assert status_of(reply) == 408
            assert "0.3" in error_of(reply)
        async with connected(served) as stream:
            assert await read_all(stream) == b""


async def test_a_body_that_drips_is_given_up() -> None:
    async with serving(server=QUICK) as served:
        async with connected(served) as stream:
            await stream.send(head_of(served, "Content-Length: 50") + b"{")
            reply = await read_all(stream)
            assert status_of(reply) == 408
        await assert_alive(served)


async def test_a_body_of_a_gigabyte_is_refused_from_its_head() -> None:
    async with serving(server=QUICK) as served:
        for path in (
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/aios/call",
            "/aios/stream",
        ):
            async with connected(served) as stream:
                await stream.send(head_of(served, "Content-Length: 1073741824", path=path))
                reply = await read_all_or_stop(stream)
                assert status_of(reply) == 413
                assert b"100000" in reply
        await assert_alive(served)


async def test_a_chunked_body_of_a_gigabyte_is_refused_on_the_way() -> None:
    async with serving(server=QUICK) as served:
        async with connected(served) as stream:
            await stream.send(head_of(served, "Transfer-Encoding: chunked"))
            chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
            reply = b""
            with anyio.fail_after(30):
                async with anyio.create_task_group() as tasks:

                    async def pour() -> None:
                        try:
                            for _ in range(16_384):
                                await stream.send(chunk)
                        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                            return

                    tasks.start_soon(pour)
                    reply = await read_all_or_stop(stream)
                    tasks.cancel_scope.cancel()
            assert status_of(reply) == 413, reply
        await assert_alive(served)


async def test_a_client_that_sends_its_whole_body_first_still_sees_the_refusal() -> None:
    async with serving(server=QUICK) as served, served.client("aios_wrong") as client:
        reply = await client.post("/v1/chat/completions", content=b" " * 2_000_000)
        assert reply.status_code == 401
        reply = await client.post(
            "/v1/chat/completions",
            content=b" " * 2_000_000,
            headers={"Authorization": f"Bearer {served.token}"},
        )
        assert reply.status_code == 413


async def test_a_lying_content_length_gets_a_4xx() -> None:
    async with serving(server=QUICK) as served:
        async with connected(
            served
        ) as stream:  # shorter than what comes: the rest is another, broken request
            await stream.send(head_of(served, "Content-Length: 2") + b'{}{"messages":[]}')
            assert status_of(await read_all(stream)) == 400
        async with connected(served) as stream:  # longer than what comes
            await stream.send(head_of(served, "Content-Length: 99") + b"{}")
            assert status_of(await read_all(stream)) == 408
        await assert_alive(served)


async def test_sockets_closed_in_mid_body_hurt_nobody() -> None:
    async with serving(server=QUICK) as served:
        for n_bytes in (0, 1, 20, 100):
            for _ in range(10):
                async with connected(served) as stream:
                    await stream.send(head_of(served, "Content-Length: 200") + b"{" * n_bytes)
        await assert_alive(served)


async def test_a_client_may_wait_for_leave_to_send() -> None:
    async with serving(server=QUICK) as served:
        async with connected(served) as stream:
            body = b'{"call":"getpid"}'
            await stream.send(
                head_of(
                    served,
                    f"Content-Length: {len(body)}",
                    "Expect: 100-continue",
                    path="/aios/call",
                )
            )
            assert b"100 Continue" in await stream.receive()
            await stream.send(body)
            assert b'"pid":1' in await read_all_or_stop(stream)
        async with connected(served) as stream:
            await stream.send(head_of(served, "Content-Length: 999999999", "Expect: 100-continue"))
            assert status_of(await read_all(stream)) == 413, "no leave, but the reason"


async def test_compressed_bodies_are_refused() -> None:
    async with serving(server=QUICK) as served, served.client() as client:
        reply = await client.post(
            "/v1/chat/completions", content=b"x", headers={"Content-Encoding": "gzip"}
        )
        assert reply.status_code == 415


async def test_one_connection_too_many_is_told_so() -> None:
    body = msgspec.json.encode(chat(max_tokens=None))
    async with serving(slow_engine(), server=ServerConfig(port=0, max_connections=2)) as served:
        request = head_of(served, f"Content-Length: {len(body)}", path="/aios/stream") + body
        async with connected(served) as first, connected(served) as second:
            for stream in (first, second):
                await stream.send(request)
                with anyio.fail_after(30):
                    assert status_of(await stream.receive()) == 200
            async with connected(served) as third:
                reply = await read_all(third)
                assert status_of(reply) == 503
                assert "2 connections" in error_of(reply)


@pytest.mark.parametrize("begun", [b"", b"GET /health HTTP/1.1\r\n"])
async def test_connections_that_ask_for_nothing_keep_nobody_out(begun: bytes) -> None:
    ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with serving(server=ServerConfig(port=0, max_connections=8)) as served:
        async with AsyncExitStack() as held:
            silent = [await held.enter_async_context(connected(served)) for _ in range(8)]
            for stream in silent:
                await stream.send(begun or ask)
                if not begun:  # answered in this order, and kept open
                    assert status_of(await read_all_or_stop(stream)) == 200
            for n in range(4):
                guest = await held.enter_async_context(connected(served))
                await guest.send(ask)
                assert status_of(await read_all_or_stop(guest)) == 200
                with anyio.fail_after(30), suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    assert not await silent[n].receive(), "who has waited longest had to go"


@pytest.mark.parametrize("last", ["X: y", "Connection: close"])
async def test_connections_whose_replies_are_not_read_keep_nobody_out(
    last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[GuardedProtocol] = []
    begin = GuardedProtocol.connection_made

    def note(self: GuardedProtocol, transport: Any) -> None:
        made.append(self)
        begin(self, transport)

    monkeypatch.setattr(GuardedProtocol, "connection_made", note)
    body = b'{"call": "file_read", "path": "/shared/long"}'
    async with serving(server=ServerConfig(port=0, max_connections=2)) as served:
        await Files(served.kernel.init_gate()).write("/shared/long", b"x" * 8_000)
        async with AsyncExitStack() as held:

            async def ask(stream: anyio.abc.SocketStream, header: str) -> None:
                lines = (f"Content-Length: {len(body)}", header)
                await stream.send(head_of(served, *lines, path="/aios/call") + body)
                before_s = made[-1].idle_since_s
                while made[-1].idle_since_s == before_s:
                    await anyio.sleep(0.001)

            for n in range(2):
                stream = await held.enter_async_context(connected(served))
                with anyio.fail_after(60):
                    while len(made) == n:
                        await anyio.sleep(0.001)
                    while not made[n].transport.get_write_buffer_size():
                        await ask(stream, "X: y")
                    await ask(stream, last)
            first = made[0]
            await assert_alive(served)
            assert first not in first.connections, "it had to go, with what was not read"


async def test_requests_may_follow_each_other_without_waiting() -> None:
    async with serving(server=QUICK) as served, connected(served) as stream:
        body = b'{"call":"getpid"}'
        request = head_of(served, f"Content-Length: {len(body)}", path="/aios/call") + body
        await stream.send(request * 5)
        found = b""
        with anyio.fail_after(30):
            while found.count(b'"pid":1') < 5:
                found += await stream.receive()


@pytest.mark.parametrize("path", ["/aios/call", "/aios/stream"])
@pytest.mark.parametrize("is_at_once", [True, False])
async def test_who_leaves_with_a_second_request_under_way_takes_the_first_call_along(
    path: str, *, is_at_once: bool
) -> None:
    body = msgspec.json.encode(chat(max_tokens=None))
    async with serving(slow_engine(), server=QUICK) as served:
        request = head_of(served, f"Content-Length: {len(body)}", path=path) + body
        async with connected(served) as stream:
            await stream.send(request * (1 + is_at_once))
            await until_running(served.kernel)
            if not is_at_once:
                await stream.send(request)
        await until_idle(served.kernel)


async def test_too_many_requests_in_advance_end_the_connection() -> None:
    body = msgspec.json.encode(chat(max_tokens=None))
    async with serving(slow_engine(), server=QUICK) as served, connected(served) as stream:
        await stream.send(head_of(served, f"Content-Length: {len(body)}", path="/aios/call") + body)
        await until_running(served.kernel)
        await stream.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        reply = await read_all(stream)
        assert status_of(reply) == 429
        assert "wait for their answers" in error_of(reply)
        await until_idle(served.kernel)


async def test_an_upgrade_is_not_followed() -> None:
    async with serving(server=QUICK) as served:
        async with connected(served) as stream:
            await stream.send(
                b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert status_of(await read_all_or_stop(stream)) == 200
        await assert_alive(served)
