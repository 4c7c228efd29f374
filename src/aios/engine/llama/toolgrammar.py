"""The grammar of the output of a model that has tools: a call, where one must come or has begun, is a valid one."""

import json
from collections.abc import Callable
from typing import Final

from llguidance import regex_to_lark

from aios.abi.types import Constraint, JsonObject, JsonSchema, ToolSpec
from aios.engine.base import ChatPrompt
from aios.engine.llama.grammar import Lark, schema_text, with_layout
from aios.engine.llama.template import ToolMode
from aios.engine.llama.toolcalls import OPENING
from aios.engine.llama.toolprompt import CALL_CLOSE, CALL_OPEN
from aios.errors import InvalidCall

MAX_CALLS: Final = 16  # in one message

_THOUGHT_TAGS: Final = ("<think>", "</think>")


def tool_constraint(
    prompt: ChatPrompt,
    mode: ToolMode,
    *,
    find_special: Callable[[str], int | None],
    content: Constraint | None = None,
) -> Lark | None:
    """The grammar of the whole output of a model that has tools; None when the output is free.

    With tool choice `required` or `tool` the output is a call. With `auto` it is text (or `content`, if the job has a
    constraint), and from the place where a call opens, that call: its name is one of the tools' and its arguments fit that
    tool's schema. Calls may follow each other, but in `FALLBACK` mode, where models tend to repeat themselves.

    Args:
        prompt: The conversation.
        mode: From `Rendered.tool_mode`.
        find_special: `Vocabulary.find_special`.
        content: The constraint of the job.

    Raises:
        InvalidCall: A tool's schema is no JSON, or not of an object.
    """
    if mode is ToolMode.NONE:
        return None
    must_call = prompt.tool_choice.mode in ("required", "tool")
    if mode is ToolMode.LLAMA3 and not must_call and content is None:
        return None  # nothing marks where a bare JSON call opens
    chosen = [
        tool
        for tool in prompt.tools
        if prompt.tool_choice.mode != "tool" or tool.name == prompt.tool_choice.name
    ]
    rules = [f"call: {' | '.join(f'call_{i}' for i in range(len(chosen)))}"]
    rules += [_call_rule(i, tool, mode) for i, tool in enumerate(chosen)]
    opening = _terminal(OPENING[mode], find_special)
    if must_call:
        rules.append(f"start: {_calls(mode, opening, find_special)}")
    elif content is not None:
        rules += [f"start: content | {_calls(mode, opening, find_special)}", _content_rule(content)]
    else:
        rules += _rules_of_auto(mode, opening, find_special)
    schemas = tuple((f"the tool `{tool.name}`", tool.parameters) for tool in chosen)
    return Lark("\n".join(rules) + "\n", schemas)


def _rules_of_auto(
    mode: ToolMode, opening: str, find_special: Callable[[str], int | None]
) -> list[str]:
    thoughts = [f"<[{t}]>" for t in map(find_special, _THOUGHT_TAGS) if t is not None]
    text = f"({' | '.join(['TEXT', *thoughts])})*" if thoughts else "TEXT"
    calls = _calls(mode, "", find_special)
    if opening.startswith("<["):  # one token, which no text can contain
        return [f"start: {text} ({opening} {calls})?", "TEXT: /(.|\\n)*/"]
    # Lazy: as soon as the tag is there it is a tag, though TEXT could go on over it.
    return [
        f"start: {text} | {text if thoughts else ''} opened {calls}",
        f"opened[lazy]: TEXT {opening}",
        "TEXT: /(.|\\n)*/",
    ]


def _calls(mode: ToolMode, opening: str, find_special: Callable[[str], int | None]) -> str:
    """One call or several, after `opening`, which may be empty because it was written already."""
    if mode is ToolMode.LLAMA3:
        return "call"
    if mode is ToolMode.MISTRAL:
        return f'{opening} "[" call (", " call){{0,{MAX_CALLS - 1}}} "]"'
    closing = _terminal(CALL_CLOSE, find_special)
    first = f'{opening} "\\n" call "\\n" {closing}'
    if mode is ToolMode.FALLBACK:
        return first
    again = _terminal(CALL_OPEN, find_special)
    return f'{first} ("\\n" {again} "\\n" call "\\n" {closing}){{0,{MAX_CALLS - 1}}}'


def _terminal(text: str, find_special: Callable[[str], int | None]) -> str:
    """A text in the grammar: the special token that it is in this vocabulary, or its characters."""
    token = find_special(text)
    return json.dumps(text) if token is None else f"<[{token}]>"


def _call_rule(i: int, tool: ToolSpec, mode: ToolMode) -> str:
    arguments = _arguments_schema(tool)
    if mode is ToolMode.LLAMA3:
        # Nothing stands before the call, so all of it must be JSON in the same lexemes as the JSON of an answer.
        return f"call_{i}: %json {schema_text(with_layout(_bare_call(tool.name, arguments)))}"
    head = f'{{"name": {json.dumps(tool.name)}, "arguments": '
    # A root of its own for each schema, so that its `#/$defs/...` are found.
    return f'call_{i}: {json.dumps(head)} %json {schema_text(with_layout(arguments))} "}}"'


def _bare_call(name: str, arguments: JsonObject) -> JsonObject:
    definitions: JsonObject = {
        key: arguments[key] for key in ("$defs", "definitions") if key in arguments
    }
    return {
        **definitions,
        "type": "object",
        "properties": {"name": {"const": name}, "parameters": arguments},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }


def _arguments_schema(tool: ToolSpec) -> JsonObject:
    """The schema of a tool's arguments: always an object, and one without inventions of the model."""
    schema = {"type": "object", **tool.parameters}
    if schema["type"] != "object":
        raise InvalidCall(f"the parameters of the tool `{tool.name}` are no schema of an object")
    is_plain = not schema.keys() & {"patternProperties", "$ref", "anyOf", "oneOf", "allOf"}
    if is_plain:
        schema.setdefault("additionalProperties", False)
    return schema


def _content_rule(content: Constraint) -> str:
    if isinstance(content, JsonSchema):
        return f"content: %json {schema_text(with_layout(content.schema))}"
    return f"content: /{regex_to_lark(content.pattern, use_ascii='')}/"
