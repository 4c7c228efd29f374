import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.abi.calls import Chat
from aios.abi.types import (
    ImagePart,
    JsonSchema,
    Message,
    Regex,
    Role,
    Sampling,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolSpec,
)
from aios.abi.wire import call_from_json, call_to_json
from aios.errors import AiosError, InvalidCall, Unsupported
from aios.server.openai_requests import chat_of, complete_of, decode, embed_of
from aios.server.openai_types import ChatCompletionRequest, CompletionRequest, EmbeddingRequest

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def chat(**fields: Any) -> Chat:
    return chat_of(
        decode(json.dumps({"messages": HELLO, **fields}).encode(), ChatCompletionRequest)
    )


def test_the_defaults_are_those_of_openai() -> None:
    assert chat() == Chat(
        messages=(Message(Role.USER, "hello"),),
        sampling=Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0),
    )


def test_null_is_the_same_as_absent() -> None:
    fields = [field for field in ChatCompletionRequest.__struct_fields__ if field != "messages"]
    assert chat(**dict.fromkeys(fields)) == chat()


def test_unknown_fields_are_ignored() -> None:
    assert chat(user="me", metadata={"a": 1}, store=True) == chat()


def test_every_knob_arrives() -> None:
    call = chat(
        model="m", temperature=0.5, top_p=0.9, top_k=40, min_p=0.1, frequency_penalty=1, presence_penalty=-1,
        repetition_penalty=1.1, logit_bias={"2": -100}, seed=7, stop=["a", "b"], max_tokens=3, logprobs=True, top_logprobs=2,
    )  # fmt: skip
    assert call.model == "m"
    assert call.sampling == Sampling(
        temperature=0.5, top_k=40, top_p=0.9, min_p=0.1, repeat_penalty=1.1, frequency_penalty=1, presence_penalty=-1,
        logit_bias={2: -100}, seed=7,
    )  # fmt: skip
    assert call.stop == ("a", "b")
    assert call.max_tokens == 3
    assert (call.logprobs, call.top_logprobs) == (True, 2)


def test_other_spellings_mean_the_same() -> None:
    assert chat(max_completion_tokens=3).max_tokens == 3
    assert chat(stop="a").stop == ("a",)
    assert chat(repeat_penalty=1.2).sampling.repeat_penalty == 1.2
    assert chat(top_k=-1).sampling.top_k == 0
    assert chat(temperature=0).sampling.temperature == 0
    assert chat(seed=-5).sampling.seed == 2**63 - 5


def test_messages_of_every_kind_arrive() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}}
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "n"},
        {"role": "user", "content": [{"type": "text", "text": "see"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ]  # fmt: skip
    assert chat(messages=messages).messages == (
        Message(Role.SYSTEM, "be brief"),
        Message(Role.USER, "ab", name="n"),
        Message(Role.USER, (TextPart("see"), ImagePart("data:image/png;base64,AA", "low"))),
        Message(Role.ASSISTANT, "", (ToolCall("1", "f", "{}"),)),
        Message(Role.TOOL, "42", tool_call_id="1"),
        Message(Role.ASSISTANT, "no"),
    )


def test_tools_and_the_choice_among_them_arrive() -> None:
    call = chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "f"}})
    assert call.tools == (ToolSpec("f", "", {"type": "object"}),)
    assert call.tool_choice == ToolChoice("tool", "f")
    assert chat(tools=[TOOL], tool_choice="required").tool_choice == ToolChoice("required")
    assert chat(tool_choice="none").tool_choice == ToolChoice("none")


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, JsonSchema({"type": "object"})),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}, "strict": True}}},
            JsonSchema({"a": 1}, "n"),
        ),
        ({"guided_regex": "a+"}, Regex("a+")),
        ({"guided_json": {"a": 1}}, JsonSchema({"a": 1})),
        ({"structured_outputs": {"regex": "a+"}}, Regex("a+")),
        ({"structured_outputs": {"json": {"a": 1}}}, JsonSchema({"a": 1})),
    ],
)  # fmt: skip
def test_the_output_can_be_constrained_in_every_dialect(
    fields: dict[str, Any], constraint: object
) -> None:
    assert chat(**fields).constraint == constraint


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [{"type": "function", "id": "1", "function": {"name": "f", "arguments": ""}}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]}, "messages[0].content[0].image_url.url"),
        ({"n": 2}, "n"),
        ({"n": 0}, "n"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias[...]"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"model": "m" * 1000}, "model"),
        ({"stream": "yes"}, "stream"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_and_the_field_is_named(
    fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidCall) as raised:
        chat(**fields)
    assert f"`$.{field}`" in raised.value.message.replace(
        "`key` in `$.logit_bias`", "`$.logit_bias`"
    )
    assert raised.value.hint


def test_two_constraints_are_refused() -> None:
    with pytest.raises(InvalidCall, match="two ways"):
        chat(guided_regex="a", structured_outputs={"regex": "b"})


def complete(**fields: Any) -> object:
    return complete_of(decode(json.dumps({"prompt": "x", **fields}).encode(), CompletionRequest))


def test_a_text_completion_has_openais_defaults() -> None:
    call = complete_of(decode(b'{"prompt":["once"],"logprobs":3}', CompletionRequest))
    assert (call.prompt, call.max_tokens, call.logprobs, call.top_logprobs) == ("once", 16, True, 3)


@pytest.mark.parametrize(
    "fields",
    [{"echo": True}, {"suffix": "x"}, {"best_of": 2}, {"n": 3}, {"prompt": [1, 2]}, {"prompt": [[1]]}, {"prompt": ["a", "b"]}, {"prompt": []}],
)  # fmt: skip
def test_what_text_completions_lack_is_said(fields: dict[str, Any]) -> None:
    with pytest.raises((InvalidCall, Unsupported)) as raised:
        complete(**fields)
    assert raised.value.hint


def embed(**fields: Any) -> tuple[str, ...]:
    return embed_of(decode(json.dumps(fields).encode(), EmbeddingRequest)).texts


def test_texts_to_embed_come_as_one_or_many() -> None:
    assert embed(input="a") == ("a",)
    assert embed(input=["a", "b"], encoding_format="base64") == ("a", "b")


@pytest.mark.parametrize(
    "fields",
    [{"input": []}, {"input": ""}, {"input": ["a", ""]}, {"input": [1, 2]}, {"input": [[1], [2]]}, {"input": 5}, {}, {"input": "a", "dimensions": 64}, {"input": "a", "encoding_format": "hex"}],
)  # fmt: skip
def test_what_cannot_be_embedded_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises((InvalidCall, Unsupported)) as raised:
        embed(**fields)
    assert raised.value.hint


@given(st.data())
def test_whatever_passes_here_the_kernels_own_reader_would_have_passed(data: st.DataObject) -> None:
    """The call is built without checks, so the limits of the request must be at least as strict as the call's."""
    fields = {
        "temperature": st.floats(0, 2), "top_p": st.floats(0, 1), "top_k": st.integers(-1, 10**6), "min_p": st.floats(0, 1),
        "frequency_penalty": st.floats(-2, 2), "repetition_penalty": st.floats(0, 100, exclude_min=True),
        "seed": st.integers(-(2**63), 2**63 - 1), "stop": st.lists(st.text(min_size=1, max_size=5), max_size=16),
        "max_tokens": st.integers(1, 10**6), "logit_bias": st.dictionaries(st.from_regex(r"\A[0-9]{1,9}\Z"), st.floats(-100, 100)),
        "guided_regex": st.text(min_size=1), "model": st.text(max_size=512),
        "tools": st.just([TOOL]), "logprobs": st.just(True), "top_logprobs": st.integers(0, 20),
    }  # fmt: skip
    chosen = data.draw(st.fixed_dictionaries({}, optional=fields))
    body = {"messages": HELLO, **chosen}
    try:
        call = chat_of(decode(msgspec.json.encode(body), ChatCompletionRequest))
    except (AiosError, UnicodeEncodeError):
        return
    assert call_from_json(call_to_json(call)) == call
