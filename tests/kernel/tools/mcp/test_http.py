"""Servers over Streamable HTTP, on loopback."""

import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import nan
from pathlib import Path

import anyio
import httpx2
import pytest
from tests.kernel.tools.mcp.by_hand import by_hand, reply, whole
from tests.kernel.tools.mcp.serving import PROGRAMS, check, kernel_with
from tests.kernel.tools.offering import run_tool

from aios.abi.mcp import McpList, McpServerInfo
from aios.config import McpConfig
from aios.errors import ToolFailed
from aios.kernel.kernel import Kernel
from aios.kernel.tools.mcp import http, wire
from aios.mcpconfig import McpServer

pytestmark = pytest.mark.anyio

STREAMED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@asynccontextmanager
async def official() -> AsyncIterator[str]:
    """The endpoint of a server of the SDK."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await anyio.open_process(
        [sys.executable, str(PROGRAMS / "official.py"), "--http", str(port)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        with anyio.fail_after(30):
            while True:
                try:
                    stream = await anyio.connect_tcp("127.0.0.1", port)
                except OSError:
                    await anyio.sleep(0.05)
                    continue
                await stream.aclose()
                break
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        await process.wait()
        await process.aclose()


async def test_a_server_of_the_sdk_is_used_over_http(tmp_path: Path) -> None:
    async with official() as url, kernel_with(tmp_path, it=McpServer(url=url)) as kernel:
        gate = kernel.init_gate()
        with anyio.fail_after(40):
            assert json.loads((await run_tool(gate, "it/add", a=1, b=2)).text) == {"result": 3}
            with pytest.raises(ToolFailed, match="it/fail says"):
                await run_tool(gate, "it/fail", why="no")
            info = await check(kernel, "it")
            assert (info.transport, info.protocol) == ("http", "2026-07-28")
            assert info.where == url.removesuffix("/mcp")


async def test_an_older_one_by_hand_is_used_over_http(tmp_path: Path) -> None:
    def answer(request: dict[str, object]) -> bytes:
        return reply(request, {"content": [{"type": "text", "text": "hi"}]})

    async with by_hand(answer) as url, kernel_with(tmp_path, it=McpServer(url=url)) as kernel:
        with anyio.fail_after(40):
            assert (await run_tool(kernel.init_gate(), "it/echo")).text == "hi"
            assert (await check(kernel, "it")).protocol == "2025-03-26"


async def test_a_long_rich_or_compressed_answer_fails_its_call(tmp_path: Path) -> None:
    rich = b'"result": {"content": [], "structuredContent": {"a": [' + b"[]," * 250_000 + b"[]]}}}"
    answers = [
        whole(b'{"jsonrpc": "2.0", "id": 1, "result": "' + b"x" * 20_000_000 + b'"}'),
        whole(b"\x1f\x8b", "content-encoding: gzip"),
        whole(b'{"jsonrpc": "2.0", "id": 1, ' + rich),
        STREAMED + b'data: {"jsonrpc": "2.0", "id": 1,\ndata: ' + rich + b"\n\n",
    ]
    for each in answers:

        def answer(_: dict[str, object], each: bytes = each) -> bytes:
            return each

        async with by_hand(answer) as url:
            async with kernel_with(tmp_path, it=McpServer(url=url)) as kernel:
                with (
                    anyio.fail_after(40),
                    pytest.raises(ToolFailed, match=r"too long|compressed|over 250,000 values"),
                ):
                    await run_tool(kernel.init_gate(), "it/echo")


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize(
    "said",
    [
        b"data: [0,\ndata: 0, 0, 0]\n\n",
        b'event: message\n: "\ndata:[[], [], []]\nid: 7\n\n',
        b'data: [[\n: "\ndata: 0],[],[]]\n\n',
        b"data: []\n\ndata: [[[[]]]]\n\ndata: []\n\n",
        b"data: [[],[],[]]\n",
    ],
)
async def test_events_are_counted_however_they_are_cut(
    said: bytes, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the SDK takes for an event is never rich, and all that is not goes through as it is."""
    text = said.replace(b"\n", end)
    cuts = [[text[:at], text[at:]] for at in range(len(text))]
    for pieces in [*cuts, [bytes([each]) for each in text]]:
        monkeypatch.setattr(wire, "MAX_VALUES", 8)
        assert await events(pieces) == await events([text])
        monkeypatch.setattr(wire, "MAX_VALUES", 2)
        with pytest.raises(httpx2.SSEError, match="values"):
            await events(pieces)


class Pieces(list[bytes], httpx2.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        for each in self:
            yield each


async def events(pieces: list[bytes]) -> list[str]:
    """What the SDK reads of a stream that comes in pieces."""
    stream = http._Events(Pieces(pieces), 1_000, wire.Traffic(lambda: 0.0))
    request = httpx2.Request("GET", "http://it")
    head = {"content-type": "text/event-stream"}
    response = httpx2.Response(200, headers=head, stream=stream, request=request)
    return [each.data async for each in httpx2.EventSource(response)]


async def test_an_answer_as_loose_as_the_sdk_takes_it_is_taken(tmp_path: Path) -> None:
    def answer(request: dict[str, object]) -> bytes:
        more = {"content": [{"type": "text", "text": "hi"}], "structuredContent": {"x": nan}}
        said = {"jsonrpc": "2.0", "id": request["id"], "method": None, "result": more}
        return whole(json.dumps(said).encode())

    async with by_hand(answer) as url, kernel_with(tmp_path, it=McpServer(url=url)) as kernel:
        with anyio.fail_after(40):
            assert (await run_tool(kernel.init_gate(), "it/echo")).text == '{"x":null}'


MOVED = b"HTTP/1.1 307 Moved\r\nlocation: /mcp/\r\nconnection: close\r\n"


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{",
        b"no HTTP at all\r\n\r\n",
        MOVED + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b",
        MOVED + b"content-length: 99\r\n\r\n{",
    ],
    ids=["nothing", "half an answer", "no HTTP", "compressed redirect", "half a redirect"],
)
async def test_a_call_whose_connection_breaks_fails_alone(tmp_path: Path, broken: bytes) -> None:
    async with by_hand(breaking(broken)) as url:
        async with kernel_with(tmp_path, it=McpServer(url=url)) as kernel:
            gate = kernel.init_gate()
            with anyio.fail_after(40):
                with pytest.raises(ToolFailed, match=r"the connection broke|compressed"):
                    await run_tool(gate, "it/echo", breaks=True)
                assert (await run_tool(gate, "it/echo")).text == "hi"
                assert (await check(kernel, "it")).n_starts == 1


def breaking(broken: bytes) -> Callable[[dict[str, object]], bytes]:
    """What answers calls with `breaks` by this, and all others well."""

    def answer(request: dict[str, object]) -> bytes:
        params = request["params"]
        assert isinstance(params, dict)
        if params.get("arguments"):
            return broken
        return reply(request, {"content": [{"type": "text", "text": "hi"}]})

    return answer


async def test_calls_wait_for_a_free_connection_as_long_as_they_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(http, "CONNECT_S", 0.5)
    said = list[str]()

    async def hold(request: dict[str, object]) -> None:
        if request.get("method") == "tools/call":
            await anyio.sleep(1.0)

    async with by_hand(breaking(b""), hold=hold) as url:
        async with kernel_with(tmp_path, it=McpServer(url=url)) as kernel:

            async def act() -> None:
                said.append((await run_tool(kernel.init_gate(), "it/echo")).text)

            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    for _ in range(3):
                        tasks.start_soon(act)
    assert said == ["hi"] * 3


async def test_nobody_gets_the_answer_to_a_call_of_another(tmp_path: Path) -> None:
    first, told = list[dict[str, object]](), anyio.Event()

    async def hold(request: dict[str, object]) -> None:
        if request.get("method") == "tools/call" and not first:
            first.append(request)
            await told.wait()

    def answer(request: dict[str, object]) -> bytes:
        text = "a" if request == first[0] else "b"
        return reply(first[0], {"content": [{"type": "text", "text": text}]})

    async with by_hand(answer, hold=hold) as url:
        async with kernel_with(tmp_path, it=McpServer(url=url)) as kernel:
            gate = kernel.init_gate()
            said = list[str]()

            async def ask_first() -> None:
                said.append((await run_tool(gate, "it/echo")).text)

            with anyio.fail_after(40):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask_first)
                    while not first:
                        await anyio.sleep(0.01)
                    with pytest.raises(ToolFailed, match="to another request"):
                        await run_tool(gate, "it/echo")
                    told.set()
            assert said == ["a"]


async def test_a_notice_that_is_not_taken_holds_up_nobody_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "ACK_S", 0.2)

    async def hold(request: dict[str, object]) -> None:
        if request.get("method") == "notifications/cancelled" or "breaks" in str(request):
            await anyio.sleep_forever()

    async with by_hand(breaking(b""), hold=hold) as url:
        async with kernel_with(tmp_path, it=McpServer(url=url, timeout_s=4.0)) as kernel:
            gate = kernel.init_gate()
            with anyio.fail_after(60):
                with pytest.raises(ToolFailed, match="no answer within 4 s"):
                    await run_tool(gate, "it/echo", breaks=True)
                assert (await run_tool(gate, "it/echo")).text == "hi"
                assert (await check(kernel, "it")).n_starts == 1


async def test_a_stream_of_events_without_an_end_ends_its_server(tmp_path: Path) -> None:
    """Comments of a stream are nobody's message; of them the SDK says nothing."""

    def answer(_: dict[str, object]) -> bytes:
        return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b": x\n" * 10_000_000

    async with by_hand(answer) as url, kernel_with(tmp_path, it=McpServer(url=url)) as kernel:
        with anyio.fail_after(40), pytest.raises(ToolFailed, match="floods the kernel"):
            await run_tool(kernel.init_gate(), "it/echo")


BROKEN_OFF = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    b"id: 1\nretry: 0\ndata:\n\n"
)
"""A stream of events that ends, with a place to go on from, at once."""


async def test_a_stream_that_breaks_off_again_and_again_ends_its_server(tmp_path: Path) -> None:
    async with (
        by_hand(lambda _: BROKEN_OFF, events=BROKEN_OFF) as url,
        kernel_with(tmp_path, it=McpServer(url=url)) as kernel,
    ):
        with anyio.fail_after(40):
            assert (await check(kernel, "it")).n_starts == 1
            while not (found := await listed(kernel)).note:
                await anyio.sleep(0.05)
        assert "floods the kernel" in found.note


async def listed(kernel: Kernel) -> McpServerInfo:
    return (await kernel.init_gate().call(McpList())).value.servers[0]


async def test_a_key_that_is_refused_is_said(tmp_path: Path) -> None:
    def answer(_: dict[str, object]) -> bytes:
        return b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

    async with by_hand(answer) as url, kernel_with(tmp_path, it=McpServer(url=url)) as kernel:
        with anyio.fail_after(40), pytest.raises(ToolFailed, match="401: check its `headers`"):
            await run_tool(kernel.init_gate(), "it/echo")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("insufficient_scope", "403: its `headers` do not allow this"),
        ('{"jsonrpc": "2.0", "id": null, "error": {"code": 1, "message": "not you"}}', "not you"),
    ],
)
async def test_a_call_that_is_forbidden_fails_alone(tmp_path: Path, said: str, told: str) -> None:
    forbidden = whole(said.encode()).replace(b"200 OK", b"403 Forbidden")
    async with by_hand(breaking(forbidden)) as url:
        async with kernel_with(tmp_path, it=McpServer(url=url)) as kernel:
            gate = kernel.init_gate()
            with anyio.fail_after(40):
                with pytest.raises(ToolFailed, match=told):
                    await run_tool(gate, "it/echo", breaks=True)
                assert (await run_tool(gate, "it/echo")).text == "hi"
                assert (await check(kernel, "it")).n_starts == 1


async def test_an_endpoint_that_forbids_all_is_said(tmp_path: Path) -> None:
    async def forbid(_: dict[str, object]) -> bytes:
        return b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

    async with by_hand(breaking(b""), hold=forbid) as url:
        async with kernel_with(tmp_path, it=McpServer(url=url)) as kernel:
            with anyio.fail_after(40), pytest.raises(ToolFailed, match="403: check its `headers`"):
                await run_tool(kernel.init_gate(), "it/echo")


async def test_a_session_that_the_endpoint_ended_is_followed_by_another(tmp_path: Path) -> None:
    def answer(request: dict[str, object]) -> bytes:
        return reply(request, {"content": [{"type": "text", "text": "hi"}]})

    sessions = list[str]()
    async with (
        by_hand(answer, sessions=sessions) as url,
        kernel_with(tmp_path, it=McpServer(url=url)) as kernel,
    ):
        gate = kernel.init_gate()
        with anyio.fail_after(40):
            assert (await run_tool(gate, "it/echo")).text == "hi"
            sessions.clear()  # it began anew, or forgot who was silent for long
            with pytest.raises(ToolFailed, match="its session has ended"):
                await run_tool(gate, "it/echo")
            assert (await check(kernel, "it")).note == ""
            assert (await run_tool(gate, "it/echo")).text == "hi"
            assert len(sessions) == 1


async def test_an_endpoint_that_is_not_there_fails_its_call(tmp_path: Path) -> None:
    knobs = McpConfig(start_timeout_s=5.0)
    server = McpServer(url="http://127.0.0.1:9/mcp")
    async with kernel_with(tmp_path, knobs=knobs, it=server) as kernel:
        with anyio.fail_after(40):
            info = await check(kernel, "it")
            assert "attempts failed" in info.note or "onnect" in info.note
