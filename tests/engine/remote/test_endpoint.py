"""One endpoint over HTTP: refusals, unreachable hosts, retries, limits."""

import ssl
from collections.abc import AsyncIterator

import anyio
import anyio.abc
import anyio.lowlevel
import httpx
import pytest
from starlette.responses import StreamingResponse
from tests.engine.jobs import chat, run
from tests.engine.remote.bad_endpoint import (
    KEY,
    BadEndpoint,
    Reply,
    config_for,
    dropped_after,
    end,
    engine_at,
    event,
    failure,
    plain,
    raw_server,
    status,
    stream,
    text,
)
from tests.engine.remote.serving import closed_port, serving

from aios.engine.base import Job, TextPrompt
from aios.engine.remote import endpoint as endpoint_module
from aios.engine.remote.governor import MAX_BLOCK_S
from aios.engine.remote.openai import OpenAIEngine
from aios.errors import (
    AiosError,
    ContextWindowExceeded,
    EngineFailed,
    EngineRefused,
    EngineUnavailable,
    InvalidCall,
    RateLimited,
    TooLarge,
)

pytestmark = pytest.mark.anyio

HELLO = stream(text("Hel"), text("lo"), end(prompt_tokens=7, completion_tokens=2))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without a pause worth speaking of."""
    monkeypatch.setattr(endpoint_module, "FIRST_PAUSE_S", 0.001)


async def test_only_an_endpoint_that_needs_certificates_reads_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[object] = []
    opened = "httpx._transports.default.create_ssl_context"
    monkeypatch.setattr(opened, httpx.create_ssl_context)  # as it is outside of the tests
    monkeypatch.setattr(
        ssl.SSLContext, "load_verify_locations", lambda *_, **named: read.append(named)
    )
    for url, n_read in (("http://localhost:1", 0), ("https://localhost:1", 1)):
        engine = OpenAIEngine(name="test", config=config_for(url), api_key=None)
        assert len(read) == n_read
        await engine.aclose()


# --- what an endpoint answers instead ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (status(401, f"Incorrect API key provided: {KEY}"), EngineRefused, ["401", "***"]),
        (status(403, "no access"), EngineRefused, ["403", "no access"]),
        (status(404, "no such model"), EngineRefused, ["404", "no such model"]),
        (status(400, "bad temperature"), InvalidCall, ["bad temperature"]),
        (status(422, "unprocessable"), InvalidCall, ["unprocessable"]),
        (status(413, "too big"), TooLarge, ["too big"]),
        (status(429, "slow down"), RateLimited, ["slow down"]),
        (status(429, "no money", code="insufficient_quota"), EngineRefused, ["no money"]),
        (status(500, "oops"), EngineFailed, ["500", "oops"]),
        (status(503, "loading"), EngineUnavailable, ["503", "loading"]),
        (status(504, "upstream timed out"), EngineFailed, ["504", "upstream timed out"]),
        (status(408, "timed out"), EngineFailed, ["408", "timed out"]),
        (status(400, "x", code="context_length_exceeded"), ContextWindowExceeded, []),
        (status(400, "This model's maximum context length is 8 tokens."), ContextWindowExceeded, []),
        (status(400, "the request exceeds the available context size"), ContextWindowExceeded, []),
        (plain(502, "<html><title>Bad Gateway</title>...", "text/html"), EngineUnavailable, ["Bad Gateway"]),
        (plain(200, "<html><title>Welcome</title></html>", "text/html"), EngineFailed, ["text/html"]),
        (plain(200, '{"choices": []}', "application/json"), EngineFailed, ["application/json"]),
        (plain(307, "", "text/plain"), EngineRefused, ["307"]),
        (plain(400, '{"detail": [{"loc": ["body", "n"], "msg": "bad"}]}', "application/json"), InvalidCall, ["body.n"]),
        (plain(418, "short and stout", "text/plain"), InvalidCall, ["short and stout"]),
    ],
)  # fmt: skip
async def test_each_refusal_is_an_error_that_says_what_was_said(
    reply: Reply, kind: type[AiosError], words: list[str]
) -> None:
    error = await failure(reply)
    assert type(error) is kind
    assert error.hint
    for word in words:
        assert word in error.message


async def test_a_wrong_key_names_the_variable_and_never_the_key() -> None:
    error = await failure(status(401, f"bad key {KEY} (Bearer {KEY})"), api_key_env="MY_KEY")
    assert "MY_KEY" in error.hint


async def test_an_unknown_model_is_answered_with_those_there_are() -> None:
    error = await failure(status(404, "gone"))
    assert "`m`" in error.hint


async def test_a_long_message_is_cut() -> None:
    error = await failure(status(400, "x" * 100_000))
    assert len(error.message) < 500


async def test_an_endless_error_page_is_not_read_to_its_end() -> None:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536
            await anyio.lowlevel.checkpoint()  # so that the server notices that the client has gone

    error = await failure(lambda: StreamingResponse(body(), 500))
    assert isinstance(error, EngineFailed)


async def test_a_body_that_is_too_large_or_breaks_off_is_an_error() -> None:
    endpoint = BadEndpoint(models=plain(200, '{"data": [' + " " * (9 << 20), "application/json"))
    with pytest.raises(EngineFailed, match="an answer of over"):
        await start(endpoint)
    with pytest.raises(EngineUnavailable, match="broke the connection off"):
        await start(BadEndpoint(models=dropped_after("{")))


async def start(endpoint: BadEndpoint) -> None:
    """Start an engine, and close it."""
    async with engine_at(endpoint):
        pass


# --- when there is no answer ---------------------------------------------------------------------------------------


async def test_no_answer_at_all_is_unavailable_after_the_time_out() -> None:
    async with raw_server(b"") as url:
        engine = OpenAIEngine(name="x", config=config_for(url, timeout_s=1), api_key=None)
        with anyio.fail_after(30), pytest.raises(EngineUnavailable, match="no answer within"):
            await engine.start()
        await engine.aclose()


async def test_one_request_that_is_not_answered_fails_alone() -> None:
    """An engine that is not there is taken from all; one that failed a request is not."""
    endpoint = BadEndpoint()
    async with engine_at(endpoint, timeout_s=1) as engine:
        endpoint.replies = [endpoint.silent_after()]
        with anyio.fail_after(30), pytest.raises(EngineFailed, match="nothing came for 1 s"):
            await run(engine, chat())
        with anyio.fail_after(30), pytest.raises(EngineFailed, match="no answer within 1 s"):
            await engine.embed(("a",))
        endpoint.replies = [HELLO]
        assert (await run(engine, chat())).text == "Hello"


async def test_an_endpoint_that_answers_no_question_for_its_models_in_time_is_unavailable() -> None:
    with pytest.raises(EngineUnavailable, match="504"):
        await start(BadEndpoint(models=status(504, "upstream timed out")))


async def test_an_answer_that_is_no_http_is_unavailable() -> None:
    async with raw_server(b"SSH-2.0-OpenSSH_9.2\r\n\r\n") as url:
        engine = OpenAIEngine(name="x", config=config_for(url), api_key=None)
        with anyio.fail_after(30), pytest.raises(EngineUnavailable):
            await engine.start()
        await engine.aclose()


async def test_a_refused_connection_names_the_host_and_what_to_look_at() -> None:
    port = closed_port()
    engine = OpenAIEngine(name="x", config=config_for(f"http://127.0.0.1:{port}"), api_key=None)
    with pytest.raises(EngineUnavailable, match=str(port)) as caught:
        await engine.start()
    assert "base_url" in caught.value.hint
    await engine.aclose()


async def test_tls_to_a_server_without_it_is_unavailable() -> None:
    async with serving(BadEndpoint().app()) as url:
        config = config_for(url.replace("http:", "https:"))
        engine = OpenAIEngine(name="x", config=config, api_key=None)
        with anyio.fail_after(30), pytest.raises(EngineUnavailable, match="secure"):
            await engine.start()
        await engine.aclose()


# --- retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "first", [status(500, "oops"), status(503), dropped_after(), stream(), stream(event(error={"message": "later"}))]
)  # fmt: skip
async def test_what_passes_is_tried_again_before_the_first_token(first: Reply) -> None:
    endpoint = BadEndpoint([first, HELLO])
    async with engine_at(endpoint, n_retries=2) as engine:
        outcome = await run(engine, chat())
        assert outcome.text == "Hello"
        assert len(endpoint.posts) == 2
        assert engine.statistics().extra["n_retries"] == 1


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("reply", [status(401), status(400, "bad"), status(404)])
async def test_what_does_not_pass_is_not_tried_again(reply: Reply) -> None:
    endpoint = BadEndpoint([reply])
    async with engine_at(endpoint, n_retries=3) as engine:
        with pytest.raises(AiosError):
            await run(engine, chat())
    assert len(endpoint.posts) == 1


async def test_a_text_that_is_too_long_together_with_its_answer_is_asked_for_once() -> None:
    endpoint = BadEndpoint([
        status(
            400,
            "'max_tokens' or 'max_completion_tokens' is too large: 1024. This model's maximum context length is 512 tokens"
            " and your request has 9 input tokens (1024 > 512 - 9).",
        )
    ])  # fmt: skip
    async with engine_at(endpoint) as engine:
        for job in (Job(TextPrompt("Once")), chat(max_tokens=1024)):
            with anyio.fail_after(30), pytest.raises(ContextWindowExceeded, match="1024"):
                await run(engine, job)
    assert len(endpoint.posts) == 2


async def test_an_endpoint_that_refuses_each_name_for_a_field_is_not_asked_for_ever() -> None:
    refusal = "unsupported: max_tokens; unsupported: max_completion_tokens"
    endpoint = BadEndpoint([status(400, refusal)])
    async with engine_at(endpoint) as engine:
        for job, n_posts in ((chat(), endpoint_module.MAX_MENDS + 1), (Job(TextPrompt("a")), 1)):
            endpoint.seen.clear()
            with anyio.fail_after(30), pytest.raises(InvalidCall, match="unsupported"):
                await run(engine, job)
            assert len(endpoint.posts) == n_posts


@pytest.mark.usefixtures("patient")
async def test_nothing_is_tried_again_after_the_first_token() -> None:
    endpoint = BadEndpoint([dropped_after(text("a")), HELLO])
    async with engine_at(endpoint, n_retries=3) as engine:
        with pytest.raises(EngineFailed, match="after 1 tokens"):
            await run(engine, chat())
    assert len(endpoint.posts) == 1


@pytest.mark.usefixtures("patient")
async def test_retries_end_and_their_number_is_kept() -> None:
    endpoint = BadEndpoint([status(503, "down")])
    async with engine_at(endpoint, n_retries=2) as engine:
        with pytest.raises(EngineUnavailable, match="down"):
            await run(engine, chat())
    assert len(endpoint.posts) == 3


@pytest.mark.usefixtures("patient")
async def test_the_budget_keeps_retries_from_multiplying_the_load() -> None:
    endpoint = BadEndpoint([status(503)])
    async with engine_at(endpoint, n_retries=10) as engine:
        for _ in range(10):
            with pytest.raises(EngineUnavailable):
                await run(engine, chat())
    assert (
        len(endpoint.posts) <= 10 + 10
    )  # ten calls, and the budget's ten retries instead of a hundred


async def test_retry_after_is_honoured() -> None:
    endpoint = BadEndpoint([status(429, "wait", {"Retry-After": "0.3"}), HELLO])
    async with engine_at(endpoint, n_retries=1) as engine:
        started_s = anyio.current_time()
        assert (await run(engine, chat())).text == "Hello"
        assert anyio.current_time() - started_s >= 0.3
        assert engine.statistics().extra["n_throttled"] == 1


async def test_a_long_retry_after_is_told_instead_of_waited_for() -> None:
    endpoint = BadEndpoint([status(429, "come tomorrow", {"Retry-After": "86400"})])
    async with engine_at(endpoint, n_retries=3) as engine:
        for told_s in (86400, MAX_BLOCK_S):  # the second one does not even ask
            with anyio.fail_after(30), pytest.raises(RateLimited) as caught:
                await run(engine, chat())
            assert caught.value.retry_after_s == pytest.approx(told_s, abs=10)
    assert len(endpoint.posts) == 1
