"""One server as the kernel knows it: what is trusted of it, what it offers, its connections, and when it may be started again."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from aios.abi.mcp import McpServerInfo, McpState, McpStatus, McpTool
from aios.abi.types import JsonObject, Pid
from aios.errors import AccessDenied, ToolFailed
from aios.kernel.tools.mcp.connection import Connection
from aios.kernel.tools.mcp.definitions import (
    Definition,
    Offer,
    changes,
    declared_effect,
    digest_of,
    state_of,
    unknown_names,
)
from aios.kernel.tools.mcp.pins import Pinned
from aios.kernel.tools.mcp.spec import ServerSpec

FIRST_PAUSE_S = 1.0


@dataclass(eq=False)
class Server:
    """One server.

    Attributes:
        spec: What is written of it.
        pinned: What the owner trusts of it; None: nothing yet.
        offer: What it offered when it was last asked, since the kernel began.
        connections: Those that live, by the process they are for; None: for all.
        published: The names of its tools in the registry.
        clash: Why one of its tools is not in the registry.
        note: What went wrong last.
        n_failures: Starts that failed and servers that broke, in a row.
        not_before_s: When it may be started again.
    """

    spec: ServerSpec
    pinned: Pinned | None = None
    offer: Offer | None = None
    connections: dict[Pid | None, Connection] = field(default_factory=dict)
    published: list[str] = field(default_factory=list)
    clash: str = ""
    note: str = ""
    n_starts: int = 0
    n_failures: int = 0
    not_before_s: float = 0.0

    @property
    def is_trusted(self) -> bool:
        """Whether it may be started: the owner trusts what would be."""
        return self.pinned is not None and self.pinned.digest == self.spec.digest

    @property
    def is_listed(self) -> bool:
        """Whether its tools are known."""
        return self.pinned is not None and self.pinned.is_listed

    @property
    def tools(self) -> Mapping[str, Definition]:
        """The tools that the owner trusts."""
        return self.pinned.tools if self.pinned is not None else {}

    @property
    def offered(self) -> Mapping[str, Definition] | None:
        """The tools that it offered when it was last asked."""
        return self.offer.tools if self.offer is not None else None

    @property
    def complaint(self) -> str:
        """What is wrong with what the configuration says of its tools, once they are known."""
        return unknown_names(self.spec.options, self.tools) if self.is_listed else ""

    @property
    def digest(self) -> str:
        """What the owner says yes to."""
        return digest_of(self.spec.digest, self.offered)

    def check_startable(self, now_s: float) -> None:
        """Return if it may be started.

        Raises:
            AccessDenied: The owner has not said yes to it.
            ToolFailed: It cannot be used, or it broke a moment ago.
        """
        name = self.spec.name
        if self.spec.problem:
            raise ToolFailed(f"MCP server {name}: {self.spec.problem}", hint="`aios mcp ls`")
        if not self.is_trusted:
            raise AccessDenied(
                f"MCP server {name} is not what its owner trusts: it was added to {self.spec.source}, or changed there",
                hint=f"its owner looks at it and runs `aios mcp trust {name}`",
            )
        if now_s < self.not_before_s:
            wait_s = self.not_before_s - now_s
            raise ToolFailed(
                f"MCP server {name} broke: {self.note}; it is started again in {wait_s:.0f} s",
                hint=f"`aios mcp check {name}` starts it now",
                retry_after_s=wait_s,
            )

    def is_changed(self, tool: str) -> bool:
        """Whether a tool is there, but not as its owner trusts it."""
        state = state_of(tool, self.tools, self.offered)
        return state in {McpState.NEW, McpState.CHANGED}

    def check_callable(self, tool: str) -> None:
        """Return if a tool is what its owner trusts.

        Raises:
            AccessDenied: It is another one now.
            ToolFailed: It is gone.
        """
        name = self.spec.name
        state = state_of(tool, self.tools, self.offered)
        if state is McpState.GONE:
            raise ToolFailed(f"MCP server {name} no longer offers {tool}", hint="use another tool")
        if state is not McpState.TRUSTED:
            raise AccessDenied(
                f"{name}/{tool} is defined otherwise than when its owner trusted it",
                hint=f"its owner looks at the change (`aios mcp tools {name}`) and runs `aios mcp trust {name}`",
            )

    def note_failure(self, why: str, now_s: float, max_pause_s: float) -> None:
        """It broke: the next start waits, each time twice as long."""
        self.note = why
        self.n_failures += 1
        pause_s = FIRST_PAUSE_S * 2 ** min(self.n_failures - 1, 30)
        self.not_before_s = now_s + min(pause_s, max_pause_s)

    def note_success(self) -> None:
        """It works."""
        self.note = ""
        self.n_failures = 0
        self.not_before_s = 0.0

    def info(self) -> McpServerInfo:
        """It, for people; no secrets in it."""
        running = [each for each in self.connections.values() if each.is_usable]
        waiting = changes(self.tools, self.offered)
        return McpServerInfo(
            self.spec.name,
            self._status(bool(running)),
            "stdio" if self.spec.command else "http",
            self.spec.where,
            self.spec.source,
            is_shared=self.spec.options.is_shared,
            note=self.spec.problem or self.note or self.clash or self.complaint,
            protocol=self.pinned.protocol if self.pinned is not None else "",
            n_tools=len(self.tools),
            n_waiting=sum(state is not McpState.GONE for state in waiting.values()),
            n_running=len(running),
            n_starts=self.n_starts,
            n_failures=self.n_failures,
        )

    def infos(self) -> tuple[McpTool, ...]:
        """Its tools, for people."""
        offered = self.offered
        found = []
        for name in sorted({*self.tools, *(offered or {})}):
            trusted = self.tools.get(name)
            now = (offered or {}).get(name)
            shown = now or trusted
            assert shown is not None
            effect = declared_effect(shown, self.spec.options)
            found.append(
                McpTool(
                    name,
                    state_of(name, self.tools, offered),
                    effect,
                    trusted=_plain(trusted),
                    now=_plain(now),
                )
            )
        refused = self.offer.refused if self.offer is not None else {}
        found += [McpTool(name, McpState.REFUSED, note=why) for name, why in refused.items()]
        return tuple(found)

    def check_invariants(self) -> None:
        """Raise AssertionError if it contradicts itself."""
        assert self.spec.options.is_shared or None not in self.connections
        assert not any(each.over.is_set() for each in self.connections.values())

    def _status(self, is_running: bool) -> McpStatus:
        if self.spec.problem:
            return McpStatus.UNUSABLE
        if not self.is_trusted:
            return McpStatus.UNTRUSTED
        if is_running:
            return McpStatus.RUNNING
        if self.n_failures:
            return McpStatus.FAILING
        return McpStatus.IDLE if self.is_listed else McpStatus.UNKNOWN


def _plain(definition: Definition | None) -> JsonObject | None:
    if definition is None:
        return None
    found: JsonObject = msgspec.to_builtins(definition)
    return found
