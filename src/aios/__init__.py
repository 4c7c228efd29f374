"""AIOS: an operating system for LLM agents.

The public door for programs. Names are loaded when they are first used, so that `import aios` costs nothing: a plain
program never pays for an event loop, and a command never for the SDK.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aios import errors
    from aios.abi.budget import Limits
    from aios.abi.recovery import Restart
    from aios.abi.types import Exit, Finish, Message, Role, Sampling, ToolCall, ToolSpec, Usage
    from aios.errors import AiosError
    from aios.sdk import blocking
    from aios.sdk.agent import Agent, AgentResult
    from aios.sdk.client import Client, connect
    from aios.sdk.contexts import Context
    from aios.sdk.program import run
    from aios.sdk.replies import ChatReply
    from aios.sdk.tools import Tool, tool
    from aios.sdk.unseen import Unseen
    from aios.sdk.urgent import attentive, attentive_blocking

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AgentResult",
    "AiosError",
    "ChatReply",
    "Client",
    "Context",
    "Exit",
    "Finish",
    "Limits",
    "Message",
    "Restart",
    "Role",
    "Sampling",
    "Tool",
    "ToolCall",
    "ToolSpec",
    "Unseen",
    "Usage",
    "__version__",
    "attentive",
    "attentive_blocking",
    "blocking",
    "connect",
    "errors",
    "run",
    "tool",
]

_HOMES = {
    "Agent": "aios.sdk.agent",
    "AgentResult": "aios.sdk.agent",
    "AiosError": "aios.errors",
    "ChatReply": "aios.sdk.replies",
    "Client": "aios.sdk.client",
    "Context": "aios.sdk.contexts",
    "Exit": "aios.abi.types",
    "Finish": "aios.abi.types",
    "Limits": "aios.abi.budget",
    "Message": "aios.abi.types",
    "Restart": "aios.abi.recovery",
    "Role": "aios.abi.types",
    "Sampling": "aios.abi.types",
    "Tool": "aios.sdk.tools",
    "ToolCall": "aios.abi.types",
    "ToolSpec": "aios.abi.types",
    "Unseen": "aios.sdk.unseen",
    "Usage": "aios.abi.types",
    "attentive": "aios.sdk.urgent",
    "attentive_blocking": "aios.sdk.urgent",
    "connect": "aios.sdk.client",
    "run": "aios.sdk.program",
    "tool": "aios.sdk.tools",
}
"""The module that defines each public name."""
_MODULES = {"blocking": "aios.sdk.blocking", "errors": "aios.errors"}


if not TYPE_CHECKING:  # else every misspelt name would pass a type checker

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            found: object = importlib.import_module(_MODULES[name])
        elif name in _HOMES:
            found = getattr(importlib.import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module 'aios' has no attribute {name!r}")
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
