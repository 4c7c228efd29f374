"""All servers of the Model Context Protocol: their tools in the registry, their starts and ends, and the calls about them.

    a tool is called -> may it start? -> start, in a task of the kernel's -> ask for its tools -> are they as they were trusted? -> call

What may not, or is not, waits for the owner's yes.

What is known of a server's tools is on disk, so listing tools starts nothing but servers that were never asked.
"""

import os
from collections.abc import Callable, Iterable
from functools import partial

import anyio
import anyio.abc
from msgspec.structs import replace
from msgspec.structs import replace as replace_fields

from aios.abi.mcp import (
    McpCheck,
    McpList,
    McpServers,
    McpToolList,
    McpTools,
    McpTrust,
)
from aios.abi.tools import ToolKind
from aios.abi.types import Pid
from aios.disk.db import Database
from aios.errors import AiosError, Conflict, NotFound, ToolFailed
from aios.kernel.clock import Clock
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.taint import take
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.launcher import Launcher
from aios.kernel.tools.mcp.connection import Connection
from aios.kernel.tools.mcp.definitions import Definition, traits_of
from aios.kernel.tools.mcp.doubt import AsksOwner, doubt_of
from aios.kernel.tools.mcp.pins import AllPins, Pinned, Pins
from aios.kernel.tools.mcp.server import Server
from aios.kernel.tools.mcp.spec import CONFIG, ServerSpec, read_specs, sources
from aios.kernel.tools.registry import Registry
from aios.kernel.tools.schema import Schema
from aios.kernel.tools.tool import Job, Tool
from aios.mcpconfig import McpConfig

MAX_TIMEOUT_S = 86_400.0
LIST_WAIT_S = 10.0
"""How long a list of tools waits for servers that were never asked; they go on starting."""


class Servers:
    """The servers, by name."""

    def __init__(
        self,
        config: McpConfig,
        db: Database,
        *,
        launcher: Launcher,
        clock: Clock,
        tasks: anyio.abc.TaskGroup,
        warn: Callable[[str], None],
    ) -> None:
        """Make it.

        Args:
            config: Which servers there are.
            db: Keeps what the owner trusts.
            launcher: Starts their programs.
            clock: For pauses.
            tasks: The servers live in it.
            warn: Told what is wrong with the configuration, as far as that is found later.
        """
        specs, self.complaints = read_specs(config, os.environ)
        self._servers = {name: Server(spec) for name, spec in specs.items()}
        self._config = config
        self._pins = Pins(db)
        self._launcher = launcher
        self._clock = clock
        self._tasks = tasks
        self._warn = warn
        self._warned: set[str] = set()
        self._registry: Registry | None = None
        self.asks: AsksOwner | None = None
        """Set where there is somebody to be asked about servers that are not what is trusted."""
        self._lock = anyio.Lock()
        self._has_begun = False

    def attach(self, registry: Registry) -> None:
        """Offer the tools there."""
        self._registry = registry

    async def see_files(self) -> None:
        """At the kernel's start: what is added to its files, or changed in them, from now on waits for a yes."""
        if not self._config.files:
            return
        try:
            await self._begin()
        except AiosError as error:
            self._warn(
                f"the next kernel may trust what is changed in `mcp.files` until then, for that they were seen could not be kept: {error.message}"
            )

    def owns(self, tool: str) -> bool:
        """Whether a name is that of a tool of a server, known or not."""
        return tool.partition("/")[0] in self._servers

    async def make_all_known(self, run: Run) -> None:
        """Let the tools of all servers be in the registry.

        A server that was never asked for its own is started for it; who lists tools waits a moment for it, and for one that failed not
        at all.
        """
        if self._servers:
            await self._begin()
        unknown = [each for each in self._servers.values() if not each.is_listed]
        wanted = [server for server in unknown if not server.n_failures]
        if wanted:
            with anyio.move_on_after(LIST_WAIT_S):
                await self._start_all(run, wanted)
            await run.runnable()

    async def make_known(self, run: Run, tool: str) -> None:
        """Let the tools of the server be in the registry that a name is of, if it is of one.

        Raises:
            AccessDenied: The owner has not said yes to that server.
            ToolFailed: It cannot be started.
        """
        server = self._servers.get(tool.partition("/")[0])
        if server is None:
            return
        await self._begin()
        if not server.is_listed:
            await self._ask_to_start(run, server)
            with run.parked():
                try:
                    await self._connected(server, run.process.pid)
                except ToolFailed:
                    take(run, _source(server))  # it may have said why
                    raise
            await run.runnable()

    def close(self, process: Process) -> None:
        """The process has ended, and so do the servers that were its own, at once."""
        for server in self._servers.values():
            own = server.connections.get(process.pid)
            if own is not None:
                own.cut()

    async def aclose(self) -> None:
        """End all servers. Returns: when nothing of them is left."""
        living = [each for one in self._servers.values() for each in one.connections.values()]
        for connection in living:
            connection.close()
        for connection in living:
            await connection.over.wait()

    # --- the calls about servers ---------------------------------------------------------------------------------

    async def list_servers(self, run: Run, _call: McpList) -> McpServers:
        """All servers."""
        await self._begin()
        for server in self._servers.values():
            if server.note:  # of one that failed, perhaps in its own words
                take(run, _source(server))
        return McpServers(tuple(self._servers[name].info() for name in sorted(self._servers)))

    async def check(self, run: Run, call: McpCheck) -> McpServers:
        """Start servers now, and ask them for their tools."""
        await self._begin()
        servers = [self._get(name) for name in call.names or sorted(self._servers)]
        for server in servers:
            server.not_before_s = 0.0
        await self._start_all(run, servers, asks_again=True)
        return McpServers(tuple(server.info() for server in servers))

    async def list_tools(self, run: Run, call: McpTools) -> McpToolList:
        """The tools of a server, as they are trusted and as they are."""
        await self._begin()
        server = self._get(call.name)
        take(run, _source(server))  # what it offers now, nobody may have looked at
        return _listed(server, run.process)

    async def trust(self, run: Run, call: McpTrust) -> McpToolList:
        """Take what a server offers now for what it is to be."""
        await self._begin()
        server = self._get(call.name)
        async with self._lock:
            if server.digest != call.digest:
                raise Conflict(
                    f"MCP server {call.name} offers something else by now",
                    hint=f"look at it again: `aios mcp tools {call.name}`",
                )
            await self._accept(server)
        if self.asks is not None:
            self.asks.settle(call.name, call.digest, by=run.process.owner)
        return _listed(server, run.process)

    # --- a call of a tool ----------------------------------------------------------------------------------------

    async def prepare(self, run: Run, server: Server, tool: str) -> None:
        """Before anything of a call has begun: start the server, and let the owner look at what is not as he trusts it.

        Raises:
            AccessDenied: The server or the tool is not what its owner trusts.
            ToolFailed: The server failed, or has the tool no more.
        """
        await self._ask_to_start(run, server)
        with run.parked():
            await self._connected(server, run.process.pid)
        await run.runnable()
        if server.is_changed(tool):
            await self._ask(run, server)
        server.check_callable(tool)

    async def carry_out(self, job: Job, server: Server, tool: str) -> Outcome:
        """Run a tool of a server, started for it if need be.

        Raises:
            AccessDenied: The server or the tool is not what its owner trusts.
            ToolFailed: The server or the tool failed.
        """
        run, spec = job.run, server.spec
        server.check_callable(tool)
        with run.parked():
            connection = await self._connected(server, run.process.pid)
        await run.runnable()
        server.check_callable(tool)
        own = run.holding(connection.freeze, connection.is_still)
        waits = run.parked() if spec.options.is_shared else own
        try:
            with waits:
                reply = await connection.call(tool, job.arguments)
        except ToolFailed as error:
            why = spec.hide(error.message)
            if not connection.is_usable:  # it broke, and how is known once it is gone
                await connection.over.wait()
                why = f"{tool}: {connection.failure}" if connection.failure else why
            raise ToolFailed(f"{spec.name}/{why}", hint=error.hint) from error
        await run.runnable()
        server.note_success()
        outcome = replace(reply.outcome, text=spec.hide(reply.outcome.text))
        if reply.is_error:
            raise ToolFailed(f"{spec.name}/{tool} says: {outcome.text}", hint="call it otherwise")
        return outcome

    def check_invariants(self) -> None:
        """Raise AssertionError if the parts contradict themselves."""
        for server in self._servers.values():
            server.check_invariants()

    # --- starting ------------------------------------------------------------------------------------------------

    async def _ask_to_start(self, run: Run, server: Server) -> None:
        if not server.is_trusted and not server.spec.problem:
            await self._ask(run, server)

    async def _ask(self, run: Run, server: Server) -> None:
        """Let the owner decide about a server as it is now; where nobody can be asked, whatever comes next denies it."""
        if self.asks is None:
            return
        doubt = doubt_of(server)

        async def accept() -> None:
            async with self._lock:
                if server.digest == doubt.digest:
                    await self._accept(server)

        await self.asks.ask(run, doubt, accept)

    async def _start_all(
        self, run: Run, servers: Iterable[Server], *, asks_again: bool = False
    ) -> None:
        """Start some side by side; how each went is noted there."""

        async def start(server: Server) -> None:
            try:
                connection = await self._connected(server, run.process.pid)
                if asks_again and await connection.relist(is_forced=True):
                    await self._absorb(server, connection)
            except AiosError as error:
                server.note = server.note or error.message

        with run.parked():
            async with anyio.create_task_group() as tasks:
                for server in servers:
                    tasks.start_soon(start, server)
        await run.runnable()

    async def _connected(self, server: Server, pid: Pid) -> Connection:
        """A connection that can be called, whose tools were compared with those that are trusted.

        Raises:
            AccessDenied: The owner has not said yes to the server.
            ToolFailed: It does not start.
        """
        key = None if server.spec.options.is_shared else pid
        while True:
            connection = server.connections.get(key)
            if connection is None or connection.is_usable or not connection.ready.is_set():
                break
            await connection.over.wait()
        if connection is None:
            server.check_startable(self._clock.now_s())
            connection = self._start(server, key)
        await connection.ready.wait()
        if not connection.is_usable:
            await connection.over.wait()
            why = connection.failure or "it was ended"
            raise ToolFailed(
                f"MCP server {server.spec.name} does not run: {why}",
                hint=f"`aios mcp check {server.spec.name}` tries it again",
            )
        await connection.relist()
        if connection.offer is not server.offer:
            await self._absorb(server, connection)
        return connection

    def _start(self, server: Server, key: Pid | None) -> Connection:
        protocol = server.pinned.protocol if server.pinned is not None else ""
        connection = Connection(
            server.spec, self._launcher, self._config, self._clock, last_protocol=protocol
        )
        server.connections[key] = connection
        server.n_starts += 1
        self._tasks.start_soon(self._attend, server, key, connection)
        return connection

    async def _attend(self, server: Server, key: Pid | None, connection: Connection) -> None:
        """Live through a connection, and note how it ended."""
        try:
            await connection.run()
        finally:
            del server.connections[key]
            if connection.failure:
                server.note_failure(
                    connection.failure, self._clock.now_s(), self._config.max_restart_s
                )
            connection.over.set()

    async def _absorb(self, server: Server, connection: Connection) -> None:
        """Compare what a server offers with what is trusted; the first time, that is what it offers."""
        async with self._lock:
            pinned, offer = server.pinned, connection.offer
            if pinned is None or offer is None:
                return
            tools = pinned.tools if pinned.is_listed else offer.tools
            found = replace(pinned, protocol=connection.protocol, is_listed=True, tools=tools)
            if found != pinned:
                await self._pin(server, found)
            server.offer = offer  # the last step: who sees it does not wait here
            server.note = ""

    # --- what is trusted -----------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Read what is trusted, once. Servers of a file that was never seen are; what is added to it later is not."""
        async with self._lock:
            if self._has_begun or not (self._servers or self._config.files):
                return
            pins = await self._pins.read()
            for server in self._servers.values():
                server.pinned = _pinned_of(server.spec, pins)
                self._publish(server)
                if server.pinned is not None and server.spec.name not in pins.servers:
                    await self._pins.write(server.spec.name, server.spec.source, server.pinned)
            new = sources(self._config) - pins.sources
            if new:
                await self._pins.see(new)
            self._has_begun = True

    async def _accept(self, server: Server) -> None:
        """The owner takes a server for what it is now."""
        before, offered = server.pinned or Pinned(""), server.offered
        accepted = Pinned(
            server.spec.digest,
            before.protocol,
            is_listed=before.is_listed or offered is not None,
            tools=before.tools if offered is None else offered,
        )
        if accepted != before:
            await self._pin(server, accepted)

    async def _pin(self, server: Server, pinned: Pinned) -> None:
        await self._pins.write(server.spec.name, server.spec.source, pinned)
        server.pinned = pinned
        self._publish(server)

    def _publish(self, server: Server) -> None:
        """Put the tools that are trusted into the registry, in place of those that were there."""
        assert self._registry is not None, "attached before it is used"
        self._registry.withdraw(server.published)
        server.published, server.clash = [], ""
        for definition in server.tools.values():
            tool = self._tool(server, definition)
            try:
                self._registry.add(tool)
                server.published.append(tool.name)
            except Conflict as error:  # a process or a manifest offers one of that name
                server.clash = error.message
        self._complain(server)

    def _complain(self, server: Server) -> None:
        warning = f"[mcp.servers.{server.spec.name}.tools]: {server.complaint}"
        if server.complaint and warning not in self._warned:
            self._warned.add(warning)
            self._warn(warning)

    def _tool(self, server: Server, definition: Definition) -> Tool:
        options = server.spec.options
        timeout_s = min(options.timeout_s + self._config.start_timeout_s, MAX_TIMEOUT_S)
        returns = definition.output_schema
        traits = traits_of(definition, options, timeout_s=timeout_s)
        is_there = traits.undo in server.tools  # else the server's complaint says so
        return Tool(
            f"{server.spec.name}/{definition.name}",
            ToolKind.MCP,
            definition.said,
            partial(self.carry_out, server=server, tool=definition.name),
            Schema(definition.input_schema),
            Schema(returns) if returns is not None else None,
            replace_fields(traits, undo=f"{server.spec.name}/{traits.undo}" if is_there else ""),
            before=partial(self.prepare, server=server, tool=definition.name),
            definition=(server.spec.digest, definition.digest),
            is_open=True,
        )

    def _get(self, name: str) -> Server:
        server = self._servers.get(name)
        if server is None:
            known = ", ".join(sorted(self._servers)) or "none"
            raise NotFound(
                f"there is no MCP server {name}; there are: {known}",
                hint="name its file in `mcp.files`, or write [mcp.servers.NAME]",
            )
        return server


def _source(server: Server) -> str:
    """What is written down where data came from a server itself."""
    return f"MCP server {server.spec.name}"


def _listed(server: Server, process: Process) -> McpToolList:
    written = server.spec.shown if process.pid == INIT_PID else {}
    return McpToolList(server.info(), server.infos(), server.digest, written)


def _pinned_of(spec: ServerSpec, pins: AllPins) -> Pinned | None:
    """What is trusted of a server when the kernel begins. The configuration is the owner's own hand."""
    known = pins.servers.get(spec.name)
    if spec.source == CONFIG:
        return replace(known or Pinned(""), digest=spec.digest)
    if known is None and spec.source not in pins.sources:
        return Pinned(spec.digest)
    return known
