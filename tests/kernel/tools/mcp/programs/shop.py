"""A server whose one tool acts, and waits once where the folder has a file `stop put after`: `shop.py FOLDER`."""

import sys
from pathlib import Path

import anyio
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

HINTS = ToolAnnotations(destructive_hint=False, idempotent_hint=True, open_world_hint=False)
world = Path(sys.argv[1])
server = MCPServer("shop")


@server.tool(annotations=HINTS)
async def put(item: str) -> str:
    """Put an item on the list."""
    with (world / "effects").open("a") as effects:
        effects.write(f"{item}\n")
    if (world / "stop put after").exists():
        (world / "stop put after").unlink()
        (world / "paused").touch()
        await anyio.sleep_forever()
    return "done"


if __name__ == "__main__":
    server.run("stdio")
