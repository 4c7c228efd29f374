"""What an engine finds out about its endpoint when it starts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.engine.remote.bad_endpoint import config_for
from tests.engine.remote.serving import serving

from aios.abi.types import Message, Role
from aios.engine.base import Ability, ChatPrompt
from aios.engine.remote.openai import OpenAIEngine
from aios.engine.remote.survey import OPEN_TEXT
from aios.errors import EngineFailed

pytestmark = pytest.mark.anyio

PROMPT = ChatPrompt((Message(Role.USER, "hi"),))


@asynccontextmanager
async def engine_of(routes: dict[str, object], **knobs: object) -> AsyncIterator[OpenAIEngine]:
    """An engine at an endpoint that answers each path with this JSON."""

    async def answer(request: Request) -> Response:
        found = routes.get(request.url.path)
        return JSONResponse(found) if found is not None else Response(status_code=404)

    async with serving(
        Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    ) as url:
        engine = OpenAIEngine(name="x", config=config_for(url, **knobs), api_key=None)
        await engine.start()
        yield engine
        await engine.aclose()


def model(**fields: object) -> dict[str, object]:
    return {"data": [{"id": "m", **fields}]}


@pytest.mark.parametrize(
    ("version", "field"),
    [
        ("0.10.2", "guided_regex"),
        ("0.11.0", "structured_outputs"),
        ("1.2.dev3", "structured_outputs"),
        ("?", ""),
        (f"1.{'9' * 5000}", "structured_outputs"),
    ],
)
async def test_vllm_takes_patterns_by_its_version(version: str, field: str) -> None:
    routes: dict[str, object] = {
        "/v1/models": model(owned_by="vllm"),
        "/version": {"version": version},
    }
    async with engine_of(routes) as engine:
        assert engine._dialect.regex_field == field
        assert (Ability.REGEX in engine.capabilities.abilities) is bool(field)
        assert Ability.SUSPEND in engine.capabilities.abilities


async def test_llama_server_tells_the_window_of_a_slot_and_cuts_tokens() -> None:
    routes: dict[str, object] = {
        "/v1/models": model(owned_by="llamacpp", meta={"n_ctx_train": 8192}),
        "/props": {"default_generation_settings": {"n_ctx": 2048}},
        "/tokenize": {"tokens": [5, 6, 7]},
        "/apply-template": {"prompt": "<user>hi"},
    }
    async with engine_of(routes) as engine:
        assert engine.capabilities.window_tokens == 2048
        assert await engine.tokenize("abc") == (5, 6, 7)
        assert await engine.count_tokens(PROMPT) == 3


@pytest.mark.parametrize(
    ("prompt", "goes_on"),
    [("<user>Count.<assistant>" + OPEN_TEXT, True), (f"{OPEN_TEXT}<end><assistant>", False), (None, False)],
)  # fmt: skip
async def test_llama_server_can_suspend_if_it_leaves_a_begun_answer_open(
    prompt: str | None, goes_on: bool
) -> None:
    routes: dict[str, object] = {"/v1/models": model(owned_by="llamacpp")}
    if prompt is not None:
        routes["/apply-template"] = {"prompt": prompt}
    async with engine_of(routes) as engine:
        assert (Ability.SUSPEND in engine.capabilities.abilities) is goes_on
        assert ("goes on from its text" in engine.capabilities.note) is goes_on


@pytest.mark.parametrize(
    ("going_on", "owner", "expected"),
    [("auto", "sglang", False), ("fields", "sglang", True), ("no", "vllm", False)],
)
async def test_the_configuration_says_how_an_endpoint_goes_on(
    going_on: str, owner: str, expected: bool
) -> None:
    async with engine_of({"/v1/models": model(owned_by=owner)}, going_on=going_on) as engine:
        assert (Ability.SUSPEND in engine.capabilities.abilities) is expected


@pytest.mark.parametrize("answer", [[], {"tokens": "x"}, {"tokens": [1.5]}, {}])
async def test_tokens_that_make_no_sense_are_an_error(answer: object) -> None:
    routes: dict[str, object] = {
        "/v1/models": model(owned_by="vllm"),
        "/version": {},
        "/tokenize": answer,
    }
    async with engine_of(routes) as engine:
        with pytest.raises(EngineFailed, match="/tokenize"):
            await engine.tokenize("abc")
        with pytest.raises(EngineFailed, match="/tokenize"):
            await engine.count_tokens(PROMPT)


@pytest.mark.parametrize(
    ("tokens", "said"), [([10**30], "/tokenize"), ([1] * 1_000_000, "an answer of over")]
)
async def test_ids_that_nobody_can_be_told_or_that_are_far_too_many_are_an_error(
    tokens: list[int], said: str
) -> None:
    routes: dict[str, object] = {
        "/v1/models": model(owned_by="llamacpp"),
        "/tokenize": {"tokens": tokens},
    }
    async with engine_of(routes) as engine:
        with pytest.raises(EngineFailed, match=said):
            await engine.tokenize("abc")


@pytest.mark.parametrize(
    ("fields", "configured", "window_tokens"),
    [
        ({"max_model_len": 4096}, 0, 4096),
        ({"context_length": 8192}, 0, 8192),
        ({"meta": {"n_ctx": 512}}, 0, 512),
        ({"max_model_len": 4096}, 1000, 1000),
        ({"max_model_len": 4096}, 9999, 4096),
        ({}, 1000, 1000),
        ({"max_model_len": "many", "context_length": -5, "n_ctx": True}, 0, 0),
    ],
)
async def test_the_window_is_the_smaller_of_what_is_told_and_what_is_configured(
    fields: dict[str, object], configured: int, window_tokens: int
) -> None:
    async with engine_of({"/v1/models": model(**fields)}, window_tokens=configured) as engine:
        assert engine.capabilities.window_tokens == window_tokens


async def test_an_aios_that_tells_nothing_of_its_engine_is_taken_for_a_usual_endpoint() -> None:
    async with engine_of({"/v1/models": model(owned_by="aios")}) as engine:
        assert Ability.TOOLS in engine.capabilities.abilities
        assert Ability.SUSPEND not in engine.capabilities.abilities
