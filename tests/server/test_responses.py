"""The OpenAI package's `client.responses`, as people use it, against a served kernel."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import FunctionToolParam, ResponseInputParam
from pydantic import BaseModel
from tests.server.serving import serving

from aios.engine.base import ChatPrompt, Engine, Job
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine

pytestmark = pytest.mark.anyio

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class Person(BaseModel):
    name: str
    age: int


@asynccontextmanager
async def client_of(engine: Engine | None = None) -> AsyncIterator[AsyncOpenAI]:
    async with serving(engine) as served:
        async with AsyncOpenAI(
            base_url=f"{served.url}/v1", api_key=served.token, max_retries=0, timeout=30
        ) as client:
            yield client


def echo() -> ScriptedEngine:
    """Says which messages it was given."""

    def answer(job: Job) -> str:
        assert isinstance(job.prompt, ChatPrompt)
        return " | ".join(
            f"{m.role.value}:{m.text()}{[c.id for c in m.tool_calls] or ''}{m.tool_call_id}"
            for m in job.prompt.messages
        )

    return ScriptedEngine(script=Script(answer=answer), tokens_per_read=2)


async def test_a_response_answers_a_text_with_usage() -> None:
    async with client_of() as client:
        reply = await client.responses.create(model="default", input="hello", max_output_tokens=5)
        assert reply.status == "incomplete"
        assert reply.incomplete_details is not None
        assert reply.incomplete_details.reason == "max_output_tokens"
        assert reply.output_text
        assert reply.model == "scripted"
        assert reply.usage is not None
        assert reply.usage.output_tokens == 5
        assert reply.usage.input_tokens_details.cached_tokens == 0
        assert reply.usage.total_tokens == reply.usage.input_tokens + 5
        assert reply.store is False  # type: ignore[attr-defined]  # a field that the package does not name


async def test_items_become_the_conversation_that_they_mean() -> None:
    items: ResponseInputParam = [
        {"role": "user", "content": "what"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "be"}]},
        {"role": "assistant", "content": "let me see"},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "sun"}],
        },
    ]
    async with client_of(echo()) as client:
        reply = await client.responses.create(
            model="default", instructions="be brief", input=items, tools=[WEATHER]
        )
    assert reply.output_text == (
        "system:be brief | user:what | system:be | assistant:let me see['c1', 'c2'] | tool:rainc1 | tool:sunc2"
    )


async def test_the_output_of_one_response_is_input_of_the_next() -> None:
    async with client_of() as client:
        first = await client.responses.create(
            model="default", input="weather?", tools=[WEATHER], tool_choice="required"
        )
        [call] = first.output
        assert call.type == "function_call"
        assert call.name == "weather"
        items = [
            {"role": "user", "content": "weather?"},
            call.model_dump(exclude_none=True),
            {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
        ]
        second = await client.responses.create(
            model="default",
            input=items,  # type: ignore[arg-type]  # as people write it
            tools=[WEATHER],
        )
        assert second.output_text
        third = await client.responses.create(
            model="default",
            input=[*items, *(item.model_dump(exclude_none=True) for item in second.output)],  # type: ignore[list-item]  # as people write it
        )
        assert third.status == "completed"


async def test_a_stream_brings_every_event_in_order_and_the_same_text() -> None:
    async with client_of(echo()) as client:
        stream = await client.responses.create(model="default", input="a b c", stream=True)
        events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = list(dict.fromkeys(event.type for event in events))
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    deltas = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.completed"
    assert deltas == last.response.output_text == "user:a b c"
    assert last.response.usage is not None
    assert last.response.usage.input_tokens_details.cached_tokens == 0


async def test_the_package_collects_text_and_tool_calls_of_a_stream() -> None:
    async with client_of() as client:
        async with client.responses.stream(
            model="default", input="x", tools=[WEATHER], tool_choice="required"
        ) as stream:
            events = [event async for event in stream]
            final = await stream.get_final_response()
    assert "response.function_call_arguments.done" in {event.type for event in events}
    [call] = final.output
    assert call.type == "function_call"
    assert set(json.loads(call.arguments)) == {"city"}


async def test_a_stream_that_ends_incomplete_brings_the_whole_response_in_its_last_event() -> None:
    async with client_of() as client:
        async with client.responses.stream(
            model="default", input="a b c", max_output_tokens=2
        ) as stream:
            events = [event async for event in stream]
            # The package knows no other end than `response.completed`, at OpenAI's own endpoint too.
            with pytest.raises(RuntimeError, match=r"response\.completed"):
                await stream.get_final_response()
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.status == "incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == 2
    texts = [event.text for event in events if event.type == "response.output_text.done"]
    assert texts == [last.response.output_text]


async def test_parse_gives_back_an_object_of_the_class_also_from_a_stream() -> None:
    async with client_of() as client:
        parsed = await client.responses.parse(model="default", input="who?", text_format=Person)
        assert isinstance(parsed.output_parsed, Person)
        async with client.responses.stream(
            model="default", input="who?", text_format=Person
        ) as stream:
            final = await stream.get_final_response()
        assert isinstance(final.output_parsed, Person)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1", "version": "2"}}, "prompt"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
        ({"input": [{"role": "user"}]}, r"input\[0\]\.content"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, r"input\[0\]\.call_id"),
        ({"input": []}, "input"),
        ({"temperature": 3}, "temperature"),
    ],
)
async def test_what_cannot_be_had_is_refused_with_its_name(
    extra: dict[str, object], said: str
) -> None:
    async with client_of() as client:
        with pytest.raises(openai.BadRequestError, match=said):
            await client.post(
                "/responses", body={"model": "default", "input": "x", **extra}, cast_to=object
            )


async def test_an_error_in_mid_stream_is_raised_by_the_package() -> None:
    engine = ScriptedEngine(script=Script(fail_after_tokens=2), tokens_per_read=1)
    async with client_of(engine) as client:
        stream = await client.responses.create(model="default", input="hi", stream=True)
        with pytest.raises(openai.APIError, match="breaks the engine"):
            async for _event in stream:
                pass


async def test_an_error_before_the_first_event_has_a_status_of_its_own() -> None:
    async with client_of() as client:
        with pytest.raises(openai.NotFoundError, match="gpt-9"):
            await client.responses.create(model="gpt-9", input="hi", stream=True)


async def test_both_calls_of_a_reply_with_text_are_items_after_it() -> None:
    asked = 'call weather {"city": "Oslo"} call weather {"city": "Rome"}'
    async with client_of() as client:
        whole = await client.responses.create(model="default", input=asked, tools=[WEATHER])
        stream = await client.responses.create(
            model="default", input=asked, tools=[WEATHER], stream=True
        )
        last = [event async for event in stream][-1]
    assert last.type == "response.completed"
    for output in (whole.output, last.response.output):
        calls = [item for item in output if item.type == "function_call"]
        assert [json.loads(call.arguments)["city"] for call in calls] == ["Oslo", "Rome"]
