"""Which rights a new process has. Pure; the rights themselves are `aios.abi.types.Right`."""

from aios.abi.types import Kind, Right

_GUEST = frozenset(
    {
        Right.SELF,
        Right.SEE,
        Right.SIGNAL,
        Right.MODEL,
        Right.CONTEXT,
        Right.LOG,
        Right.MAIL,
        Right.FILE_READ,
        Right.FILE_WRITE,
        Right.MEMORY_READ,
        Right.MEMORY_WRITE,
        Right.TOOL_USE,
        Right.TOOL_OFFER,
        Right.ASK,
        Right.INFO,
    }
)
_PROGRAM = _GUEST | {Right.SPAWN, Right.BUDGET}

DEFAULTS: dict[Kind, frozenset[Right]] = {
    Kind.INIT: frozenset(Right),
    Kind.PROGRAM: _PROGRAM,
    Kind.TASK: _PROGRAM,
    Kind.GUEST: _GUEST,
}
"""What a new process may do. A guest may not spawn: its token would then run programs on this machine."""


def granted(kind: Kind, parent: frozenset[Right]) -> frozenset[Right]:
    """The rights of a new process: those of its kind, and never more than its parent has."""
    return DEFAULTS[kind] & parent
