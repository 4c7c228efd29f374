import ssl

import anyio
import anyio.abc
import httpx
import pytest
from tests.server.serving import chat, serving, slow_engine, until_idle, until_running

from aios.abi.calls import GetPid, Kill, Log, Logs
from aios.abi.gate import Line, Token
from aios.abi.types import Pid
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import (
    ContextWindowExceeded,
    EngineFailed,
    InvalidCall,
    KernelUnreachable,
    NotFound,
    Unauthenticated,
)
from aios.sdk.http import HttpGate

pytestmark = pytest.mark.anyio


async def test_only_who_needs_certificates_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    opened = "httpx._transports.default.create_ssl_context"
    monkeypatch.setattr(opened, httpx.create_ssl_context)  # as it is outside of the tests
    monkeypatch.setattr(
        ssl.SSLContext, "load_verify_locations", lambda *_, **named: read.append(named)
    )
    async with HttpGate("http://localhost:1", "token"):
        assert read == []
    async with HttpGate("HTTPS://localhost:1", "token"):
        assert len(read) == 1


async def test_a_call_comes_back_with_its_answer() -> None:
    async with serving() as served, HttpGate(served.url, served.token) as gate:
        assert (await gate.call(GetPid())).value.pid == 1
        assert (await gate.call(chat("hello"))).value.usage.completion_tokens == 8


async def test_frames_add_up_to_the_answer() -> None:
    async with serving(ScriptedEngine(tokens_per_read=1)) as served:
        async with HttpGate(served.url, served.token) as gate:
            async with gate.open_call(chat("hello", max_tokens=20)) as frames:
                read = [frame async for frame in frames]
                result = await frames.result()
    assert len(read) > 1
    text = "".join(frame.text for frame in read if isinstance(frame, Token))
    assert text == result.value.message.content


async def test_logs_arrive_line_by_line() -> None:
    async with serving() as served, HttpGate(served.url, served.token) as gate:
        await gate.call(Log(text="a\nb"))
        async with gate.open_call(Logs(pid=Pid(1))) as frames:
            assert [f.line.text async for f in frames if isinstance(f, Line)] == ["a", "b"]


async def test_a_frame_holds_whatever_a_text_may() -> None:
    """JSON leaves these as they are, and Python takes each of them for the end of a line."""
    text = "a\u2028b\u2029c\x85d"
    engine = ScriptedEngine(script=Script(replies=(text, text)))
    async with serving(engine) as served, HttpGate(served.url, served.token) as gate:
        async with gate.open_call(chat("hello")) as frames:
            read = [frame.text async for frame in frames if isinstance(frame, Token)]
            assert (await frames.result()).value.message.text() == "".join(read) == text
        assert (await gate.call(chat("hello"))).value.message.text() == text


async def test_errors_are_raised_as_their_classes() -> None:
    async with serving(ScriptedEngine(window_tokens=50)) as served:
        async with HttpGate(served.url, served.token) as gate:
            with pytest.raises(NotFound):
                await gate.call(Kill(pid=Pid(99)))
            with pytest.raises(InvalidCall):
                await gate.call(Log(text="x" * (1 << 17)))
            with pytest.raises(ContextWindowExceeded):
                await gate.call(chat("word " * 100))
            async with gate.open_call(chat("word " * 100)) as frames:
                with pytest.raises(ContextWindowExceeded):
                    await frames.result()
        async with HttpGate(served.url, "aios_wrong") as stranger:
            with pytest.raises(Unauthenticated):
                await stranger.call(GetPid())


async def test_an_engine_that_breaks_in_mid_stream_is_told_after_its_tokens() -> None:
    engine = ScriptedEngine(script=Script(fail_after_tokens=3), tokens_per_read=1)
    async with serving(engine) as served, HttpGate(served.url, served.token) as gate:
        async with gate.open_call(chat("hello")) as frames:
            await anext(aiter(frames))
            with pytest.raises(EngineFailed):
                await frames.result()


async def test_leaving_a_call_early_cancels_it() -> None:
    async with serving(slow_engine()) as served, HttpGate(served.url, served.token) as gate:
        with anyio.fail_after(30):
            async with gate.open_call(chat(max_tokens=None)) as frames:
                await anext(aiter(frames))
            await until_idle(served.kernel)


async def test_cancelling_a_waiting_caller_cancels_its_call() -> None:
    async with serving(slow_engine()) as served, HttpGate(served.url, served.token) as gate:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(gate.call, chat(max_tokens=None))
                await until_running(served.kernel)
                tasks.cancel_scope.cancel()
            await until_idle(served.kernel)


async def test_nobody_at_the_address_is_said_clearly() -> None:
    async with HttpGate("http://127.0.0.1:1", "t") as gate:
        with pytest.raises(KernelUnreachable, match=r"127\.0\.0\.1:1"):
            await gate.call(GetPid())
        with pytest.raises(KernelUnreachable):
            async with gate.open_call(GetPid()):
                pass


async def test_another_server_is_not_taken_for_a_kernel() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")

    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - anyio's, not Django's
        async with HttpGate(f"http://127.0.0.1:{port}", "t") as gate:
            with pytest.raises(KernelUnreachable, match="no kernel"):
                await gate.call(GetPid())
        tasks.cancel_scope.cancel()
