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

_INSTRUCTION = (
    "When a tool can do what is asked, do not answer in words but write a call of it, and nothing after it. "
    "A call is one JSON object with the name of the tool and its arguments, like this:"
)


def describe_tools(tools: Sequence[ToolSpec]) -> str:
    """What the system message says about the tools."""
    lines = [json.dumps(tool_object(tool), ensure_ascii=False) for tool in tools]
    return "\n".join(
        [
            "You have these tools, one on each line:",
            "<tools>",
            *lines,
            "</tools>",
            "",
            _INSTRUCTION,
            CALL_OPEN,
            json.dumps({"name": tools[0].name, "arguments": _example(tools[0])}),
            CALL_CLOSE,
            "What the tool answers then comes between <tool_response> and </tool_response>.",
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


def _example(tool: ToolSpec) -> dict[str, object]:
    """Arguments of the right names and types, for the example of a call."""
    properties = tool.parameters.get("properties")
    if not isinstance(properties, dict):
        return {}
    required = tool.parameters.get("required")
    names = required if isinstance(required, list) and required else list(properties)
    return {str(name): _example_value(properties.get(name)) for name in names}


_EXAMPLES: dict[object, object] = {
    "integer": 1,
    "number": 1.5,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}


def _example_value(schema: object) -> object:
    if not isinstance(schema, dict):
        return "..."
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    kind = schema.get("type")
    return _EXAMPLES.get(kind, "...") if isinstance(kind, str) else "..."
