"""What the scripted engine says."""

import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.jobs import ADD, LIGHT, SCHEMA, chat, with_tools

from aios.abi.types import Finish, JsonSchema, Message, Regex, Role, Sampling, ToolCall, ToolChoice
from aios.engine import pieces
from aios.engine.base import ChatPrompt, Job, TextPrompt
from aios.engine.script import Plan, Reply, default_reply, plan_of
from aios.errors import InvalidCall

AUTO = ToolChoice()


def plan(reply: Reply, job: Job, n_max: int = 1000) -> Plan:
    return plan_of(reply, job, n_max=n_max, n_wanted=None, n_prompt=1)


def test_an_answer_quotes_the_last_message_that_is_not_the_assistants() -> None:
    said = (
        Message(Role.USER, "old"),
        Message(Role.USER, "new one"),
        Message(Role.ASSISTANT, "mine"),
    )
    assert default_reply(chat(prompt=ChatPrompt(said))).text.startswith("You said: new one.")
    assert "tide" in default_reply(Job(TextPrompt("Time and tide"))).text
    assert default_reply(chat(prompt=ChatPrompt((Message(Role.SYSTEM, "x"),)))).text.startswith(
        "You said nothing."
    )


@given(st.text(max_size=100), st.integers(0, 2**63 - 1))
def test_an_answer_follows_from_prompt_and_seed(text: str, seed: int) -> None:
    job = chat(text, sampling=Sampling(seed=seed))
    answer = default_reply(job)
    assert answer == default_reply(job)
    assert answer.text.encode()


def test_an_answer_is_as_long_as_it_is_asked_to_be() -> None:
    for n_tokens in (1, 30, 500):
        assert pieces.count(default_reply(chat(), n_tokens=n_tokens).text) >= n_tokens


# --- tools -----------------------------------------------------------------------------------------------------------


def test_a_call_in_words_is_made_with_the_arguments_that_are_given() -> None:
    text = 'Please call add {"a": 1, "b": 2} and then call light {"state": "on"}, but do not call nobody {"x": 1}'
    calls = default_reply(with_tools(text, AUTO, ADD, LIGHT)).tool_calls
    assert [(call.name, call.arguments) for call in calls] == [
        ("add", '{"a": 1, "b": 2}'),
        ("light", '{"state": "on"}'),
    ]
    assert len({call.id for call in calls}) == 2


@pytest.mark.parametrize(
    "text", ["call add", "call add {", "call add {'a': 1}", "recall add {}", "Hello"]
)
def test_without_a_call_in_words_there_is_an_answer(text: str) -> None:
    reply = default_reply(with_tools(text, AUTO, ADD))
    assert reply.tool_calls == ()
    assert reply.text


def test_after_a_tool_result_the_answer_quotes_it_instead_of_calling_again() -> None:
    said = (
        Message(Role.USER, 'call add {"a": 1, "b": 2}'),
        Message(Role.ASSISTANT, "", (ToolCall("1", "add", "{}"),)),
        Message(Role.TOOL, "3", tool_call_id="1"),
    )
    reply = default_reply(chat(prompt=ChatPrompt(said, (ADD,))))
    assert reply.tool_calls == ()
    assert reply.text.startswith("You said: 3.")


@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice("tool", "add")])
def test_an_asked_for_call_gets_made_up_arguments_that_fit(choice: ToolChoice) -> None:
    (call,) = default_reply(with_tools("Hello", choice, ADD, LIGHT)).tool_calls
    assert call.name == "add"
    jsonschema_rs.validate(ADD.parameters, json.loads(call.arguments))


def test_a_choice_without_its_tool_is_the_callers_mistake() -> None:
    for job in (
        with_tools("x", ToolChoice("tool", "sub"), ADD),
        with_tools("x", ToolChoice("required")),
    ):
        with pytest.raises(InvalidCall):
            default_reply(job)


# --- constraints -----------------------------------------------------------------------------------------------------


def test_under_a_constraint_the_answer_fits_it() -> None:
    value = json.loads(default_reply(chat(constraint=JsonSchema(SCHEMA))).text)
    jsonschema_rs.validate(SCHEMA, value)
    assert default_reply(chat(constraint=Regex("[0-9]{3}"))).text == "000"


# --- plans -----------------------------------------------------------------------------------------------------------


@given(st.text(max_size=80), st.integers(1, 40))
def test_a_plan_shows_what_is_said_up_to_its_limit(text: str, n_max: int) -> None:
    said = pieces.split(text)
    made = plan(Reply(text), chat(), n_max)
    assert len(made.pieces) == len(made.texts) == min(len(said), n_max)
    assert "".join(made.texts) == "".join(said[:n_max])
    assert made.finish is (Finish.LENGTH if len(said) >= n_max else Finish.STOP)


@given(
    st.text("ab ", max_size=60),
    st.text("ab ", min_size=1, max_size=5),
    st.text("ab ", min_size=1, max_size=5),
)
def test_no_stop_string_is_ever_visible(text: str, first: str, second: str) -> None:
    made = plan(Reply(text), chat(stop=(first, second)))
    shown = "".join(made.texts)
    assert text.startswith(shown)
    assert first not in shown
    assert second not in shown
    if first not in text and second not in text:
        assert shown == text
    else:
        assert made.finish is Finish.STOP


def test_a_banned_token_is_left_out() -> None:
    banned = pieces.piece_id(" big")
    job = chat(sampling=Sampling(logit_bias={banned: -100.0, pieces.piece_id(" world"): -99.0}))
    assert "".join(plan(Reply("The big world"), job).texts) == "The world"


def test_a_tool_call_that_does_not_fit_is_cut_off_and_not_made() -> None:
    reply = Reply("Well.", (ToolCall("1", "add", '{"a": 1}'),))
    whole = plan(reply, chat())
    assert (whole.finish, whole.tool_calls) == (Finish.TOOL_CALLS, reply.tool_calls)
    assert "".join(whole.texts) == "Well."
    cut = plan(reply, chat(), len(whole.pieces) - 1)
    assert (cut.finish, cut.tool_calls) == (Finish.LENGTH, ())
    assert len(cut.pieces) == len(whole.pieces) - 1
