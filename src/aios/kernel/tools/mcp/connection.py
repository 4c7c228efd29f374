"""One running server: started, asked for its tools, called, and ended when nobody needs it any more.

It lives in a task of its own, for the conversation must begin and end in one; calls come from the tasks of their callers. Whatever
happens to the server ends this task and nothing else.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import anyio.from_thread
import anyio.to_thread

from aios.abi.types import JsonObject
from aios.errors import AiosError, ToolFailed, edge
from aios.kernel.clock import Clock
from aios.kernel.tools.launcher import Launcher
from aios.kernel.tools.mcp.definitions import Offer, read_offer
from aios.kernel.tools.mcp.spec import ServerSpec
from aios.mcpconfig import McpConfig

if TYPE_CHECKING:
    from aios.kernel.sandbox.launch import Confined
    from aios.kernel.tools.mcp.opening import Opening
    from aios.kernel.tools.mcp.session import Reply, Session
    from aios.kernel.tools.mcp.wire import Traffic

INSTALL = "pip install 'aios-kernel[mcp]'"


@dataclass(eq=False)
class Connection:
    """One server, from its start to its end.

    Attributes:
        spec: Which one.
        last_protocol: The version that it spoke last time, if that is known.
        protocol: The version that it speaks.
        offer: What it offered when it was last asked; None before that.
        failure: Why it ended, unless it was to end.
        ready: Set when it can be called, or has ended.
        over: Set by its owner when it has ended and nothing of it is left.
        n_calls: Calls that it works on.
    """

    spec: ServerSpec
    launcher: Launcher
    config: McpConfig
    clock: Clock
    last_protocol: str = ""
    protocol: str = ""
    offer: Offer | None = None
    failure: str = ""
    ready: anyio.Event = field(default_factory=anyio.Event)
    over: anyio.Event = field(default_factory=anyio.Event)
    n_calls: int = 0
    _used_s: float = 0.0
    _session: "Session | None" = None
    _traffic: "Traffic | None" = None
    _running: "Confined | None" = None
    _scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _listing: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def is_usable(self) -> bool:
        """Whether it can be called."""
        return (
            self._session is not None
            and self._traffic is not None
            and not self._traffic.ended.is_set()
        )

    async def run(self) -> None:
        """Its whole life. Returns: when nothing of it is left."""
        self._scope.deadline = anyio.current_time() + self.config.start_timeout_s
        try:
            with self._scope, edge("the connection"):
                await self._live()
            if self._scope.cancelled_caught and self.offer is None and not self.failure:
                self.failure = f"it did not start within {self.config.start_timeout_s:g} s"
        except AiosError as error:
            self.failure = self.failure or error.message
        finally:
            self._session = None
            self.failure = self.spec.hide(self.failure)
            self.ready.set()

    def close(self) -> None:
        """End it; calls that it works on fail."""
        if self.offer is None:
            self.failure = self.failure or "it was ended"
        self._scope.cancel()

    def cut(self) -> None:
        """End it now, with all that it started: it gets no moment to end by itself."""
        if self._running is not None and not self.over.is_set():
            self._running.kill()
        self.close()

    def freeze(self, is_stopped: bool) -> None:
        """Stop its program, or let it go on."""
        if self._running is not None and not self.over.is_set():
            self._running.freeze(is_stopped)

    def is_still(self) -> bool:
        """Whether nothing of its program runs, once it is stopped."""
        return self._running is None or self.over.is_set() or self._running.is_still()

    async def relist(self, *, is_forced: bool = False) -> bool:
        """Ask it again for its tools, if it said that they are others, or if forced. Returns: whether it was asked.

        Raises:
            ToolFailed: It did not say.
        """
        with anyio.move_on_after(self.config.start_timeout_s):
            async with self._listing:
                session, traffic = self._session, self._traffic
                if session is None or traffic is None or not (traffic.is_changed or is_forced):
                    return False
                is_told = False
                try:
                    self.offer = await _list(session)
                    is_told = True
                    return True
                finally:  # who asks may leave in the middle: then the next one asks
                    traffic.is_changed |= not is_told
        raise ToolFailed("it does not say which tools it has now", hint="`aios mcp check`")

    async def call(self, tool: str, arguments: JsonObject) -> "Reply":
        """Run a tool.

        Raises:
            ToolFailed: The server broke, did not answer in time, or answered what is no answer.
        """
        if self._session is None:
            raise ToolFailed(f"{self.spec.name} has ended", hint="call it again")
        self.n_calls += 1
        try:
            return await self._session.call(tool, arguments, timeout_s=self.spec.options.timeout_s)
        finally:
            self.n_calls -= 1
            self._used_s = self.clock.now_s()

    async def _live(self) -> None:
        make = await anyio.to_thread.run_sync(_import_opening)
        opening = make.of(
            self.spec,
            self.launcher,
            self.config,
            now_s=self.clock.now_s,
            last_protocol=self.last_protocol,
            note=self._note,
        )
        traffic = opening.traffic
        async with opening.session() as found:
            self.offer = await _list(found)
            self._scope.deadline = math.inf
            self._session, self._traffic, self.protocol = found, traffic, found.protocol
            self._used_s = self.clock.now_s()
            self.ready.set()
            await self._idle(traffic)
            self._session = None
            self.failure = traffic.why

    async def _idle(self, traffic: "Traffic") -> None:
        """Return when it has ended, or nobody called it for long."""
        while not traffic.ended.is_set():
            with anyio.move_on_after(self.config.idle_s):
                await traffic.ended.wait()
            idle_s = self.clock.now_s() - self._used_s
            if not self.n_calls and idle_s >= self.config.idle_s:
                return

    def _note(self, running: "Confined") -> None:
        self._running = running


async def _list(session: "Session") -> Offer:
    """What a server offers. Its schemas are compiled in a worker thread, until nobody waits for it any more: many take long."""
    tools = await session.list_tools()

    def read() -> Offer:
        return read_offer(_while_wanted(tools))

    return await anyio.to_thread.run_sync(read)


def _while_wanted(tools: list[bytes]) -> Iterator[bytes]:
    for tool in tools:
        anyio.from_thread.check_cancelled()
        yield tool


def _import_opening() -> "type[Opening]":
    """Import the SDK and what uses it, in a worker thread: it takes 0.6 s.

    Raises:
        ToolFailed: It is not installed.
    """
    try:
        from aios.kernel.tools.mcp.opening import Opening  # noqa: PLC0415 - 0.6 s and 57 MB
    except (ImportError, AttributeError, TypeError) as error:  # or another version than it needs
        raise ToolFailed(f"the SDK of MCP cannot be imported: {error}", hint=INSTALL) from error
    return Opening
