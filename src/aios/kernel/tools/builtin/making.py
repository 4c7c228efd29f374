"""How a tool of the kernel is put together: its schema from a few words, its outcome from a value."""

from collections.abc import Mapping, Sequence

import msgspec

from aios.abi.tools import ToolKind, Traits
from aios.abi.types import JsonObject
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.schema import Schema
from aios.kernel.tools.tool import Body, Tool, Trace


def make(
    name: str,
    description: str,
    body: Body,
    *,
    parameters: Mapping[str, JsonObject],
    required: Sequence[str] = (),
    traits: Traits = Traits(),
    trace: Trace | None = None,
    is_open: bool = False,
    acts_by_calls: bool = False,
) -> Tool:
    """A tool of the kernel. Its objects are closed: a misspelt argument is told, not ignored."""
    schema: JsonObject = {
        "type": "object",
        "properties": dict(parameters),
        "required": list(required),
        "additionalProperties": False,
    }
    return Tool(
        name,
        ToolKind.BUILTIN,
        description,
        body,
        Schema(schema),
        traits=traits,
        trace=trace,
        is_open=is_open,
        acts_by_calls=acts_by_calls,
    )


def as_json(value: object) -> Outcome:
    """A value as the outcome of a tool."""
    return Outcome(msgspec.json.encode(value).decode(), is_json=True)


def string(description: str, *, max_length: int = 4096, min_length: int = 0) -> JsonObject:
    """The schema of a text."""
    return {
        "type": "string",
        "description": description,
        "minLength": min_length,
        "maxLength": max_length,
    }


def integer(description: str, *, minimum: int, maximum: int, default: int) -> JsonObject:
    """The schema of a whole number that may be left out."""
    return {
        "type": "integer",
        "description": description,
        "minimum": minimum,
        "maximum": maximum,
        "default": default,
    }


def choice(description: str, *options: str) -> JsonObject:
    """The schema of one of several words."""
    return {"type": "string", "description": description, "enum": list(options)}
