"""What people are shown of calls and answers, on one line each."""

import msgspec

from aios.abi.calls import Chat, ChatAnswer
from aios.abi.journal import Recorded
from aios.abi.tools import ToolResult, ToolRun
from aios.abi.types import Finish, JsonObject, Message, Pid, Role, Sampling, ToolCall, Usage
from aios.cli.gist import LINE_CHARS, lines_of, parted_lines

SYSTEM = Message(Role.SYSTEM, "You tidy. " + "Be careful. " * 40)
DELETE = ToolCall("call_1", "files", '{"action": "delete"}')


def record(call: object, answer: object) -> Recorded:
    def told(value: object) -> JsonObject:
        return msgspec.convert(msgspec.to_builtins(value), JsonObject)

    asked, answered = told(call), told(answer)
    return Recorded(Pid(2), 1, "call", "pure", "done", 0.0, 1.0, intent=asked, answer=answered)


def chat(*messages: Message, say: Message, temperature: float = 0) -> Recorded:
    call = Chat(messages=messages, sampling=Sampling(temperature=temperature))
    return record(call, ChatAnswer(say, Finish.STOP, Usage(9), "m"))


def test_of_a_conversation_its_last_message_is_shown_and_what_the_model_calls() -> None:
    say = Message(Role.ASSISTANT, "", tool_calls=(DELETE,))
    assert lines_of(chat(SYSTEM, Message(Role.USER, "Tidy up.\nNow."), say=say)) == [
        "> (2 messages) user: Tidy up.\\nNow.",
        '< assistant: calls files {"action": "delete"}',
    ]


def test_of_a_tool_its_name_its_arguments_and_what_it_says_are_shown() -> None:
    run = record(ToolRun(name="files", arguments='{"action": "list"}'), ToolResult("a.md\nb.md"))
    assert lines_of(run) == ['> files {"action": "list"}', "< a.md\\nb.md"]


def test_two_conversations_are_shown_where_they_part() -> None:
    say = Message(Role.ASSISTANT, "yes")
    one, other, again = (
        Message(Role.USER, "one"),
        Message(Role.USER, "two"),
        Message(Role.USER, "?"),
    )
    left, right = chat(SYSTEM, one, say, again, say=say), chat(SYSTEM, other, say, again, say=say)
    assert parted_lines(left, right, ())[0] == "> (message 2 of 4) user: one"
    assert parted_lines(right, left, ())[0] == "> (message 2 of 4) user: two"


def test_what_is_another_beside_equal_messages_is_shown() -> None:
    say = Message(Role.ASSISTANT, "yes")
    cold, warm = chat(SYSTEM, say=say), chat(SYSTEM, say=say, temperature=2)
    assert '"temperature":2' in parted_lines(warm, cold, ())[0]
    assert all(len(line) < LINE_CHARS + 10 for line in parted_lines(warm, cold, ()))
