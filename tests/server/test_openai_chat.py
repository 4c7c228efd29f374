"""The OpenAI package, as people use it, against a served kernel."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import anyio
import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel
from tests.server.serving import Served, serving

from aios.abi.types import ToolCall
from aios.engine.base import Engine
from aios.engine.script import Reply, Script
from aios.engine.scripted import ScriptedEngine

pytestmark = pytest.mark.anyio

HELLO: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
WEATHER: openai.types.chat.ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@asynccontextmanager
async def client_of(engine: Engine | None = None) -> AsyncIterator[tuple[AsyncOpenAI, Served]]:
    async with serving(engine) as served:
        async with AsyncOpenAI(
            base_url=f"{served.url}/v1", api_key=served.token, max_retries=0, timeout=30
        ) as client:
            yield client, served


async def test_a_chat_answers_with_usage() -> None:
    async with client_of() as (client, _):
        reply = await client.chat.completions.create(model="default", messages=HELLO, max_tokens=8)
        assert reply.model == "scripted"
        assert reply.choices[0].message.content
        assert reply.choices[0].finish_reason == "length"
        assert reply.usage is not None
        assert reply.usage.completion_tokens == 8
        assert reply.usage.prompt_tokens_details is not None
        assert reply.usage.prompt_tokens_details.cached_tokens == 0


async def test_a_streamed_chat_brings_the_same_text_and_usage_at_the_end() -> None:
    async with client_of(ScriptedEngine(tokens_per_read=2)) as (client, _):
        whole = await client.chat.completions.create(model="scripted", messages=HELLO, seed=3)
        stream = await client.chat.completions.create(
            model="scripted",
            messages=HELLO,
            seed=3,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert {chunk.model for chunk in chunks} == {"scripted"}


async def test_tools_are_called_and_answered() -> None:
    call = ToolCall("call_1", "weather", '{"city":"Oslo"}')
    engine = ScriptedEngine(script=Script(replies=(Reply(tool_calls=(call,)), "It rains in Oslo.")))
    async with client_of(engine) as (client, _):
        first = await client.chat.completions.create(
            model="default", messages=HELLO, tools=[WEATHER]
        )
        asked = first.choices[0].message
        assert first.choices[0].finish_reason == "tool_calls"
        assert asked.tool_calls is not None
        assert asked.tool_calls[0].type == "function"
        assert json.loads(asked.tool_calls[0].function.arguments) == {"city": "Oslo"}
        history: list[openai.types.chat.ChatCompletionMessageParam] = [
            *HELLO,
            asked.to_dict(),  # type: ignore[list-item] # a dict of the right form
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ]
        second = await client.chat.completions.create(
            model="default", messages=history, tools=[WEATHER]
        )
        assert second.choices[0].message.content == "It rains in Oslo."


async def test_streamed_tool_calls_are_put_together_by_the_package() -> None:
    call = ToolCall("call_1", "weather", '{"city":"Oslo"}')
    engine = ScriptedEngine(script=Script(replies=(Reply(tool_calls=(call, call)),)))
    async with client_of(engine) as (client, _):
        async with client.chat.completions.stream(
            model="default", messages=HELLO, tools=[WEATHER]
        ) as stream:
            reply = await stream.get_final_completion()
        calls = reply.choices[0].message.tool_calls
        assert calls is not None
        assert [call.function.name for call in calls] == ["weather", "weather"]


async def test_a_tool_can_be_demanded() -> None:
    async with client_of() as (client, _):
        reply = await client.chat.completions.create(
            model="default", messages=HELLO, tools=[WEATHER],
            tool_choice={"type": "function", "function": {"name": "weather"}},
        )  # fmt: skip
        calls = reply.choices[0].message.tool_calls
        assert calls is not None
        assert calls[0].type == "function"
        assert "city" in json.loads(calls[0].function.arguments)


class Step(BaseModel):
    """A nested part."""

    text: str
    n: int


class Plan(BaseModel):
    """What the model must write."""

    kind: Literal["letter", "bill"]
    steps: list[Step]
    note: str | None


async def test_structured_output_parses_into_a_model() -> None:
    async with client_of() as (client, _):
        reply = await client.chat.completions.parse(
            model="default", messages=HELLO, response_format=Plan
        )
        parsed = reply.choices[0].message.parsed
        assert isinstance(parsed, Plan)
        assert parsed.kind in ("letter", "bill")


async def test_a_json_object_and_a_pattern_can_be_demanded() -> None:
    async with client_of() as (client, _):
        reply = await client.chat.completions.create(
            model="default", messages=HELLO, response_format={"type": "json_object"}
        )
        assert isinstance(json.loads(reply.choices[0].message.content or ""), dict)
        reply = await client.chat.completions.create(
            model="default", messages=HELLO, extra_body={"guided_regex": "yes|no"}
        )
        assert reply.choices[0].message.content in ("yes", "no")


async def test_log_probabilities_come_with_each_token() -> None:
    async with client_of() as (client, _):
        reply = await client.chat.completions.create(
            model="default", messages=HELLO, max_tokens=5, logprobs=True, top_logprobs=2
        )
        rows = reply.choices[0].logprobs
        assert rows is not None
        assert rows.content is not None
        assert len(rows.content) == 5
        assert all(len(row.top_logprobs) == 2 for row in rows.content)
        stream = await client.chat.completions.create(
            model="default", messages=HELLO, max_tokens=5, logprobs=True, stream=True
        )
        streamed = [
            row.token
            async for chunk in stream
            if chunk.choices and chunk.choices[0].logprobs
            for row in chunk.choices[0].logprobs.content or []
        ]
        assert streamed == [row.token for row in rows.content]


async def test_a_text_is_gone_on_with() -> None:
    async with client_of() as (client, _):
        reply = await client.completions.create(
            model="default", prompt="Once", max_tokens=4, logprobs=1
        )
        assert reply.choices[0].text
        assert reply.choices[0].logprobs is not None
        stream = await client.completions.create(
            model="default", prompt="Once", max_tokens=4, stream=True
        )
        text = "".join([chunk.choices[0].text async for chunk in stream])
        assert text == reply.choices[0].text


async def test_texts_become_vectors_of_length_one() -> None:
    async with client_of() as (client, _):
        reply = await client.embeddings.create(model="default", input=["a cat", "a dog"])
        assert len(reply.data) == 2
        for row in reply.data:
            assert sum(x * x for x in row.embedding) == pytest.approx(1, abs=1e-5)
        plain = await client.embeddings.create(
            model="default", input="a cat", encoding_format="float"
        )
        assert plain.data[0].embedding == pytest.approx(reply.data[0].embedding, abs=1e-6)
        assert plain.usage.prompt_tokens == plain.usage.total_tokens > 0


async def test_models_are_listed_and_found_by_any_name() -> None:
    engines = {"first": ScriptedEngine(model="small"), "second": ScriptedEngine(model="org/big")}
    async with serving(engines=engines) as served:
        async with AsyncOpenAI(
            base_url=f"{served.url}/v1", api_key=served.token, max_retries=0
        ) as client:
            with anyio.fail_after(30):
                while {model.id async for model in client.models.list()} != {"small", "org/big"}:
                    await anyio.sleep(0.01)
            for name, model in [
                ("small", "small"),
                ("first", "small"),
                ("default", "small"),
                ("org/big", "org/big"),
            ]:
                assert (await client.models.retrieve(name)).id == model
                reply = await client.chat.completions.create(
                    model=name, messages=HELLO, max_tokens=2
                )
                assert reply.model == model
            with pytest.raises(openai.NotFoundError):
                await client.models.retrieve("none")


async def test_errors_have_the_classes_of_the_package() -> None:
    async with client_of(ScriptedEngine(window_tokens=64)) as (client, served):
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model="gpt-9", messages=HELLO)
        assert unknown.value.code == "model_not_found"
        assert "scripted" in unknown.value.message, "the models that there are"
        with pytest.raises(openai.BadRequestError) as long:
            await client.chat.completions.create(
                model="default", messages=[{"role": "user", "content": "word " * 500}]
            )
        assert long.value.code == "context_length_exceeded"
        with pytest.raises(openai.BadRequestError) as wrong:
            await client.chat.completions.create(model="default", messages=HELLO, n=2)
        assert wrong.value.param == "n"
        stranger = AsyncOpenAI(base_url=f"{served.url}/v1", api_key="aios_wrong", max_retries=0)
        async with stranger:
            with pytest.raises(openai.AuthenticationError):
                await stranger.chat.completions.create(model="default", messages=HELLO)


async def test_an_error_in_mid_stream_is_raised_by_the_package() -> None:
    engine = ScriptedEngine(script=Script(fail_after_tokens=2), tokens_per_read=1)
    async with client_of(engine) as (client, _):
        stream = await client.chat.completions.create(model="default", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError, match="breaks the engine"):
            async for _chunk in stream:
                pass


async def test_the_last_token_may_be_banned() -> None:
    async with client_of() as (client, _):
        plain = await client.chat.completions.create(model="default", messages=HELLO, max_tokens=3)
        banned = await client.chat.completions.create(
            model="default", messages=HELLO, max_tokens=3, logit_bias={"2": -100}
        )
        assert plain.usage is not None
        assert banned.usage is not None
        assert banned.usage.completion_tokens == plain.usage.completion_tokens == 3


async def test_without_an_engine_the_error_says_so() -> None:
    async with serving(engines={"scripted": ScriptedEngine()}) as served:
        served.kernel.cores._cores.clear()
        async with AsyncOpenAI(
            base_url=f"{served.url}/v1", api_key=served.token, max_retries=0
        ) as client:
            with pytest.raises(openai.InternalServerError, match="no engine"):
                await client.chat.completions.create(model="default", messages=HELLO)
            assert [model async for model in client.models.list()] == []
