import base64
import json

import anyio
import httpx
import msgspec
import pytest
from tests.server.serving import chat, serving, slow_engine, until_idle, until_running

from aios.abi.calls import Cont, GetPid, Kill, Ps, Stop
from aios.abi.gate import Fault, Result
from aios.abi.types import Kind
from aios.abi.wire import call_to_json, frame_from_json
from aios.config import KernelConfig, ServerConfig
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import ProcessGone
from aios.sdk.http import HttpGate

pytestmark = pytest.mark.anyio

ROUTES = [
    ("GET", "/aios/ps"),
    ("POST", "/aios/call"),
    ("POST", "/aios/stream"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/x"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("GET", "/openapi.json"),
    ("GET", "/"),
    ("GET", "/docs"),
    ("GET", "/health/"),
    ("GET", "/no/such/route"),
    ("DELETE", "/v1/models/x"),
    ("OPTIONS", "/v1/chat/completions"),
    ("PATCH", "/aios/call"),
]


async def test_everything_but_health_wants_a_token() -> None:
    async with serving() as served:
        async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
            for method, path in ROUTES:
                for header in (
                    {},
                    {"Authorization": "Bearer aios_wrong"},
                    {"Authorization": f"Bearer {served.token}x"},
                ):
                    reply = await client.request(method, path, headers=header, content=b"{}")
                    assert reply.status_code == 401, (method, path)
                    assert reply.headers["www-authenticate"] == "Bearer"
                    assert "token" in reply.text
                    assert served.token not in reply.text
            health = await client.get("/health")
            assert (health.status_code, health.json()) == (200, {"status": "ready"})


async def test_a_token_in_the_url_is_taken() -> None:
    async with serving() as served:
        url = served.url.replace("http://", f"http://me:{served.token}@")
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{url}/v1/models")).status_code == 200
        basic = base64.b64encode(b"me:wrong").decode()
        async with httpx.AsyncClient(
            trust_env=False, headers={"Authorization": f"Basic {basic}"}
        ) as client:
            assert (await client.get(f"{served.url}/v1/models")).status_code == 401


async def test_another_host_name_is_refused_unless_remote_is_allowed() -> None:
    async with serving() as served, served.client() as client:
        for path in ("/health", "/v1/models"):
            reply = await client.get(path, headers={"Host": "rebound.example"})
            assert reply.status_code == 403
            assert "host" in reply.text
        assert (await client.get("/v1/models", headers={"Host": "localhost:1"})).status_code == 200
    async with serving(server=ServerConfig(port=0, allow_remote=True)) as served:
        async with served.client() as client:
            assert (
                await client.get("/health", headers={"Host": "agents.example"})
            ).status_code == 200
        assert any("TLS" in warning for warning in served.kernel.warnings)


async def test_no_web_page_may_read_the_answers() -> None:
    async with serving() as served, served.client() as client:
        reply = await client.get("/v1/models", headers={"Origin": "https://page.example"})
        assert not [name for name in reply.headers if name.startswith("access-control")]


async def test_system_calls_work_as_json() -> None:
    async with serving() as served, served.client() as client:
        reply = await client.post("/aios/call", content=b'{"call":"getpid"}')
        assert reply.status_code == 200
        assert reply.headers["content-type"] == "application/json"
        assert frame_from_json(reply.content) == Result(
            (await served.kernel.init_gate().call(GetPid())).value
        )
        rows = (await client.get("/aios/ps")).json()["value"]["processes"]
        assert [row["name"] for row in rows] == ["init"]
        assert (await client.get("/aios/ps?all=true")).status_code == 200
        assert (await client.get("/aios/ps?all=maybe")).status_code == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"call":"kill","pid":99}', 404),
        (b'{"call":"kill","pid":1}', 403),
        (b'{"call":"wait","pid":1}', 409),
        (b'{"call":"chat","messages":[{"role":"user","content":"x"}],"model":"none"}', 404),
        (b'{"call":"getpid","deadline_s":-1}', 400),
        (b'{"call":"nothing"}', 400),
        (b"[]", 400),
    ],
)  # fmt: skip
async def test_a_call_that_fails_has_a_fault_and_its_status(body: bytes, status: int) -> None:
    async with serving() as served, served.client() as client:
        for path in ("/aios/call", "/aios/stream"):
            reply = await client.post(path, content=body)
            assert reply.status_code == status
            fault = frame_from_json(reply.content)
            assert isinstance(fault, Fault)
            assert fault.message


async def test_a_deadline_over_http_is_a_504() -> None:
    async with serving(slow_engine()) as served, served.client() as client:
        call = msgspec.structs.replace(chat(max_tokens=None), deadline_s=0.05)
        body = call_to_json(call)
        reply = await client.post("/aios/call", content=body)
        assert reply.status_code == 504


async def test_a_stream_ends_in_exactly_one_result() -> None:
    async with serving() as served, served.client() as client:
        body = call_to_json(chat("hello", max_tokens=30))
        lines = (await client.post("/aios/stream", content=body)).text.splitlines()
        kinds = [json.loads(line)["type"] for line in lines]
        assert kinds[-1] == "result"
        assert set(kinds[:-1]) == {"token"}
        reply = await client.post(
            "/aios/stream", content=body, headers={"Accept": "text/event-stream"}
        )
        assert reply.headers["content-type"] == "text/event-stream"
        assert [e.removeprefix("data: ") for e in reply.text.split("\n\n") if e][-1].startswith(
            '{"type":"result"'
        )


async def test_wrong_paths_and_methods_say_so_in_the_shape_of_their_side() -> None:
    async with serving() as served, served.client() as client:
        reply = await client.get("/v1/nothing")
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
        reply = await client.delete("/v1/models")
        assert reply.status_code == 405
        assert set(reply.headers["allow"].split(", ")) == {"GET", "HEAD"}
        assert "DELETE" in reply.json()["error"]["message"]
        reply = await client.get("/aios/nothing")
        assert isinstance(frame_from_json(reply.content), Fault)
        assert reply.status_code == 404


async def test_a_guest_shows_in_ps_and_can_be_stopped_and_killed() -> None:
    async with serving() as served:
        owner = served.kernel.init_gate()
        _, token = served.kernel.admit("helper")
        async with (
            served.client(token) as client,
            anyio.create_task_group() as tasks,
        ):
            assert (await client.get("/v1/models")).status_code == 200
            row = next(p for p in (await owner.call(Ps())).value.processes if p.name == "helper")
            assert row.kind is Kind.GUEST
            assert row.n_calls == 1
            await owner.call(Stop(pid=row.pid))
            replies: list[httpx.Response] = []

            async def ask() -> None:
                messages = [{"role": "user", "content": "hi"}]
                replies.append(
                    await client.post("/v1/chat/completions", json={"messages": messages})
                )

            tasks.start_soon(ask)
            with anyio.fail_after(30):
                while served.kernel.info().n_in_flight == 0:
                    await anyio.sleep(0.005)
            await anyio.sleep(0.05)
            assert not replies, "a stopped process gets no answer"
            await owner.call(Cont(pid=row.pid))
            with anyio.fail_after(30):
                while not replies:
                    await anyio.sleep(0.005)
            assert replies[0].status_code == 200
            await owner.call(Kill(pid=row.pid, reason="enough"))
            reply = await client.get("/v1/models")
            assert reply.status_code == 409
            assert "enough" in reply.text


async def test_a_name_after_the_owners_token_makes_a_guest() -> None:
    async with serving() as served, served.client(f"{served.token}.helper") as client:
        name = (await client.post("/aios/call", content=b'{"call":"getpid"}')).json()["value"][
            "name"
        ]
        assert name == "helper"


async def test_killing_a_guest_ends_its_call_in_flight() -> None:
    async with serving(slow_engine()) as served:
        guest, token = served.kernel.admit("doomed")
        async with HttpGate(served.url, token) as gate, anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises(ProcessGone):
                    await gate.call(chat(max_tokens=None))

            tasks.start_soon(ask)
            await until_running(served.kernel)
            await served.kernel.init_gate().call(Kill(pid=guest.pid))
        await until_idle(served.kernel)


async def test_while_the_kernel_stops_health_says_so() -> None:
    async with serving() as served, served.client() as client:
        await served.kernel.drain(0)
        assert (await client.get("/health")).status_code == 503
        reply = await client.post("/aios/call", content=b'{"call":"getpid"}')
        assert reply.status_code == 503
        assert "shutting down" in reply.text


async def test_an_answer_that_cannot_be_sent_hurts_nobody_else() -> None:
    engine = ScriptedEngine(script=Script(replies=("lone \ud800",) * 4), tokens_per_read=1)
    body = {"messages": [{"role": "user", "content": "x"}]}
    async with serving(engine) as served, served.client() as client:
        reply = await client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 500
        assert reply.json()["error"]["code"] == "kernel_bug"
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/v1/chat/completions", json={**body, "stream": True})
        reply = await client.post("/aios/call", content=call_to_json(chat(max_tokens=None)))
        assert reply.status_code == 500
        assert isinstance(frame_from_json(reply.content), Fault)
        assert (await client.get("/health")).status_code == 200


async def test_the_token_of_a_process_that_is_forgotten_is_void() -> None:
    async with serving(limits=KernelConfig(max_exited=0)) as served:
        guest, token = served.kernel.admit("g")
        await served.kernel.init_gate().call(Kill(pid=guest.pid))
        async with served.client(token) as client:
            assert (await client.get("/v1/models")).status_code == 401
