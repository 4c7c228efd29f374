"""The kernel's tools for agents: `await client.tools.run("calculator", {"expression": "6 * 7"})`, and the same for plain code.

`serve` offers functions of this program to others: the kernel hands out each call, and checks, orders and bounds it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from aios.abi.gate import in_course_of
from aios.abi.tools import (
    JobEnd,
    ToolDescribe,
    ToolInfo,
    ToolJob,
    ToolList,
    ToolRegister,
    ToolResult,
    ToolRun,
    ToolTake,
    ToolUnregister,
)
from aios.errors import InvalidCall
from aios.sdk.requests import build
from aios.sdk.tools import MAX_SERVED_BYTES, Tool, ToolOutcome

if TYPE_CHECKING:
    import anyio.abc

    from aios.abi.gate import Gate
    from aios.sdk.blocking import BlockingGate
    from aios.sdk.serving import Calls

AnyTool = Tool[..., object]
Arguments = Mapping[str, object] | str
"""An object, or the JSON text that a model wrote."""
NOTHING: Mapping[str, object] = MappingProxyType({})
DEFAULT_PARALLEL = 64
NOT_SERVED = ToolOutcome("error: it is not served any more", is_error=True)


class Served:
    """The tools that a program serves. The kernel hands a call of any of them to whichever `serve` asks first."""

    def __init__(self) -> None:
        self._tables: list[dict[str, AnyTool]] = []

    @contextmanager
    def including(self, tools: Sequence[AnyTool]) -> Iterator[None]:
        """While the block runs, these are served."""
        table = {tool.name: tool for tool in tools}
        self._tables.append(table)
        try:
            yield
        finally:
            self._tables.remove(table)

    def find(self, name: str) -> AnyTool | None:
        """The one of that name that was served last."""
        return next((table[name] for table in self._tables[::-1] if name in table), None)


class Toolbox:
    """The tools that the process of a client may run, and those that it offers."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate
        self._served = Served()
        self._calls: Calls | None = None

    async def run(
        self, name: str, arguments: Arguments = NOTHING, *, deadline_s: float | None = None
    ) -> ToolResult:
        """Run a tool; `.text` of the result is what it brought, `.notes` what else one should know.

        Raises:
            InvalidCall: The arguments do not fit; the message says what to write instead.
            NotFound: There is no such tool, or it is not for this process.
            ToolFailed: It raised, hung, or brought what it should not.
        """
        return (await self._gate.call(_run_call(name, arguments, deadline_s))).value

    async def list(self) -> tuple[ToolInfo, ...]:
        """The tools that this process may run, by name."""
        page = (await self._gate.call(ToolList())).value
        found = page.tools
        while page.next:
            page = (await self._gate.call(ToolList(after=page.next))).value
            found += page.tools
        return found

    async def describe(self, *names: str) -> tuple[ToolInfo, ...]:
        """Look at some tools, in the order of the names.

        Raises:
            NotFound: There is none of that name, or it is not for this process.
        """
        return (await self._gate.call(build(ToolDescribe, names=names))).value.tools

    async def install(self, *manifests: str) -> tuple[str, ...]:
        """Add executables and agents by the files that describe them, until the kernel ends; only its owner may."""
        return (await self._gate.call(build(ToolRegister, manifests=manifests))).value.names

    async def unregister(self, *names: str) -> None:
        """Withdraw tools of this process; the owner may withdraw installed ones, too."""
        await self._gate.call(build(ToolUnregister, names=names))

    async def serve(
        self,
        *tools: AnyTool,
        max_parallel: int = DEFAULT_PARALLEL,
        task_status: "anyio.abc.TaskStatus[tuple[str, ...]] | None" = None,
    ) -> None:
        """Offer functions as tools to the other processes of this owner, and run each call, until cancelled.

        async with anyio.create_task_group() as tasks:
            names = await tasks.start(client.tools.serve, search)

        It may be called again meanwhile; the calls of all its tools are then run by whichever is free.

        Args:
            tools: Functions under `@aios.tool`.
            max_parallel: Calls at once.
            task_status: Told the names under which others run the tools, once they can.
        """
        from aios.sdk.serving import Calls, Service  # noqa: PLC0415 - start-up time: anyio

        register = _register_call(tools)
        self._calls = self._calls or Calls(self._served)
        with self._served.including(tools):
            names = (await self._gate.call(register)).value.names
            if task_status is not None:
                task_status.started(names)
            await Service(self._gate, self._calls, max_parallel).run()


class BlockingToolbox:
    """`Toolbox` for code that waits; its methods say more."""

    def __init__(self, gate: "BlockingGate") -> None:
        self._gate = gate
        self._served = Served()

    def run(
        self, name: str, arguments: Arguments = NOTHING, *, deadline_s: float | None = None
    ) -> ToolResult:
        """Run a tool; `.text` of the result is what it brought, `.notes` what else one should know."""
        return self._gate.call(_run_call(name, arguments, deadline_s)).value

    def list(self) -> tuple[ToolInfo, ...]:
        """The tools that this process may run, by name."""
        page = self._gate.call(ToolList()).value
        found = page.tools
        while page.next:
            page = self._gate.call(ToolList(after=page.next)).value
            found += page.tools
        return found

    def describe(self, *names: str) -> tuple[ToolInfo, ...]:
        """Look at some tools, in the order of the names."""
        return self._gate.call(build(ToolDescribe, names=names)).value.tools

    def install(self, *manifests: str) -> tuple[str, ...]:
        """Add executables and agents by the files that describe them, until the kernel ends; only its owner may."""
        return self._gate.call(build(ToolRegister, manifests=manifests)).value.names

    def unregister(self, *names: str) -> None:
        """Withdraw tools of this process; the owner may withdraw installed ones, too."""
        self._gate.call(build(ToolUnregister, names=names))

    def serve(self, *tools: AnyTool) -> None:
        """Offer plain functions as tools and run their calls, one after another, until this process ends.

        Several threads may serve; the calls of all their tools are then run by whichever is free.

        Raises:
            InvalidCall: One of them is an async function.
        """
        for tool in tools:
            if tool.is_async:
                raise InvalidCall(
                    f"{tool.name} is async", hint="serve it with `aios.Client.tools.serve`"
                )
        register = _register_call(tools)
        with self._served.including(tools):
            self._gate.call(register)
            ended: tuple[JobEnd, ...] = ()
            while True:
                jobs = self._gate.call(build(ToolTake, limit=1, returns=ended)).value.jobs
                ended = tuple(job.end or self._carried_out(job) for job in jobs)

    def _carried_out(self, job: ToolJob) -> JobEnd:
        tool = self._served.find(job.tool)
        if tool is None:
            return end_of(job, NOT_SERVED)
        with in_course_of(job.id):
            return end_of(job, tool.call_now(job.arguments, max_bytes=MAX_SERVED_BYTES))


def end_of(job: ToolJob, outcome: ToolOutcome) -> JobEnd:
    """An outcome as the kernel takes it."""
    if outcome.is_error:
        return JobEnd(job.id, error=outcome.text.removeprefix("error: "))
    return JobEnd(job.id, outcome.text, outcome.is_json)


def _run_call(name: str, arguments: Arguments, deadline_s: float | None) -> ToolRun:
    given: object = arguments
    if not isinstance(arguments, str):
        try:
            given = msgspec.to_builtins(dict(arguments))
        except (TypeError, ValueError) as error:
            raise InvalidCall(
                f"the arguments of {name} are no JSON: {error}",
                hint="pass strings, numbers, lists and dicts",
            ) from error
    return build(ToolRun, name=name, arguments=given, deadline_s=deadline_s)


def _register_call(tools: Sequence[AnyTool]) -> ToolRegister:
    for tool in tools:
        if not isinstance(tool, Tool):
            raise InvalidCall(f"{tool!r} is not a tool", hint="put @aios.tool over the function")
    return ToolRegister(tools=tuple(tool.declaration() for tool in tools))
