import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.abi.types import Message, Role, ToolCall
from aios.sdk.tools import ToolOutcome
from aios.sdk.transcript import INTERRUPTED, Transcript, is_json_object, sanitized

TASK = Message(Role.USER, "do it")
calls = st.lists(
    st.builds(
        ToolCall,
        st.sampled_from(["", "a", "b", "call_1", "call_2"]),
        st.sampled_from(["", "f", "g"]),
        st.one_of(st.text(max_size=6), st.sampled_from(["{}", '{"a":1}', "[1]", "{", "nan"])),
    ),
    max_size=5,
)
outcomes = st.one_of(st.none(), st.builds(ToolOutcome, st.text(max_size=5), st.booleans()))


def test_a_task_is_settled_with_the_turn_that_answers_it() -> None:
    transcript, system = Transcript("be brief"), Message(Role.SYSTEM, "be brief")
    transcript.begin(TASK)
    assert list(transcript.messages) == [system]
    assert list(transcript.prompt) == [system, TASK]
    answer = Message(Role.ASSISTANT, "done")
    transcript.commit(answer, ())
    assert (
        transcript.messages == transcript.prompt == (Message(Role.SYSTEM, "be brief"), TASK, answer)
    )
    assert transcript.news == (TASK, answer)


def test_a_task_that_nothing_answered_leaves_no_trace() -> None:
    transcript = Transcript()
    transcript.begin(TASK)
    transcript.give_up()
    assert transcript.messages == transcript.prompt == transcript.news == ()


def test_every_call_gets_its_result_in_order() -> None:
    transcript = Transcript()
    transcript.begin(TASK)
    message = Message(Role.ASSISTANT, "", (ToolCall("x", "f", "{}"), ToolCall("y", "g", "{}")))
    transcript.commit(message, [None, ToolOutcome("two")])
    assert transcript.messages[2:] == (
        Message(Role.TOOL, INTERRUPTED.text, tool_call_id="x", name="f"),
        Message(Role.TOOL, "two", tool_call_id="y", name="g"),
    )


@given(st.lists(st.tuples(calls, st.lists(outcomes, min_size=5, max_size=5), st.booleans())))
def test_whatever_a_model_writes_the_conversation_is_one_that_can_be_shown(
    turns: list[tuple[list[ToolCall], list[ToolOutcome | None], bool]],
) -> None:
    transcript = Transcript("x")
    for wanted, results, is_new_task in turns:
        if is_new_task:
            transcript.begin(TASK)
            transcript.check_invariants()
        message = sanitized(Message(Role.ASSISTANT, "thinking", tuple(wanted)))
        transcript.commit(message, results[: len(wanted)])
        transcript.check_invariants()


@given(calls)
def test_sane_calls_are_left_as_they_are(wanted: list[ToolCall]) -> None:
    once = sanitized(Message(Role.ASSISTANT, "", tuple(wanted)))
    assert sanitized(once) == once
    for before, after in zip(wanted, once.tool_calls, strict=True):
        if is_json_object(before.arguments):
            assert after.arguments == before.arguments
        if before.name:
            assert after.name == before.name


@pytest.mark.parametrize(
    "messages",
    [
        [Message(Role.TOOL, "x", tool_call_id="a")],
        [Message(Role.ASSISTANT, "", (ToolCall("a", "f", "{}"),))],
        [Message(Role.ASSISTANT, "", (ToolCall("a", "f", "{}"),)), TASK],
        [Message(Role.ASSISTANT, "", (ToolCall("a", "f", "{"),)), Message(Role.TOOL, "", tool_call_id="a")],
        [TASK, Message(Role.SYSTEM, "x")],
    ],
)  # fmt: skip
def test_the_check_finds_what_no_model_takes(messages: list[Message]) -> None:
    transcript = Transcript()
    transcript._messages = messages
    with pytest.raises(AssertionError):
        transcript.check_invariants()
