import base64
import json
import struct
from typing import Any

import msgspec
import pytest

from aios.abi.calls import ChatAnswer, CompleteAnswer, Embeddings
from aios.abi.gate import Line, Result, Token
from aios.abi.types import (
    Alternative,
    EngineInfo,
    Finish,
    LogLine,
    Message,
    Pid,
    Role,
    TokenLogprob,
    ToolCall,
    Usage,
)
from aios.errors import EngineFailed
from aios.server.openai_replies import (
    ChatEvents,
    Tag,
    TextEvents,
    chat_completion,
    embedding_reply,
    model_cards,
    text_completion,
)

TAG = Tag("chatcmpl-1", 123, "m")
ROW = TokenLogprob(
    "a", -0.5, b"a", (Alternative("a", -0.5, b"a"), Alternative("b", float("-inf"), b"b"))
)
CALL = ToolCall("c1", "f", '{"x":1}')


def answer(text: str = "hi", finish: Finish = Finish.STOP, *calls: ToolCall) -> ChatAnswer:
    return ChatAnswer(Message(Role.ASSISTANT, text, calls), finish, Usage(10, 4, 2), "m", (ROW,))


def plain(value: object) -> Any:
    return json.loads(msgspec.json.encode(value))


def events(data: bytes) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in data.decode().split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_a_chat_reply_has_text_usage_and_logprobs() -> None:
    body = plain(chat_completion(answer(), TAG))
    choice = body["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "hi"}
    assert choice["finish_reason"] == "stop"
    assert body["usage"] == {
        "prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 4},
    }  # fmt: skip
    row = choice["logprobs"]["content"][0]
    assert (row["token"], row["logprob"], row["bytes"]) == ("a", -0.5, [97])
    assert row["top_logprobs"][1]["logprob"] == -9999.0, "JSON cannot say minus infinity"


def test_a_reply_with_tool_calls_has_no_content() -> None:
    choice = plain(chat_completion(answer("", Finish.TOOL_CALLS, CALL), TAG))["choices"][0]
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"type": "function", "id": "c1", "function": {"name": "f", "arguments": '{"x":1}'}}
    ]
    assert choice["finish_reason"] == "tool_calls"


def test_a_stream_begins_with_the_role_and_ends_with_done() -> None:
    shape = ChatEvents(TAG, include_usage=False)
    read = events(
        shape.progress(Token("a")) + shape.progress(Token("")) + shape.progress(Token("b"))
    )
    read += events(shape.result(Result(answer())))
    deltas = [event["choices"][0]["delta"] for event in read[:-1]]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "a"}, {"content": "b"}, {}]
    assert [event["choices"][0]["finish_reason"] for event in read[:-1]] == [
        None,
        None,
        None,
        "stop",
    ]
    assert {event["id"] for event in read[:-1]} == {"chatcmpl-1"}
    assert not any("usage" in event for event in read[:-1])
    assert read[-1] == "[DONE]"


def test_usage_comes_last_and_only_if_asked_for() -> None:
    shape = ChatEvents(TAG, include_usage=True)
    read = events(shape.progress(Token("a")) + shape.result(Result(answer())))
    assert [event["usage"] for event in read[:-2]] == [None, None, None]
    assert read[-2]["choices"] == []
    assert read[-2]["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}


def test_tool_calls_in_a_stream_are_numbered() -> None:
    shape = ChatEvents(TAG, include_usage=False)
    read = events(
        shape.progress(Token(tool_calls=(CALL,))) + shape.progress(Token(tool_calls=(CALL,)))
    )
    calls = [event["choices"][0]["delta"]["tool_calls"][0] for event in read[1:]]
    assert [call["index"] for call in calls] == [0, 1]
    assert calls[0]["function"] == {"name": "f", "arguments": '{"x":1}'}


def test_an_answer_without_any_piece_still_has_a_role() -> None:
    read = events(ChatEvents(TAG, include_usage=False).result(Result(answer(""))))
    assert read[0]["choices"][0]["delta"]["role"] == "assistant"


def test_an_error_in_mid_stream_is_an_event() -> None:
    for shape in (ChatEvents(TAG, False), TextEvents(TAG, False)):
        read = events(shape.fault(EngineFailed("it broke")))
        assert read[0]["error"]["code"] == "engine_failed"


def test_a_text_completion_has_columns_of_logprobs() -> None:
    body = plain(
        text_completion(CompleteAnswer("aa", Finish.LENGTH, Usage(1, 0, 2), "m", (ROW, ROW)), TAG)
    )
    assert body["choices"][0]["text"] == "aa"
    rows = body["choices"][0]["logprobs"]
    assert (rows["tokens"], rows["token_logprobs"], rows["text_offset"]) == (
        ["a", "a"],
        [-0.5, -0.5],
        [0, 1],
    )


def test_a_streamed_text_completion_counts_offsets_through() -> None:
    shape = TextEvents(TAG, include_usage=True)
    read = events(
        shape.progress(Token("a", 1, (ROW,)))
        + shape.progress(Token(""))
        + shape.progress(Token("a", 1, (ROW,)))
    )
    assert [event["choices"][0]["logprobs"]["text_offset"] for event in read] == [[0], [1]]
    end = events(shape.result(Result(CompleteAnswer("aa", Finish.STOP, Usage(1, 0, 2), "m"))))
    assert end[0]["choices"][0]["finish_reason"] == "stop"
    assert end[1]["usage"]["total_tokens"] == 3
    assert end[2] == "[DONE]"


def test_lines_are_no_part_of_a_generation() -> None:
    line = Line(LogLine(Pid(1), 0.0, "out", "x"))
    assert ChatEvents(TAG, False).progress(line) == TextEvents(TAG, False).progress(line) == b""


def test_vectors_come_as_numbers_or_base64() -> None:
    vectors = Embeddings(((0.5, -1.0),), Usage(3), "m")
    assert plain(embedding_reply(vectors, None))["data"][0]["embedding"] == [0.5, -1.0]
    encoded = plain(embedding_reply(vectors, "base64"))["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(encoded)) == (0.5, -1.0)


@pytest.mark.parametrize(("model", "shown"), [("big", "big"), ("", "local")])
def test_an_engine_that_is_not_loaded_goes_by_its_own_name(model: str, shown: str) -> None:
    engine = EngineInfo("local", "llama", model, 4096, 8, 0, 0, (), Usage(), 0)
    card = model_cards([engine], 5)[0]
    assert (card.id, card.max_model_len, card.created) == (shown, 4096, 5)
