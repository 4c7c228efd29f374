"""Which tools there are, under which names, and who may run them. Names are lossless: one tool a name, as it was given.

Tools of the kernel and of manifests are for everybody. The tools of a process are called `NAME/tool`, are for the process itself and
for whoever the access manager lets write to it, and go with it. Within the process `tool` alone names its own first, so no other
program can stand in between.
"""

from collections.abc import Callable, Iterable

from aios.abi.tools import ToolKind
from aios.abi.types import Pid
from aios.errors import Conflict, NotFound, ResourceExhausted
from aios.kernel.process import Process
from aios.kernel.tools.tool import Tool
from aios.kernel.tools.undos import is_same_hand
from aios.kernel.waitqueue import WaitQueue

MAX_TOOLS_PER_PROCESS = 256
MAX_BYTES_PER_PROCESS = 1 << 20
"""Of all that a process says of its tools: hundreds of ordinary ones are a fraction of it."""
PAGE_BYTES = 16 << 20
"""Of tools in one answer: a packet holds 64 MiB, and numbers are longer there than in JSON."""
N_SUGGESTED = 12

MayRun = Callable[[Process, Pid], bool]
"""Whether a process may run the tools of another."""


class Registry:
    """All tools."""

    def __init__(self, may_run: MayRun) -> None:
        self._may_run = may_run
        self._tools: dict[str, Tool] = {}
        self._of_process: dict[Pid, set[str]] = {}
        self._added = WaitQueue()

    def add(self, *tools: Tool) -> None:
        """Make tools known, all or none. One that was there before gives way to the same provider's new one.

        Raises:
            Conflict: The name is taken by somebody else's.
            ResourceExhausted: The process offers too many, or says too much of them.
        """
        for tool in tools:
            taken = self._tools.get(tool.name)
            if taken is not None and not _may_replace(tool, taken):
                raise Conflict(f"there is a tool {tool.name} already", hint="give it another name")
        for provider in {tool.provider for tool in tools}:
            self._check_room(provider, [tool for tool in tools if tool.provider == provider])
        for tool in tools:
            self._tools[tool.name] = tool
            if tool.provider is not None:
                self._of_process.setdefault(tool.provider, set()).add(tool.name)
        self._added.wake_all()

    def find(self, name: str) -> Tool | None:
        """The tool of that whole name, whoever may run it."""
        return self._tools.get(name)

    async def wait_added(self) -> None:
        """Return when tools have been added."""
        await self._added.wait()

    def remove(self, process: Process, names: Iterable[str], *, is_owner: bool) -> None:
        """Withdraw tools of a process, all or none; the owner of the kernel withdraws those of manifests, too.

        Raises:
            NotFound: One of them is not its own.
        """
        found = []
        for name in names:
            tool = self.get(process, name)
            is_installed = tool.kind in {ToolKind.EXECUTABLE, ToolKind.AGENT}
            if tool.provider != process.pid and not (is_owner and is_installed):
                raise NotFound(
                    f"{name} is no tool of process {process.pid}",
                    hint="a process withdraws what it registered",
                )
            found.append(tool)
        for tool in found:
            self._drop(tool.name)

    def withdraw(self, names: Iterable[str]) -> None:
        """Tools of the kernel's own are no longer there."""
        for name in names:
            self._drop(name)

    def close(self, process: Process) -> None:
        """The process has ended, and its tools with it."""
        for name in tuple(self._of_process.get(process.pid, ())):
            self._drop(name)

    def get(self, process: Process, name: str) -> Tool:
        """The tool that a process means by a name.

        Raises:
            NotFound: There is none, or it is not for the process; the message is the same.
        """
        own = self._tools.get(full_name(process, name))
        if own is not None and own.provider == process.pid:
            return own
        tool = self._tools.get(name)
        if tool is not None and self._is_for(process, tool):
            return tool
        known = [each.name for each in self.visible(process)]
        shown = ", ".join(known[:N_SUGGESTED]) + (", ..." if len(known) > N_SUGGESTED else "")
        raise NotFound(
            f"there is no tool {name}; there are: {shown or 'none'}",
            hint="`aios tool ls` lists them",
        )

    def has_same(self, tool: Tool) -> bool:
        """Whether this tool, or one that says the same of itself, is still known by its name."""
        now = self._tools.get(tool.name)
        return now is not None and now.digest == tool.digest

    def visible(self, process: Process) -> list[Tool]:
        """The tools that a process may run, by name."""
        return [
            self._tools[name]
            for name in sorted(self._tools)
            if self._is_for(process, self._tools[name])
        ]

    def page(self, process: Process, after: str) -> tuple[list[Tool], str]:
        """The tools that a process may run whose names come after `after`, as many as go into an answer, and after which to go on, if at all."""
        found, room_bytes = list[Tool](), PAGE_BYTES
        for tool in self.visible(process):
            if tool.name <= after:
                continue
            room_bytes -= tool.size_bytes
            if found and room_bytes < 0:
                return found, found[-1].name
            found.append(tool)
        return found, ""

    def check_invariants(self) -> None:
        """Raise AssertionError if a tool is lost, or lies under a name that is not its own."""
        owned = {name for names in self._of_process.values() for name in names}
        for name, tool in self._tools.items():
            assert tool.name == name
            assert (tool.provider is not None) == (name in owned), f"{name} is nobody's"
        assert owned <= set(self._tools), "a process offers what is not there"

    def _is_for(self, process: Process, tool: Tool) -> bool:
        return (
            tool.provider is None
            or tool.provider == process.pid
            or self._may_run(process, tool.provider)
        )

    def _check_room(self, provider: Pid | None, new: list[Tool]) -> None:
        if provider is None:
            return
        after = {name: self._tools[name] for name in self._of_process.get(provider, ())}
        after |= {tool.name: tool for tool in new}
        if len(after) > MAX_TOOLS_PER_PROCESS:
            raise ResourceExhausted(
                f"process {provider} would offer {len(after)} tools, the limit is {MAX_TOOLS_PER_PROCESS}",
                hint="withdraw some: no model chooses well among so many",
            )
        n_bytes = sum(tool.size_bytes for tool in after.values())
        if n_bytes > MAX_BYTES_PER_PROCESS:
            raise ResourceExhausted(
                f"process {provider} would offer tools of {n_bytes} bytes, the limit is {MAX_BYTES_PER_PROCESS}",
                hint="withdraw some, or say less in their descriptions and schemas: models do not read that much either",
            )

    def _drop(self, name: str) -> None:
        tool = self._tools.pop(name)
        if tool.provider is not None:
            names = self._of_process[tool.provider]
            names.remove(name)
            if not names:
                del self._of_process[tool.provider]


def _may_replace(tool: Tool, taken: Tool) -> bool:
    """A provider replaces its own tool, a manifest one of the manifests, a server its own; the kernel's own stay what they are."""
    return taken.kind is not ToolKind.BUILTIN and is_same_hand(tool, taken)


def full_name(process: Process, name: str) -> str:
    """The name under which others know a tool of a process."""
    return f"{process.name}/{name}"
