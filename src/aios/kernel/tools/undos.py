"""Which tool undoes another: whether what a tool says of it can be, and with which arguments it is called. Pure.

An undo takes the arguments of the call that it undoes, as far as it has parameters for them, and that call's key if it names one. It does
no harm where the call had done nothing, and may be run more than once: nobody knows how far a call came that was cut off.
"""

from collections.abc import Callable

from aios.abi.tools import ToolKind
from aios.abi.types import JsonObject
from aios.errors import InvalidCall
from aios.kernel.tools.tool import Tool

ALIKE = (
    {ToolKind.BUILTIN},
    {ToolKind.FUNCTION},
    {ToolKind.EXECUTABLE, ToolKind.AGENT},
    {ToolKind.MCP},
)
"""Kinds of tools that come from the same hand, where their provider is the same."""

FindTool = Callable[[str], Tool | None]


def check_undo(tool: Tool, find: FindTool) -> None:
    """Return if the undo that a tool names can undo it.

    Args:
        tool: A tool that is about to be known.
        find: Any tool as it will be then, by its whole name.

    Raises:
        InvalidCall: It names itself, what is not there or another's, what does nothing, or a circle.
    """
    here, seen = tool, [tool.name]
    while name := here.traits.undo:
        other = find(name)
        if other is None and here is tool:
            raise _refusal(tool, f"{name} is no tool", "offer both at once, each by its whole name")
        if other is None:
            return
        if other.name in seen:
            circle = " -> ".join([*seen, name])
            raise _refusal(
                tool, f"that is a circle: {circle}", "an undo needs no undo: it may be run twice"
            )
        if here is tool and not is_same_hand(tool, other):
            raise _refusal(
                tool,
                f"{name} is another's tool",
                "an undo is of the same program, server or folder",
            )
        if here is tool and other.traits.effect == "pure":
            raise _refusal(tool, f"{name} says that it does nothing", "set the effect of the undo")
        here = other
        seen.append(name)


def is_same_hand(tool: Tool, other: Tool) -> bool:
    """Whether two tools come from the same provider."""
    if tool.provider != other.provider or not any(
        {tool.kind, other.kind} <= kinds for kinds in ALIKE
    ):
        return False
    return tool.kind is not ToolKind.MCP or _server(tool) == _server(other)


def undo_arguments(undo: Tool, given: JsonObject) -> JsonObject:
    """The arguments of a call for the tool that undoes it: those that it has parameters for."""
    properties = undo.parameters.schema.get("properties")
    if not isinstance(properties, dict):
        return given
    return {name: value for name, value in given.items() if name in properties}


def _server(tool: Tool) -> str:
    return tool.name.partition("/")[0]


def _refusal(tool: Tool, why: str, hint: str) -> InvalidCall:
    return InvalidCall(f"{tool.name} names the undo {tool.traits.undo}: {why}", hint=hint)
