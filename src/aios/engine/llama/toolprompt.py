"""Tools for models whose chat template knows none: they are told about them in the system message.

The form is the one that most open models know, also those that were never shown tools by a template: a call is
`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, a result stands between `<tool_response>` tags in a user's
message.
"""

import json
from collections.abc import Iterable, Sequence

from aios.abi.types import Message, Role, ToolCall, ToolSpec

CALL_OPEN = "<tool_call>"
CALL_CLOSE = "</tool_call>"

_CALL_FORM = '{"name": "tool name", "arguments": {...}}'


def describe_tools(tools: Sequence[ToolSpec]) -> str:
    """What the system message says about the tools.

    Short, and without an example of real arguments: small models copy those.
    """
    lines = [json.dumps(tool_object(tool), ensure_ascii=False) for tool in tools]
    return "\n".join(
        [
            "You have these tools:",
            "<tools>",
            *lines,
            "</tools>",
            "",
            "To use one, reply with:",
            CALL_OPEN,
            _CALL_FORM,
            CALL_CLOSE,
        ]
    )


def tool_object(tool: ToolSpec) -> dict[str, object]:
    """A tool as the OpenAI API and chat templates write it."""
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        },
    }


def call_text(call: ToolCall) -> str:
    """A call as the model is asked to write it."""
    return f'{CALL_OPEN}\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments or "{}"}}}\n{CALL_CLOSE}'


def spell_out(messages: Iterable[Message]) -> list[Message]:
    """The conversation without tool messages and tool calls: both become text.

    Results that follow each other, and a user's message after them, become one message, for templates that insist on
    turns that alternate.
    """
    out: list[Message] = []
    after_results = False
    for message in messages:
        spelled = _spelled(message)
        if after_results and spelled.role is Role.USER:
            out[-1] = Message(Role.USER, f"{out[-1].text()}\n{spelled.text()}")
        else:
            out.append(spelled)
        after_results = message.role is Role.TOOL
    return out


def add_to_system(messages: Sequence[Message], text: str) -> list[Message]:
    """The conversation with a text at the end of its system message, which is made if there is none."""
    if messages and messages[0].role is Role.SYSTEM:
        return [Message(Role.SYSTEM, f"{messages[0].text()}\n\n{text}"), *messages[1:]]
    return [Message(Role.SYSTEM, text), *messages]


def _spelled(message: Message) -> Message:
    if message.role is Role.TOOL:
        return Message(Role.USER, f"<tool_response>\n{message.text()}\n</tool_response>")
    if message.tool_calls:
        calls = "\n".join(map(call_text, message.tool_calls))
        return Message(Role.ASSISTANT, f"{message.text()}\n{calls}".lstrip("\n"))
    return message
