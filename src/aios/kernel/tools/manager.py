"""The tool manager: the handlers of the calls about tools, and the way that each run takes.

    find -> read and check the arguments -> policies, a human -> cache? -> ready? -> budget -> the intent on disk -> claim the footprint
         -> run, within its timeout -> check the result -> keep what is long

Whatever a tool does, its run ends in one `ToolResult` or one fault.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import msgspec
from anyio import to_thread

from aios.abi.access import Request, Resource
from aios.abi.call import Done
from aios.abi.gate import Gate
from aios.abi.tools import (
    ToolDeclaration,
    ToolDescribe,
    ToolJobs,
    ToolKind,
    ToolList,
    ToolNames,
    ToolRegister,
    ToolResult,
    ToolReturn,
    ToolRun,
    Tools,
    ToolTake,
    ToolUnregister,
    Traits,
)
from aios.abi.types import JsonObject, Pid, Right
from aios.abi.wire import LARGE_BYTES
from aios.config import ToolsConfig
from aios.errors import AiosError, Conflict, InvalidCall, NotFound, ToolFailed
from aios.kernel.access.manager import AccessManager, shown
from aios.kernel.access.policy import TOOL_RUN, digest_of
from aios.kernel.budget import Amounts, Good
from aios.kernel.clock import Clock
from aios.kernel.journal.records import Effect
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.process_table import ProcessTable
from aios.kernel.spending import Budgets
from aios.kernel.taint import source_of, take, take_from
from aios.kernel.tools.agents import agent
from aios.kernel.tools.cache import Outcome, ResultCache, cache_key
from aios.kernel.tools.claims import Claims
from aios.kernel.tools.executable import executable
from aios.kernel.tools.functions import Functions
from aios.kernel.tools.launcher import Launcher
from aios.kernel.tools.manifest import Manifest, read_manifest
from aios.kernel.tools.mcp.servers import Servers
from aios.kernel.tools.registry import Registry, full_name
from aios.kernel.tools.repair import NotReadable, read_object, read_plain
from aios.kernel.tools.results import checked, deliver
from aios.kernel.tools.schema import Schema, usage
from aios.kernel.tools.tool import Job, Tool
from aios.kernel.tools.undos import check_undo, undo_arguments
from aios.kernel.turns import Turns

N_QUOTED_CHARS = 200
OFFER_PATIENCE_S = 10.0
"""A tool of a process that may offer it yet is waited for so long: after a crash all programs begin at once."""

MakeGate = Callable[[Run], Gate]
HomeOf = Callable[[Process], str]
T = TypeVar("T")
CheckHeld = Callable[[Process, ToolRun, Effect], None]


class ToolManager:
    """All tools, and what runs of them."""

    def __init__(
        self,
        table: ProcessTable,
        access: AccessManager,
        clock: Clock,
        config: ToolsConfig,
        *,
        make_gate: MakeGate,
        home_of: HomeOf,
        check_held: CheckHeld,
        launcher: Launcher,
        servers: Servers,
        budgets: Budgets,
    ) -> None:
        """Make it.

        Args:
            table: All processes.
            access: Who may run whose tools.
            clock: For the time that calls wait.
            config: Its knobs.
            make_gate: The door of a process in the middle of a call, for tools of the kernel that make calls as their caller.
            home_of: The folder of a process, in which relative paths are.
            check_held: Raises `AccessDenied` if the process is in a branch that may not do what the tool does.
            launcher: Starts the programs of executables.
            servers: The MCP servers.
            budgets: From which each run takes the tool's cost.
        """
        self._table = table
        self._budgets = budgets
        self._access = access
        self._config = config
        self._make_gate = make_gate
        self._home_of = home_of
        self._check_held = check_held
        self._launcher = launcher
        self._claims = Claims(clock, config.max_waiting)
        self._functions = Functions(clock.unix_s())
        self._cache = ResultCache(config.cache_bytes)
        self._turns = Turns()
        self._registry = Registry(self._may_run)
        self.servers = servers
        servers.attach(self._registry)

    # --- which tools there are -----------------------------------------------------------------------------------

    def install(self, tools: Iterable[Tool]) -> None:
        """Make tools of the kernel known to everybody."""
        self._registry.add(*tools)

    def install_folder(self, folder: Path) -> list[str]:
        """Install all manifests of a folder. Returns: what was wrong with those that were not."""
        complaints, found = list[str](), list[Tool]()
        for file in sorted(folder.glob("*.toml")):
            try:
                found.append(self._installed(read_manifest(file)))
            except AiosError as error:
                complaints.append(error.message)
        for tool in found:
            try:
                self._check_undos(tool, among=found)
                self._registry.add(tool)
            except AiosError as error:
                complaints.append(error.message)
        return complaints

    async def register(self, run: Run, call: ToolRegister) -> ToolNames:
        """Offer functions of the caller as tools, and install what manifests describe."""
        tools = list[Tool]()
        for declared in call.tools:
            schemas = await self._beside(run, partial(_schemas, declared))
            tools.append(self._function(run.process, declared, *schemas))
        if call.manifests:
            self._access.check(run.process, Right.TOOL_INSTALL)
            for file in map(Path, call.manifests):
                tools.append(self._installed(await to_thread.run_sync(read_manifest, file)))
        self._check_undos(*tools, among=tools)
        self._registry.add(*tools)
        return ToolNames(tuple(tool.name for tool in tools))

    async def unregister(self, run: Run, call: ToolUnregister) -> Done:
        """Withdraw tools."""
        self._registry.remove(run.process, call.names, is_owner=run.process.pid == INIT_PID)
        return Done()

    async def list_tools(self, run: Run, call: ToolList) -> Tools:
        """The tools that the caller may run."""
        if not call.after:
            await self.servers.make_all_known(run)
        return self._shown(run, *self._registry.page(run.process, call.after))

    async def describe(self, run: Run, call: ToolDescribe) -> Tools:
        """Look at some."""
        for name in call.names:
            await self._make_known(run, name, lambda provider: provider.is_coming_back)
        return self._shown(run, [self._registry.get(run.process, name) for name in call.names])

    async def take(self, run: Run, call: ToolTake) -> ToolJobs:
        """Give the caller the calls of its own tools."""
        return await self._functions.take(run, call)

    async def bring_back(self, run: Run, call: ToolReturn) -> Done:
        """Take the result of a call of one of the caller's tools."""
        return await self._functions.bring_back(run, call)

    def close(self, process: Process) -> None:
        """The process has ended: its tools go, and the calls that it was to run fail."""
        self._registry.close(process)
        self._functions.close(process)
        self.servers.close(process)
        self._claims.forget(process.pid)

    def begin_anew(self, process: Process) -> None:
        """Its program begins from the beginning: the calls that it was in the middle of fail."""
        self._functions.begin_anew(process)

    # --- a run ---------------------------------------------------------------------------------------------------

    def effect(self, process: Process, call: ToolRun) -> Effect:
        """What the tool declares that it does; a call of a tool that is not there does nothing."""
        try:
            return Effect(self._registry.get(process, call.name).traits.effect)
        except NotFound:
            return Effect.IRREVERSIBLE if self.servers.owns(call.name) else Effect.PURE

    def cure(self, process: Process, call: ToolRun) -> str:
        """What is done about a call that is cut off, as its tool says now."""
        try:
            return self._registry.get(process, call.name).cure
        except NotFound:
            return ""

    async def undoing(self, run: Run, call: ToolRun, undo: str) -> ToolRun:
        """The call of the tool `undo` that undoes a call.

        Raises:
            NotFound: There is no such tool, or it is not for the caller.
        """
        await self._make_known(run, undo, lambda provider: provider.is_alive)
        tool = self._registry.get(run.process, undo)
        given, _ = await self._given(run, tool, call.arguments)
        return ToolRun(name=tool.name, arguments=undo_arguments(tool, given))

    async def _make_known(self, run: Run, name: str, is_awaited: Callable[[Process], bool]) -> None:
        """Wait for a tool that its server has not told of yet, or that a process of its name may offer yet."""
        await self.servers.make_known(run, name)
        if self._registry.find(name) is not None:
            return
        with anyio.move_on_after(OFFER_PATIENCE_S):
            while self._registry.find(name) is None:
                provider = self._table.find_named(name.rpartition("/")[0])
                if provider is None or not is_awaited(provider):
                    return
                with run.parked():
                    await self._registry.wait_added()
                await run.runnable()

    async def run(self, run: Run, call: ToolRun) -> ToolResult:
        """Run a tool for the caller. One of a program that is brought back is waited for: it offers again what it did."""
        await self._make_known(run, call.name, lambda provider: provider.is_coming_back)
        tool = self._registry.get(run.process, call.name)
        run.detail = tool.name
        if run.record is not None:  # at the first call of a server nobody knew its tools yet
            run.record.effect, run.record.cure = Effect(tool.traits.effect), tool.cure
        self._check_held(run.process, call, Effect(tool.traits.effect))
        try:
            if not tool.is_compiled:
                await self._beside(run, tool.compile)
            given = await self._given(run, tool, call.arguments)
            arguments, notes = checked_arguments(tool, *given, key=run.key)
        except InvalidCall:  # it says how the tool is called, in the words of who registered it
            self._take_description(run, tool)
            raise
        await self._admit(run, tool, arguments)
        key = cache_key(tool.version, arguments) if tool.traits.is_pure else b""
        kept = self._cache.find(key) if key else None
        if kept is not None:
            self._take(run, tool)
            job = self._job(run, tool, arguments)
            return await deliver(kept, job, notes, self._config, is_cached=True)
        try:
            outcome, job = await self._carry_out(run, tool, arguments)
        except AiosError:
            tool.n_failed += 1
            raise
        finally:  # what it says of a failure comes from the same place; one that was not begun says nothing
            if run.on_effect is None or tool.before is not None:
                self._take(run, tool)
        if key:
            self._cache.put(key, outcome)
        return await deliver(outcome, job, notes, self._config)

    async def _given(
        self, run: Run, tool: Tool, given: JsonObject | str
    ) -> tuple[JsonObject, tuple[str, ...]]:
        """The arguments as an object, and what was repaired to get it.

        Raises:
            InvalidCall: They cannot be read, or are a text of too many values.
        """
        if isinstance(given, dict):
            return dict(given), ()
        with _explained(tool, given):
            if len(given) <= LARGE_BYTES and (plain := read_plain(given)) is not None:
                return plain
            return await self._beside(run, partial(read_object, given))

    async def _beside(self, run: Run, work: Callable[[], T]) -> T:
        """Do what takes long enough for others to notice in a thread, when it is the caller's turn."""
        async with self._turns.turn(run):
            return await to_thread.run_sync(work)

    async def _admit(self, run: Run, tool: Tool, arguments: JsonObject) -> None:
        """Return if the caller may run it with these arguments."""
        own = self._is_own(run.process, tool)
        request = Request(
            TOOL_RUN,
            Resource("Tool", tool.name),
            tool.traits.effect,
            is_own=own,
            is_tainted=run.process.taint is not None,
            is_installed=tool.provider is None,
        )
        run.shown = partial(shown, arguments)
        bound = partial(digest_of, [tool.digest, arguments])
        await self._access.admit_request(run, request, bound)
        self._check_same(tool)

    def _check_same(self, tool: Tool) -> None:
        """Return if a tool was not changed while somebody was asked."""
        if not self._registry.has_same(tool):
            raise Conflict(
                f"{tool.name} is another tool than the one that was asked about",
                hint="look at it again (`tool_describe`), then call it",
            )

    def _is_own(self, process: Process, tool: Tool) -> bool:
        """Whether a tool runs in the process itself, or in one that it rules."""
        provider = None if tool.provider is None else self._table.find(tool.provider)
        return provider is not None and self._access.may_reach(process, provider)

    def _take(self, run: Run, tool: Tool) -> None:
        """The result of a tool reaches its caller: from outside, or from a process whose data may have come from there."""
        provider = None if tool.provider is None else self._table.find(tool.provider)
        if tool.is_open or (tool.provider is not None and not self._is_own(run.process, tool)):
            take(run, f"tool {tool.name}")
        elif provider is not None:
            take_from(run, provider)

    def _take_description(self, run: Run, tool: Tool) -> None:
        take(run, tool.taint, f"the description of {tool.name}")

    async def _carry_out(self, run: Run, tool: Tool, arguments: JsonObject) -> tuple[Outcome, Job]:
        """Wait until nothing is in the way, run it, and check what it brought."""
        tool.n_runs += 1
        if tool.before is not None:
            await tool.before(run)
            self._check_same(tool)
        footprint = tool.footprint(arguments, self._home_of(run.process))
        job = self._job(run, tool, arguments)
        cost: Amounts = {Good.TOOL_CALLS: tool.traits.cost}
        reservation = await self._budgets.reserve(run, cost)
        spent: Amounts = {}
        outcome: Outcome | None = None
        try:
            await run.begin_effect()
            async with self._claims.hold(run, tool, footprint):
                spent = cost
                with anyio.move_on_after(job.timeout_s):
                    outcome = await tool.body(job)
        finally:
            self._budgets.settle(reservation, spent)
        if outcome is None:
            raise ToolFailed(
                f"{tool.name} did not end within {job.timeout_s:g} s",
                hint="ask for less at once; nothing of it runs any more",
            )
        if tool.returns is not None and len(outcome.text) > LARGE_BYTES:
            return await self._beside(run, partial(checked, tool, outcome)), job
        return checked(tool, outcome), job

    def _job(self, run: Run, tool: Tool, arguments: JsonObject) -> Job:
        timeout_s = min(tool.traits.timeout_s, self._config.max_timeout_s)
        return Job(run, tool.with_key(arguments, run.key), self._make_gate(run), timeout_s)

    # --- the rest ------------------------------------------------------------------------------------------------

    def check_invariants(self) -> None:
        """Raise AssertionError if the parts contradict themselves."""
        self._claims.check_invariants()
        self._functions.check_invariants()
        self._cache.check_invariants()
        self._registry.check_invariants()
        self.servers.check_invariants()

    def _function(
        self,
        process: Process,
        declared: ToolDeclaration,
        parameters: Schema,
        returns: Schema | None,
    ) -> Tool:
        """A tool that runs in the process which registers it."""
        name = full_name(process, declared.name)
        if self.servers.owns(name):  # else it could stand where the owner's is expected
            raise Conflict(
                f"tools named {name} are those of an MCP server",
                hint="give the process another name",
            )
        tool = Tool(
            name,
            ToolKind.FUNCTION,
            declared.description,
            partial(self._functions.carry_out, name=declared.name, provider=process),
            parameters,
            returns,
            _with_whole_name(declared.traits, process),
            provider=process.pid,
            taint=source_of(process),
        )
        return _with_schemas(tool)

    def _check_undos(self, *tools: Tool, among: Sequence[Tool]) -> None:
        """Return if what tools name as their undo can undo them, once all of `among` are known."""
        new = {tool.name: tool for tool in among}
        for tool in tools:
            check_undo(tool, lambda name: new.get(name) or self._registry.find(name))

    def _installed(self, manifest: Manifest) -> Tool:
        """A tool that a manifest describes.

        Raises:
            InvalidCall: A schema is none, or what it names is no path.
        """
        if manifest.program:
            return _with_schemas(agent(manifest))
        try:
            return _with_schemas(executable(manifest, self._launcher))
        except (OSError, RuntimeError, ValueError) as error:  # a NUL, symlinks in a circle
            raise InvalidCall(
                f"what the tool {manifest.name} names is no path: {error}",
                hint="mend `command`, `read` and `write` of its manifest",
            ) from error

    def _shown(self, run: Run, tools: list[Tool], after: str = "") -> Tools:
        """Tools as the caller sees them; what it is told of them was written by who registered them."""
        for tool in tools:
            self._take_description(run, tool)
        counts = self._claims.counts()
        return Tools(tuple(tool.info(*counts.get(tool.name, (0, 0))) for tool in tools), after)

    def _may_run(self, process: Process, provider: Pid) -> bool:
        return self._access.may_turn_to(process, self._table.get(provider))


def _schemas(declared: ToolDeclaration) -> tuple[Schema, Schema | None]:
    """The schemas of a tool, compiled: what is no JSON has no digest."""
    parameters = Schema(declared.parameters)
    parameters.check()
    returns = Schema(declared.returns) if declared.returns is not None else None
    if returns is not None:
        returns.check()
    return parameters, returns


def _with_whole_name(traits: Traits, process: Process) -> Traits:
    """Traits in which the undo has the name that others know it by: a process names its own."""
    if not traits.undo or "/" in traits.undo:
        return traits
    return msgspec.structs.replace(traits, undo=full_name(process, traits.undo))


def _with_schemas(tool: Tool) -> Tool:
    """The tool, if its schemas are, and have the key that it names.

    Raises:
        InvalidCall: They are not.
    """
    tool.compile()
    key, properties = tool.traits.key, tool.parameters.schema.get("properties")
    if key and not (isinstance(properties, dict) and key in properties):
        raise InvalidCall(
            f"{tool.name} names the key {key}, which is none of its parameters",
            hint="add it to the schema, as a string",
        )
    return tool


def checked_arguments(
    tool: Tool, found: JsonObject, repairs: tuple[str, ...], *, key: str
) -> tuple[JsonObject, tuple[str, ...]]:
    """Arguments that fit with the key that the kernel will put in, and what is told of how they were read.

    Raises:
        InvalidCall: They do not fit; the message tells a model what to write instead.
    """
    found.pop(tool.traits.key, None)
    faults = tool.parameters.faults(tool.with_key(found, key))
    if faults:
        raise InvalidCall(
            f"the arguments do not fit {tool.name}: {'; '.join(faults)}. Call {usage(tool.name, tool.asked)} again.",
            hint="see the tool's parameters",
        )
    notes = (f"the arguments were repaired: {'; '.join(repairs)}",) if repairs else ()
    return found, notes


@contextmanager
def _explained(tool: Tool, given: str) -> Iterator[None]:
    """Say of what cannot be read in the block what a model is to write instead."""
    try:
        yield
    except NotReadable as error:
        shown = given if len(given) <= N_QUOTED_CHARS else f"{given[:N_QUOTED_CHARS]}..."
        how = usage(tool.name, tool.asked)
        raise InvalidCall(
            f"the arguments {shown!r} are no JSON object: {error}. Call {how} again with one JSON object.",
            hint="see the tool's parameters",
        ) from error
