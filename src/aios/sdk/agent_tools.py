"""The tools of one agent: functions of its own program, and tools of the kernel, by the names under which its model knows them.

A model's names are letters, digits, `_` and `-`; the kernel's are `author/tool`. The agent keeps which stands for which, so none is lost.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b

from msgspec import Struct

from aios.abi.tools import ToolInfo, ToolResult
from aios.abi.types import ToolCall, ToolSpec
from aios.errors import (
    AiosError,
    BudgetExceeded,
    InvalidCall,
    KernelStopping,
    KernelUnreachable,
    ProcessGone,
    Unauthenticated,
)
from aios.sdk.client import Client
from aios.sdk.invoke import AnyTool, invoke
from aios.sdk.tools import N_QUOTED_CHARS, Tool, ToolOutcome

MAX_NAME_CHARS = 64
DIGEST_CHARS = 8
ENDS_THE_RUN = (
    BudgetExceeded,
    KernelStopping,
    KernelUnreachable,
    ProcessGone,
    Unauthenticated,
)
"""What a model can do nothing about."""


class KernelTool(Struct, frozen=True):
    """A tool of the kernel as an agent holds it."""

    name: str
    spec: ToolSpec


class AgentTools:
    """What the model of an agent may call."""

    def __init__(self, tools: Sequence[AnyTool | str]) -> None:
        self._by_name: dict[str, AnyTool | KernelTool] = {}
        self._unresolved = [tool for tool in tools if isinstance(tool, str)]
        for tool in tools:
            if isinstance(tool, Tool):
                self._add(tool.name, tool)
            elif not isinstance(tool, str):
                raise InvalidCall(
                    f"{tool!r} is not a tool",
                    hint="put @aios.tool over the function, or name a tool of the kernel",
                )

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model is told of them."""
        return tuple(tool.spec for tool in self._by_name.values())

    async def resolve(self, client: Client) -> None:
        """Ask the kernel about the tools that were named; once is enough.

        Raises:
            NotFound: There is none of that name.
        """
        if self._unresolved:
            for info in await client.tools.describe(*self._unresolved):
                self._add(model_name(info.name), _of_kernel(info))
            self._unresolved = []

    async def use(self, client: Client, call: ToolCall, arguments: str) -> ToolOutcome:
        """Run the tool that a model asked for, on the arguments as it wrote them; failures become outcomes.

        Raises:
            AiosError: One of `ENDS_THE_RUN`.
        """
        tool = self._by_name.get(call.name)
        if tool is None:
            known = ", ".join(self._by_name) or "none"
            shown = call.name[:N_QUOTED_CHARS]
            return ToolOutcome(
                f"error: there is no tool {shown!r}; there are: {known}", is_error=True
            )
        if isinstance(tool, Tool):
            return await invoke(tool, arguments)
        try:
            return _outcome(await client.tools.run(tool.name, arguments))
        except ENDS_THE_RUN:
            raise
        except AiosError as error:
            return ToolOutcome(f"error: {error.message}", is_error=True)

    def _add(self, name: str, tool: "AnyTool | KernelTool") -> None:
        if name in self._by_name:
            raise InvalidCall(
                f"two tools are called {name}", hint="give one another name: @tool(name=...)"
            )
        self._by_name[name] = tool


def model_name(name: str) -> str:
    """A name that models take, for one of the kernel's; long ones end in a digest, so that two stay two."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name.replace("/", "__"))
    if len(plain) <= MAX_NAME_CHARS:
        return plain
    digest = blake2b(name.encode(), digest_size=16).hexdigest()[:DIGEST_CHARS]
    return f"{plain[: MAX_NAME_CHARS - DIGEST_CHARS - 1]}_{digest}"


def _of_kernel(info: ToolInfo) -> KernelTool:
    return KernelTool(info.name, ToolSpec(model_name(info.name), info.description, info.parameters))


def _outcome(result: ToolResult) -> ToolOutcome:
    notes = "".join(f"\n[{note}]" for note in result.notes)
    return ToolOutcome(result.text + notes, is_json=result.is_json and not notes)
