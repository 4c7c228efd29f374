import json
from typing import Any

from aios.abi.calls import ChatAnswer
from aios.abi.gate import Result, Token
from aios.abi.types import Finish, Message, Role, ToolCall, Usage
from aios.errors import EngineFailed
from aios.server.openai_replies import Tag
from aios.server.responses_replies import ResponseEvents, response_of
from aios.server.responses_types import ResponseRequest

TAG = Tag("resp_1", 5, "small")
REQUEST = ResponseRequest(input="hi", metadata={"a": "b"})
CALL = ToolCall("call_1", "weather", '{"city": "Oslo"}')


def answer(*, finish: Finish = Finish.STOP, calls: tuple[ToolCall, ...] = ()) -> ChatAnswer:
    message = Message(Role.ASSISTANT, "I look.", calls)
    return ChatAnswer(message, finish, Usage(100, 96, 7), "small")


def events_of(data: bytes) -> list[dict[str, Any]]:
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        kind, _, told = block.partition("\n")
        event = json.loads(told.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        found.append(event)
    return found


def test_usage_tells_cached_tokens_in_openais_field() -> None:
    usage = response_of(REQUEST, answer(), TAG).usage
    assert usage is not None
    assert usage.input_tokens_details.cached_tokens == 96
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (100, 7, 107)


def test_text_and_calls_are_items_in_their_order_whole_or_streamed() -> None:
    shape = ResponseEvents(REQUEST, TAG)
    stream = shape.progress(Token("I ")) + shape.progress(Token("look.", tool_calls=(CALL,)))
    stream += shape.result(Result(answer(finish=Finish.TOOL_CALLS, calls=(CALL,))))
    events = events_of(stream)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    response = events[-1]["response"]
    assert [item["type"] for item in response["output"]] == ["message", "function_call"]
    assert response["output"][0]["content"][0]["text"] == "I look."
    assert response["output"][1]["arguments"] == CALL.arguments
    assert response["usage"]["input_tokens_details"] == {"cached_tokens": 96}
    whole = response_of(REQUEST, answer(finish=Finish.TOOL_CALLS, calls=(CALL,)), TAG)
    assert [type(item).__name__ for item in whole.output] == ["OutputMessage", "OutputCall"]
    opened = [e["output_index"] for e in events if e["type"] == "response.output_item.added"]
    closed = [e["output_index"] for e in events if e["type"] == "response.output_item.done"]
    assert opened == closed == [0, 1]


def test_an_answer_that_was_cut_off_is_incomplete() -> None:
    response = response_of(REQUEST, answer(finish=Finish.LENGTH), TAG)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    last = events_of(ResponseEvents(REQUEST, TAG).result(Result(answer(finish=Finish.LENGTH))))[-1]
    assert last["type"] == "response.incomplete"


def test_an_error_in_mid_stream_is_an_event_in_openais_shape() -> None:
    shape = ResponseEvents(REQUEST, TAG)
    shape.progress(Token("I "))
    [event] = events_of(shape.fault(EngineFailed("it broke", hint="look")))
    assert (event["type"], event["code"]) == ("error", "engine_failed")
    assert event["error"]["message"] == "it broke (look)"
