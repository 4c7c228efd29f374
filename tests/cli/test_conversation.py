"""A conversation as `chat` keeps it."""

from aios.abi.types import JsonSchema, Role
from aios.cli.conversation import Conversation
from aios.sdk.requests import ChatOptions


def test_a_question_goes_with_all_that_was_said_before() -> None:
    conversation = Conversation(ChatOptions(max_tokens=7), system="be brief")
    conversation.keep("one", "1")
    call = conversation.ask("two")
    said = [(message.role, message.content) for message in call.messages]
    assert said == [
        (Role.SYSTEM, "be brief"),
        (Role.USER, "one"),
        (Role.ASSISTANT, "1"),
        (Role.USER, "two"),
    ]
    assert call.max_tokens == 7


def test_a_question_is_not_kept_before_it_is_answered() -> None:
    conversation = Conversation(ChatOptions())
    conversation.ask("one")
    assert conversation.n_answers == 0
    assert len(conversation.ask("two").messages) == 1


def test_reset_forgets_all_but_the_system_prompt() -> None:
    conversation = Conversation(ChatOptions(), system="be brief")
    conversation.keep("one", "1")
    assert conversation.n_answers == 1
    conversation.reset()
    assert [message.role for message in conversation.ask("two").messages] == [
        Role.SYSTEM,
        Role.USER,
    ]


def test_options_and_schema_go_with_every_question() -> None:
    conversation = Conversation(ChatOptions(temperature=0.0, seed=3), {"type": "object"})
    call = conversation.ask("one")
    assert (call.sampling.temperature, call.sampling.seed) == (0.0, 3)
    assert isinstance(call.constraint, JsonSchema)
    assert call.constraint.schema == {"type": "object"}
