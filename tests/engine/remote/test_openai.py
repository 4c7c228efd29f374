"""The remote engine as a whole: starting, what it sends and understands, embeddings."""

import json
import math
import os
from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
from starlette.responses import JSONResponse, Response
from tests.engine.jobs import ADD, chat, read_all, run, run_with_interruptions, with_tools
from tests.engine.remote.bad_endpoint import (
    KEY,
    BadEndpoint,
    Reply,
    config_for,
    dropped_after,
    end,
    engine_at,
    event,
    plain,
    status,
    stream,
    text,
)
from tests.engine.remote.serving import serving

from aios.abi.types import (
    Finish,
    ImagePart,
    JsonObject,
    JsonSchema,
    Message,
    Role,
    Sampling,
    TextPart,
    ToolChoice,
)
from aios.bench.children import environment, free_port, running, scratch_folder, wait_healthy
from aios.bench.llama_tools import SERVER, find_tool
from aios.config import EngineConfig
from aios.configload import load
from aios.engine.base import Ability, ChatPrompt
from aios.engine.models import find_model
from aios.engine.remote.governor import Governors
from aios.engine.remote.openai import OpenAIEngine
from aios.errors import (
    AiosError,
    ConfigError,
    ContextWindowExceeded,
    EngineFailed,
    EngineRefused,
    InvalidCall,
    Unsupported,
)

pytestmark = pytest.mark.anyio

HELLO = stream(text("Hel"), text("lo"), end(prompt_tokens=7, completion_tokens=2))


# --- starting --------------------------------------------------------------------------------------------------------


async def start(endpoint: BadEndpoint, **knobs: object) -> OpenAIEngine:
    """An engine that was started and closed."""
    async with engine_at(endpoint, **knobs) as engine:
        return engine


def serves(*names: str, **fields: object) -> Reply:
    """A list of models."""
    return lambda: JSONResponse({"data": [{"id": name, **fields} for name in names]})


async def test_the_only_model_is_taken_when_none_is_named() -> None:
    engine = await start(BadEndpoint(models=serves("llama", max_model_len=4096)))
    assert (engine.capabilities.model, engine.capabilities.window_tokens) == ("llama", 4096)


async def test_of_several_models_one_must_be_named() -> None:
    with pytest.raises(EngineRefused, match="`a`, `b`") as caught:
        await start(BadEndpoint(models=serves("a", "b")))
    assert "engine.model" in caught.value.hint
    assert (await start(BadEndpoint(models=serves("a", "b")), model="b")).capabilities.model == "b"


async def test_a_model_that_is_not_served_is_refused_with_those_that_are() -> None:
    with pytest.raises(EngineRefused, match="does not serve `c`") as caught:
        await start(BadEndpoint(models=serves("a", "b")), model="c")
    assert "`a`, `b`" in caught.value.hint


async def test_an_ollama_tag_may_be_left_out() -> None:
    engine = await start(
        BadEndpoint(models=serves("llama3:latest", "qwen:latest", owned_by="library")), model="qwen"
    )
    assert engine.capabilities.model == "qwen:latest"
    assert Ability.LOGIT_BIAS not in engine.capabilities.abilities


async def test_a_wrong_key_is_found_at_the_start() -> None:
    with pytest.raises(EngineRefused, match="401"):
        await start(BadEndpoint(models=status(401, "who are you?")))


async def test_an_endpoint_without_a_list_of_models_is_believed_the_name() -> None:
    engine = await start(BadEndpoint(models=status(404, "not here")), model="mine")
    assert engine.capabilities.model == "mine"
    with pytest.raises(EngineRefused, match="404"):
        await start(BadEndpoint(models=status(404, "not here")))


@pytest.mark.parametrize("body", ["[]", '"x"', "{", '{"data": 7}'])
async def test_a_list_of_models_that_makes_no_sense_is_an_error(body: str) -> None:
    with pytest.raises(EngineFailed, match="/models"):
        await start(BadEndpoint(models=plain(200, body, "application/json")))


@pytest.mark.parametrize(
    "base_url", ["", "localhost:8080", "ftp://x/v1", "http://", "http://u:p@x/v1", "http://x/v1?key=1", "http://x:0/",
                 "http://[::1/v1", "http://ex\u2603..x/v1", "http://xn--/v1", "http://x/\ud800"]
)  # fmt: skip
async def test_a_base_url_that_cannot_be_one_is_a_configuration_error(base_url: str) -> None:
    config = EngineConfig(kind="openai", base_url=base_url)
    with pytest.raises(ConfigError, match="base_url"):
        OpenAIEngine(name="x", config=config, api_key=None, governors=Governors())


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks://x:1"), ("HTTP_PROXY", "x:y"), ("NO_PROXY", "[::1")],
)
async def test_a_proxy_that_cannot_be_used_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    config = EngineConfig(kind="openai", base_url="http://model.example.org/v1")
    with pytest.raises(ConfigError, match="environment") as caught:
        OpenAIEngine(name="x", config=config, api_key=None)
    assert "NO_PROXY" in caught.value.hint


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "schl\udcfcssel"])
async def test_a_key_that_cannot_be_one_is_refused_and_not_shown(key: str) -> None:
    config = EngineConfig(kind="openai", base_url="http://localhost:1/v1", api_key_env="MY_KEY")
    with pytest.raises(ConfigError, match="MY_KEY") as caught:
        OpenAIEngine(name="x", config=config, api_key=key, governors=Governors())
    assert key not in str(caught.value)


async def test_the_key_is_in_no_repr_and_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    endpoint = BadEndpoint([HELLO])
    async with engine_at(endpoint) as engine:
        sequence = await engine.open(chat())
        await read_all(sequence)
        shown = f"{engine!r} {sequence!r} {engine._endpoint!r} {engine._endpoint.site!r} {engine.capabilities!r}"
        await sequence.close()
    assert endpoint.posts[0].headers["authorization"].endswith(KEY)
    assert KEY not in shown
    assert caplog.text
    assert KEY not in caplog.text


class Body(httpx.AsyncByteStream):
    """A list of one model."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"data": [{"id": "m"}]}'


async def test_a_key_sent_in_clear_over_a_network_is_said() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Body())

    config = EngineConfig(kind="openai", base_url="http://model.example.org/v1")
    engine = OpenAIEngine(
        name="x", config=config, api_key=KEY, transport=httpx.MockTransport(answer)
    )
    await engine.start()
    assert "unencrypted" in engine.capabilities.note
    await engine.aclose()


# --- fields that an endpoint does not take ---------------------------------------------------------------------------


async def test_a_field_that_is_refused_by_name_is_left_out_from_then_on() -> None:
    refusal = status(400, "Unrecognized request argument supplied: top_k")
    endpoint = BadEndpoint([refusal, HELLO])
    async with engine_at(endpoint) as engine:
        for _ in range(2):
            assert (await run(engine, chat())).text == "Hello"
        assert "top_k" in engine.capabilities.note
    assert ["top_k" in seen.body for seen in endpoint.posts] == [True, False, False]


async def test_max_tokens_gets_its_new_name_where_the_endpoint_wants_it() -> None:
    message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    endpoint = BadEndpoint([status(400, message, param="max_tokens"), HELLO])
    async with engine_at(endpoint) as engine:
        await run(engine, chat(max_tokens=9))
        await run(engine, chat(max_tokens=9))
    first, second, third = (seen.body for seen in endpoint.posts)
    assert first["max_tokens"] == 9
    assert second["max_completion_tokens"] == third["max_completion_tokens"] == 9
    assert "max_tokens" not in second


async def test_a_refusal_that_only_quotes_the_name_of_a_field_drops_it_for_nobody() -> None:
    schema: JsonObject = {"properties": {"temperature": {"type": "weather"}}}
    refusal = status(400, "Unsupported schema: weather in `temperature`, `seed`")
    endpoint = BadEndpoint([refusal, refusal, refusal, HELLO])
    async with engine_at(endpoint) as engine:
        with pytest.raises(InvalidCall, match="weather"):
            await run(engine, chat(constraint=JsonSchema(schema)))
        assert len(endpoint.posts) == 3
        assert (await run(engine, chat())).text == "Hello"
        assert "no longer sent" not in engine.capabilities.note
    assert {"temperature", "seed"} <= endpoint.posts[-1].body.keys()


async def test_requests_that_are_refused_together_are_mended_together() -> None:
    refusal = status(400, "Unrecognized request argument supplied: top_k")
    endpoint = BadEndpoint()
    endpoint.replies = [lambda: (refusal if "top_k" in endpoint.posts[-1].body else HELLO)()]
    async with engine_at(endpoint) as engine, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(run, engine, chat())
    assert sorted("top_k" in seen.body for seen in endpoint.posts) == [False, False, True, True]


async def test_a_field_that_matters_is_never_dropped() -> None:
    job = chat(sampling=Sampling(temperature=0, seed=1, logit_bias={5: -100.0}))
    endpoint = BadEndpoint([status(400, "logit_bias is not supported")])
    async with engine_at(endpoint) as engine:
        with pytest.raises(InvalidCall, match="logit_bias"):
            await run(engine, job)
    assert len(endpoint.posts) == 1


# --- what is sent and what is understood -----------------------------------------------------------------------------


async def test_a_request_says_all_that_the_job_says() -> None:
    image = Message(
        Role.USER, (TextPart("Look: "), ImagePart("https://example.org/a.png", "low")), name="Ann"
    )
    sampling = Sampling(
        temperature=0.5, top_p=0.9, frequency_penalty=0.5, logit_bias={7: 1.5}, seed=2**40 + 3
    )
    job = chat(
        prompt=ChatPrompt((image,), (ADD,), ToolChoice("tool", "add")),
        sampling=sampling,
        stop=("END",),
        top_logprobs=2,
    )
    endpoint = BadEndpoint([HELLO])
    async with engine_at(endpoint) as engine:
        await run(engine, job)
    (seen,) = endpoint.posts
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    body = seen.body
    assert body["model"] == "m"
    assert body["messages"] == [
        {
            "role": "user",
            "name": "Ann",
            "content": [
                {"type": "text", "text": "Look: "},
                {
                    "type": "image_url",
                    "image_url": {"url": "https://example.org/a.png", "detail": "low"},
                },
            ],
        }
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert body["logit_bias"] == {"7": 1.5}
    assert (body["stop"], body["logprobs"], body["top_logprobs"]) == (["END"], True, 2)
    assert body["stream_options"] == {"include_usage": True}
    assert body["seed"] == (2**40 + 3) & 0x7FFFFFFF


async def test_tool_calls_that_come_in_pieces_are_handed_out_whole() -> None:
    def piece(**call: object) -> str:
        return event(choices=[{"index": 0, "delta": {"tool_calls": [call]}}])

    endpoint = BadEndpoint([
        stream(
            piece(index=0, id="a", function={"name": "add", "arguments": ""}),
            piece(index=0, function={"arguments": '{"a": 1,'}),
            piece(index=1, id="b", function={"name": "add", "arguments": '{"a": 5, "b": 6}'}),
            piece(index=0, function={"arguments": ' "b": 2}'}),
            end("tool_calls", prompt_tokens=9, completion_tokens=20),
        )
    ])  # fmt: skip
    async with engine_at(endpoint) as engine:
        outcome = await run(engine, with_tools("Add.", ToolChoice(), ADD))
    assert [(call.id, call.name, json.loads(call.arguments)) for call in outcome.tool_calls] == [
        ("a", "add", {"a": 1, "b": 2}),
        ("b", "add", {"a": 5, "b": 6}),
    ]
    assert outcome.finish is Finish.TOOL_CALLS
    assert outcome.n_tokens == outcome.usage.completion_tokens == 20


async def test_cached_tokens_are_told() -> None:
    done = end(prompt_tokens=50, completion_tokens=1, prompt_tokens_details={"cached_tokens": 48})
    async with engine_at(BadEndpoint([stream(text("a"), done)])) as engine:
        outcome = await run(engine, chat())
        assert (outcome.usage.prompt_tokens, outcome.usage.cached_tokens) == (50, 48)
        assert engine.statistics().n_prompt_tokens_computed == 2


async def test_without_usage_the_pieces_are_counted() -> None:
    async with engine_at(BadEndpoint([stream(text("a"), text("b"), end("length"))])) as engine:
        outcome = await run(engine, chat())
    assert outcome.usage.completion_tokens == outcome.n_tokens == 2
    assert outcome.finish is Finish.LENGTH


async def test_a_stream_without_done_is_whole_once_the_reason_has_come() -> None:
    events = (text("a"), event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]))
    async with engine_at(BadEndpoint([stream(*events), dropped_after(*events)])) as engine:
        for _ in range(2):
            assert (await run(engine, chat())).text == "a"


async def test_connections_are_kept_for_the_next_request() -> None:
    n_connections = 0

    class Counting(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal n_connections

            async def trace(name: str, _: object) -> None:
                nonlocal n_connections
                n_connections += name == "connection.connect_tcp.complete"

            request.extensions["trace"] = trace
            return await super().handle_async_request(request)

    endpoint = BadEndpoint([HELLO])
    async with serving(endpoint.app()) as url:
        engine = OpenAIEngine(name="x", config=config_for(url), api_key=None, transport=Counting())
        await engine.start()
        for _ in range(5):
            await run(engine, chat())
        await engine.aclose()
    assert n_connections == 1


# --- embeddings ------------------------------------------------------------------------------------------------------


def vectors(*rows: tuple[int, list[float]]) -> Reply:
    """An answer with embeddings."""
    data = [{"index": i, "embedding": vector} for i, vector in rows]
    return lambda: JSONResponse({"data": data, "usage": {"prompt_tokens": 3}})


async def test_embeddings_are_put_in_order_and_made_one_long() -> None:
    async with engine_at(BadEndpoint([vectors((1, [0.0, 2.0]), (0, [3.0, 4.0]))])) as engine:
        found, usage = await engine.embed(("a", "b"))
    assert found == ((0.6, 0.8), (0.0, 1.0))
    assert usage.prompt_tokens == 3


@pytest.mark.parametrize(
    "reply",
    [
        vectors((0, [1.0])),
        vectors((0, [1.0]), (0, [1.0])),
        vectors((0, [0.0]), (1, [1.0])),
        plain(200, "{}", "application/json"),
        plain(200, '{"data": [{"index": 0, "embedding": [1e999]}]}', "application/json"),
    ],
)
async def test_embeddings_that_make_no_sense_are_an_error(reply: Reply) -> None:
    async with engine_at(BadEndpoint([reply])) as engine:
        with pytest.raises(EngineFailed):
            await engine.embed(("a", "b"))


@pytest.mark.parametrize(
    "reply",
    [
        status(404),
        status(501, "no"),
        status(400, "The model does not support Embeddings"),
        status(400, "it is not an embedding model"),
        status(400, "embeddings are disabled"),
    ],
)
async def test_an_endpoint_without_embeddings_loses_the_ability(reply: Reply) -> None:
    async with engine_at(BadEndpoint([reply])) as engine:
        assert Ability.EMBED in engine.capabilities.abilities
        for _ in range(2):
            with pytest.raises(Unsupported):
                await engine.embed(("a",))
        assert Ability.EMBED not in engine.capabilities.abilities


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (
            "This model's maximum context length is 512 tokens. However, you requested 1451 tokens in the input for embedding generation.",
            ContextWindowExceeded,
        ),
        ("Embedding inputs must not be empty", InvalidCall),
    ],
)
async def test_one_text_that_is_refused_does_not_take_embeddings_from_all(
    message: str, kind: type[AiosError]
) -> None:
    async with engine_at(BadEndpoint([status(400, message), vectors((0, [1.0]))])) as engine:
        with pytest.raises(kind):
            await engine.embed(("a",))
        assert await engine.embed(("a",))


async def test_many_texts_are_embedded_in_several_requests() -> None:
    endpoint = BadEndpoint()

    def answer() -> Response:
        n = len(endpoint.posts[-1].body["input"])  # type: ignore[arg-type]  # a list, as it was sent
        return JSONResponse(
            {"data": [{"index": i, "embedding": [1.0, float(i)]} for i in range(n)]}
        )

    endpoint.replies = [answer]
    async with engine_at(endpoint) as engine:
        found, _ = await engine.embed(tuple(str(i) for i in range(300)))
    assert len(found) == 300
    assert len(endpoint.posts) == 2
    assert all(math.isclose(math.hypot(*vector), 1) for vector in found)


@pytest.mark.model
@pytest.mark.skipif(find_tool(SERVER, os.environ) is None, reason="llama-server is not built")
async def test_a_preempted_generation_at_a_real_llama_server_goes_on_from_its_text() -> None:
    server, port = find_tool(SERVER, os.environ), free_port()
    command = [str(server), "--model", str(find_model("", load().home)), "--port", str(port)]
    command += ["--parallel", "1", "--ctx-size", "512", "--threads", "1", "--no-webui"]
    url = f"http://127.0.0.1:{port}"
    with anyio.fail_after(120), scratch_folder() as folder:
        async with running(command, env=environment({}), folder=folder) as child:
            await wait_healthy(url, child)
            config = EngineConfig(kind="openai", base_url=f"{url}/v1", n_slots=1)
            engine = OpenAIEngine(name="x", config=config, api_key=None)
            await engine.start()
            assert Ability.SUSPEND in engine.capabilities.abilities
            job = chat(
                "Tell me of the sea.", max_tokens=16, sampling=Sampling(temperature=0, seed=1)
            )
            whole = await run(engine, job)
            outcome, n_suspended = await run_with_interruptions(engine, job)
            await engine.aclose()
    assert n_suspended >= 2
    assert outcome.text == whole.text
    assert outcome.usage.completion_tokens == whole.usage.completion_tokens == 16
    # The text that it goes on from is cut into tokens anew, perhaps otherwise than it came.
    assert abs(outcome.usage.prompt_tokens - whole.usage.prompt_tokens) <= 4
