import anyio
import httpx
import pytest
from tests.server.serving import Served, chat, serving, slow_engine, until_idle, until_running

from aios.abi.wire import call_to_json
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine

pytestmark = pytest.mark.anyio

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {**CHAT, "stream": True}),
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"prompt": "hi", "stream": True, "max_tokens": 100_000}),
        ("/v1/completions", {"prompt": "hi", "max_tokens": 100_000}),
    ],
)
async def test_a_client_that_goes_away_ends_its_call_at_once(path: str, body: object) -> None:
    async with serving(slow_engine()) as served:
        await leave_early(served, path, httpx.Request("POST", served.url, json=body).content)


@pytest.mark.parametrize("path", ["/aios/call", "/aios/stream"])
async def test_native_calls_end_with_their_client_too(path: str) -> None:
    async with serving(slow_engine()) as served:
        await leave_early(served, path, call_to_json(chat(max_tokens=None)))


async def leave_early(served: Served, path: str, body: bytes) -> None:
    with anyio.fail_after(30):
        async with served.client() as client:
            async with anyio.create_task_group() as tasks:

                async def ask() -> None:
                    async with client.stream("POST", path, content=body) as reply:
                        async for _ in reply.aiter_raw():
                            pass

                tasks.start_soon(ask)
                await until_running(served.kernel)
                tasks.cancel_scope.cancel()
            await until_idle(served.kernel)
            assert (await client.get("/v1/models")).status_code == 200


async def test_an_early_failure_of_a_stream_has_its_own_status() -> None:
    async with serving(ScriptedEngine(window_tokens=20)) as served, served.client() as client:
        long = {"messages": [{"role": "user", "content": "word " * 100}], "stream": True}
        reply = await client.post("/v1/chat/completions", json=long)
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "context_length_exceeded"


async def test_a_late_failure_is_the_last_event() -> None:
    engine = ScriptedEngine(script=Script(fail_after_tokens=3), tokens_per_read=1)
    async with serving(engine) as served, served.client() as client:
        reply = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        assert reply.status_code == 200
        last = [event for event in reply.text.split("\n\n") if event][-1]
        assert '"error"' in last
        assert "engine_failed" in last
        reply = await client.post("/aios/stream", content=call_to_json(chat()))
        assert reply.text.splitlines()[-1].startswith('{"type":"fault"')


@pytest.mark.no_cover
async def test_a_reader_that_pauses_gets_everything_and_delays_nobody() -> None:
    text = "".join(f"{number} " for number in range(150_000))
    engine = ScriptedEngine(
        script=Script(replies=(text,)), tokens_per_read=64, window_tokens=10_000_000
    )
    async with serving(engine) as served, served.client() as client:
        with anyio.fail_after(30):
            async with client.stream(
                "POST", "/v1/chat/completions", json={**CHAT, "stream": True}
            ) as reply:
                lines = reply.aiter_lines()
                await anext(lines)
                await until_idle_within(served, 15)
                rest = [line async for line in lines]
        read = "".join(
            httpx.Response(200, text=line[6:]).json()["choices"][0]["delta"].get("content", "")
            for line in rest
            if line and "[DONE]" not in line
        )
        assert read == text


async def until_idle_within(served: Served, limit_s: float) -> None:
    with anyio.fail_after(limit_s):
        while any(lane.n_granted for lane in served.kernel.scheduler.statistics().values()):
            await anyio.sleep(0.01)
