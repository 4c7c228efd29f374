"""A server of the official SDK: `official.py`, or `official.py --http PORT`."""

import os
import sys
import time
from pathlib import Path

import anyio
from mcp.server.mcpserver import MCPServer
from mcp_types import ImageContent, ToolAnnotations

READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
server = MCPServer("official")


@server.tool(annotations=READS)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(annotations=ToolAnnotations(destructive_hint=False))
def env(name: str) -> str:
    """A variable of the environment."""
    return os.environ.get(name, "unset")


@server.tool()
def fail(why: str) -> str:
    """Raise."""
    raise ValueError(why)


@server.tool()
def die() -> str:
    """End the server in the middle."""
    os._exit(7)


@server.tool()
async def hang() -> str:
    """Never end."""
    await anyio.sleep(3600)
    return "never"


@server.tool()
def giant(n_bytes: int) -> str:
    """Say much."""
    return "x" * n_bytes


@server.tool(structured_output=False)
def image() -> ImageContent:
    """Show something."""
    return ImageContent(type="image", data="AAAA", mime_type="image/png")


@server.tool()
def pid() -> int:
    """The server's process."""
    return os.getpid()


@server.tool()
def write(path: str) -> str:
    """Write a file."""
    Path(path).write_text("here")
    return "done"


@server.tool()
def late(path: str) -> str:
    """Write a file after a moment."""
    time.sleep(0.3)  # noqa: TID251 - a server of its own
    return write(path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--http"]:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
    else:
        server.run("stdio")
