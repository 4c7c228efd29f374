"""The calls about servers of the Model Context Protocol. What they do is `kernel/tools/mcp/`; docs/guides/mcp.md tells how to use it."""

from enum import Enum
from typing import Annotated

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call
from aios.abi.tools import EffectName
from aios.abi.types import Count, JsonObject

ServerName = Annotated[str, Meta(min_length=1, max_length=256)]
Digest = Annotated[str, Meta(min_length=32, max_length=32, pattern=r"^[0-9a-f]{32}(?!\n)$")]


class McpStatus(Enum):
    """How a server is."""

    UNKNOWN = "unknown"  # never asked for its tools
    IDLE = "idle"  # its tools are known; it starts when one of them is called
    RUNNING = "running"
    FAILING = "failing"  # its last start or call broke it; it is tried again after a pause
    UNTRUSTED = "untrusted"  # the owner has not said yes to it
    UNUSABLE = "unusable"  # what is written of it cannot be used


class McpState(Enum):
    """How a tool of a server stands."""

    TRUSTED = "trusted"
    NEW = "new"  # offered since the owner said yes; not called before the next yes
    CHANGED = "changed"  # defined otherwise since; not called before the next yes
    GONE = "gone"  # offered no more
    REFUSED = "refused"  # the kernel cannot take it


class McpServerInfo(Struct, frozen=True):
    """One server. `where` is its program or host, `source` the file that names it; arguments and variables are not shown."""

    name: str
    status: McpStatus
    transport: str
    where: str
    source: str
    is_shared: bool
    note: str = ""
    protocol: str = ""
    n_tools: Count = 0
    n_waiting: Count = 0
    """Tools that wait for the owner's yes."""
    n_running: Count = 0
    n_starts: Count = 0
    n_failures: Count = 0
    """Starts and servers that broke, in a row."""


class McpServers(Answer, frozen=True):
    """Servers by name."""

    servers: tuple[McpServerInfo, ...]


class McpList(Call[McpServers], frozen=True, tag="mcp_list"):
    """The servers that there are; none is started for it."""


class McpCheck(Call[McpServers], frozen=True, tag="mcp_check"):
    """Start servers now, all if none is named, and ask each for its tools; how that went is in their status and note.

    Raises:
        NotFound: There is no server of that name.
    """

    names: Annotated[tuple[ServerName, ...], Meta(max_length=256)] = ()


class McpTool(Struct, frozen=True):
    """A tool of a server: `now` is what the server offers, `trusted` what the owner said yes to, each if it is there."""

    name: str
    state: McpState
    effect: EffectName = "irreversible"
    note: str = ""
    trusted: JsonObject | None = None
    now: JsonObject | None = None


class McpToolList(Answer, frozen=True):
    """The tools of one server. `digest` stands for exactly this state, for the owner to say yes to.

    `written` is what would be started or reached, for the owner of the kernel alone: `command`, `args`, `url`, `env`, `headers`, `folder`.
    Variables are not filled in, and of what `env` and `headers` hold, what may be secret is `***`.
    """

    server: McpServerInfo
    tools: tuple[McpTool, ...]
    digest: str
    written: JsonObject = {}  # noqa: RUF012 - msgspec copies it


class McpTools(Call[McpToolList], frozen=True, tag="mcp_tools"):
    """The tools of a server as the owner trusts them and as it last offered them.

    Raises:
        NotFound: There is no server of that name.
    """

    name: ServerName


class McpTrust(Call[McpToolList], frozen=True, tag="mcp_trust"):
    """Say yes to a server and all that it offers, as `mcp_tools` showed it under `digest`. Only the owner of the kernel may.

    Raises:
        Conflict: It offers something else by now.
        NotFound: There is no server of that name.
    """

    name: ServerName
    digest: Digest
