"""The MCP servers of a kernel, for its owner: `client.mcp.list()`. What they offer is called like every other tool."""

from typing import TYPE_CHECKING

from aios.abi.mcp import (
    McpCheck,
    McpList,
    McpServerInfo,
    McpToolList,
    McpTools,
    McpTrust,
)
from aios.sdk.requests import build

if TYPE_CHECKING:
    from aios.abi.gate import Gate
    from aios.sdk.blocking import BlockingGate


class McpClient:
    """The servers."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate

    async def list(self) -> tuple[McpServerInfo, ...]:
        """All servers, by name; none is started for it."""
        return (await self._gate.call(McpList())).value.servers

    async def check(self, *names: str) -> tuple[McpServerInfo, ...]:
        """Start servers, all if none is named, and ask them for their tools.

        Raises:
            NotFound: There is none of that name.
        """
        return (await self._gate.call(build(McpCheck, names=names))).value.servers

    async def tools(self, name: str) -> McpToolList:
        """The tools of a server, as they are trusted and as they are.

        Raises:
            NotFound: There is none of that name.
        """
        return (await self._gate.call(build(McpTools, name=name))).value

    async def trust(self, name: str, digest: str) -> McpToolList:
        """Say yes to what `tools` showed under that digest.

        Raises:
            Conflict: It is something else by now.
        """
        return (await self._gate.call(build(McpTrust, name=name, digest=digest))).value


class BlockingMcpClient:
    """`McpClient` for code that waits; its methods say more."""

    def __init__(self, gate: "BlockingGate") -> None:
        self._gate = gate

    def list(self) -> tuple[McpServerInfo, ...]:
        """All servers, by name; none is started for it."""
        return self._gate.call(McpList()).value.servers

    def check(self, *names: str) -> tuple[McpServerInfo, ...]:
        """Start servers, all if none is named, and ask them for their tools."""
        return self._gate.call(build(McpCheck, names=names)).value.servers

    def tools(self, name: str) -> McpToolList:
        """The tools of a server, as they are trusted and as they are."""
        return self._gate.call(build(McpTools, name=name)).value

    def trust(self, name: str, digest: str) -> McpToolList:
        """Say yes to what `tools` showed under that digest."""
        return self._gate.call(build(McpTrust, name=name, digest=digest)).value
