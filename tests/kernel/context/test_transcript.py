from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.abi.types import Message, Role, ToolCall
from aios.errors import InvalidCall
from aios.kernel.context.transcript import (
    Items,
    as_kept,
    as_spoken,
    check_answerable,
    check_invariants,
    extended,
    tail_of,
)

SYSTEM = Message(Role.SYSTEM, "be brief")
USER = Message(Role.USER, "hi")
ANSWER = Message(Role.ASSISTANT, "hello")
CALLS = Message(
    Role.ASSISTANT, tool_calls=(ToolCall("a", "clock", "{}"), ToolCall("b", "clock", "{}"))
)


def result(call_id: str) -> Message:
    return Message(Role.TOOL, "noon", tool_call_id=call_id)


def built(*messages: Message) -> Items:
    return extended((), messages)


def test_results_may_come_in_any_order_and_in_parts() -> None:
    items = built(SYSTEM, USER, CALLS, result("b"))
    assert list(tail_of(items).waiting) == ["a"]
    items = extended(items, [result("a"), ANSWER, USER])
    assert not tail_of(items).waiting
    check_answerable(items)


def test_many_results_are_taken_in_time_that_grows_as_their_number() -> None:
    ids = [f"c{i}" for i in range(40_000)]
    calls = tuple(ToolCall(call_id, "clock", "{}") for call_id in ids)
    messages = [USER, Message(Role.ASSISTANT, tool_calls=calls), *map(result, ids)]
    begun_s = process_time()
    check_answerable(built(*messages))
    assert process_time() - begun_s < 5, "half a second; by the square it is half a minute"


def test_an_error_names_a_few_calls_and_the_beginning_of_their_ids() -> None:
    calls = tuple(ToolCall(f"{i}" + "c" * 10_000, "clock", "{}") for i in range(1_000))
    with pytest.raises(InvalidCall, match="992 more") as raised:
        built(USER, Message(Role.ASSISTANT, tool_calls=calls), USER)
    assert len(raised.value.message) < 1_200


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ((USER, result("a")), "does not wait"),
        ((USER, CALLS, result("c")), "does not wait"),
        ((USER, CALLS, result("a"), result("a")), "second result"),
        ((USER, CALLS, USER), "'a', 'b' have no results"),
        ((USER, CALLS, result("a"), ANSWER), "'b' have no results"),
        ((ANSWER,), "answers nothing"),
        ((SYSTEM, ANSWER), "answers nothing"),
        ((USER, ANSWER, ANSWER), "answers nothing"),
        ((USER, SYSTEM), "in the middle"),
        ((Message(Role.USER, "x", tool_calls=CALLS.tool_calls),), "not an assistant's"),
        ((Message(Role.USER, "x", tool_call_id="a"),), "no result"),
        (
            (USER, Message(Role.ASSISTANT, tool_calls=(ToolCall("a", "f", "{}"),) * 2)),
            "id of their own",
        ),
        (
            (USER, Message(Role.ASSISTANT, tool_calls=(ToolCall("a", "f", "[1"),))),
            "no JSON object",
        ),
    ],
)
def test_what_no_model_takes_is_refused_with_a_reason(
    messages: tuple[Message, ...], complaint: str
) -> None:
    with pytest.raises(InvalidCall, match=complaint):
        built(*messages)


@pytest.mark.parametrize("messages", [(), (SYSTEM,), (USER, ANSWER), (USER, CALLS)])
def test_a_model_speaks_only_when_there_is_something_to_answer(
    messages: tuple[Message, ...],
) -> None:
    with pytest.raises(InvalidCall):
        check_answerable(built(*messages))


def test_what_a_model_said_can_always_be_kept() -> None:
    wild = Message(
        Role.ASSISTANT,
        tool_calls=(
            ToolCall("", "f", "{"),
            ToolCall("call_1", "", "{}"),
            ToolCall("call_1", "f", "3"),
        ),
    )
    spoken = as_spoken(wild)
    assert [call.id for call in spoken.tool_calls] == ["call_2", "call_1", "call_3"]
    assert spoken.tool_calls[0].arguments == "{", "the agent sees what the model wrote"
    extended(built(USER), [as_kept(spoken)])


ANY_MESSAGE = st.sampled_from([SYSTEM, USER, ANSWER, CALLS, result("a"), result("b"), result("z")])


@given(st.lists(st.lists(ANY_MESSAGE, max_size=4), max_size=12))
def test_whatever_is_offered_what_is_kept_is_a_conversation(offers: list[list[Message]]) -> None:
    items: Items = ()
    for offer in offers:
        try:
            items = extended(items, offer)
        except InvalidCall:
            continue
        check_invariants(items)
    assert extended((), [item.message for item in items]) == items


@pytest.mark.parametrize(
    ("arguments", "is_kept"),
    [('{"a":1}', True), (' \n{"a":[1e5]} ', True), ("{}{}", False), ("{", False), ('{"a":01}', False),
     ("[]", False), ('"{}"', False), ("", False), ("{" * 2_000, False), ('{"a":"\ud800"}', False)],
)  # fmt: skip
def test_arguments_are_kept_if_they_are_a_json_object(arguments: str, is_kept: bool) -> None:
    message = Message(Role.ASSISTANT, tool_calls=(ToolCall("a", "clock", arguments),))
    (call,) = as_kept(message).tool_calls
    assert call.arguments == (arguments if is_kept else "{}")


def test_arguments_of_very_many_values_are_looked_at_without_making_them() -> None:
    rich = f'{{"a":[{"[]," * 2_700_000}[]]}}'
    message = Message(Role.ASSISTANT, tool_calls=(ToolCall("a", "clock", rich),))
    begun_s = process_time()
    assert as_kept(message) == message
    assert built(USER, message)
    assert process_time() - begun_s < 0.6, "more than a second each, if all lists are made"
