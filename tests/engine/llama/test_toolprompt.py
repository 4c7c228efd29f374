"""What models without tools in their template are told about them."""

import json

from aios.abi.types import Message, Role, ToolCall, ToolSpec
from aios.engine.llama.toolprompt import add_to_system, call_text, describe_tools, spell_out


def test_each_tool_stands_on_one_line_as_json() -> None:
    tools = [ToolSpec("f", "does\nthis", {"type": "object"}), ToolSpec("g")]
    lines = describe_tools(tools).partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    names = [json.loads(line)["function"]["name"] for line in lines]
    assert names == ["f", "g"]


def test_the_form_of_a_call_is_shown_but_no_arguments_that_could_be_copied() -> None:
    tool = ToolSpec("f", "does", {"properties": {"n": {"enum": [1, 2]}}})
    end = describe_tools([tool]).partition("</tools>")[2]
    assert end.endswith('<tool_call>\n{"name": "tool name", "arguments": {...}}\n</tool_call>')


def test_a_call_in_the_history_looks_as_it_is_asked_for() -> None:
    call = ToolCall("1", 'say "hi"', '{"a": 1}')
    assert call_text(call) == (
        '<tool_call>\n{"name": "say \\"hi\\"", "arguments": {"a": 1}}\n</tool_call>'
    )
    assert '"arguments": {}}' in call_text(ToolCall("1", "f", ""))


def test_words_before_a_call_are_kept() -> None:
    call = ToolCall("1", "f", "{}")
    [spelled] = spell_out([Message(Role.ASSISTANT, "Wait.", (call,))])
    assert spelled.text() == f"Wait.\n{call_text(call)}"
    assert spelled.tool_calls == ()


def test_what_has_nothing_to_do_with_tools_stays_as_it_is() -> None:
    messages = [Message(Role.USER, "a"), Message(Role.USER, "b"), Message(Role.ASSISTANT, "c")]
    assert spell_out(messages) == messages


def test_the_system_message_is_added_to_or_made() -> None:
    user = Message(Role.USER, "x")
    assert add_to_system([user], "T") == [Message(Role.SYSTEM, "T"), user]
    assert add_to_system([Message(Role.SYSTEM, "S"), user], "T")[0].text() == "S\n\nT"
