"""Opening a server: its program behind walls, or its endpoint, and the conversation with it."""

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from msgspec import Struct

from aios.errors import ToolFailed
from aios.kernel.sandbox.launch import Confined
from aios.kernel.sandbox.places import at_home, command_places
from aios.kernel.tools.executable import own_folder
from aios.kernel.tools.launcher import PATH, Launcher, Order
from aios.kernel.tools.manifest import Bounds
from aios.kernel.tools.mcp.http import http_streams
from aios.kernel.tools.mcp.session import Session, is_old, open_session
from aios.kernel.tools.mcp.spec import ServerSpec
from aios.kernel.tools.mcp.stdio import stdio_streams
from aios.kernel.tools.mcp.wire import Streams, Traffic
from aios.mcpconfig import McpConfig

BOUNDS = Bounds(memory_bytes=1 << 50, cpu_s=86_400, file_bytes=1 << 50, n_files=1024)
"""What the sandbox's own configuration allows; a server runs for long."""


class Opening(Struct, frozen=True):
    """What it takes to open a server.

    Attributes:
        spec: The server.
        launcher: Starts its program.
        config: The bounds of messages.
        last_protocol: The version that it spoke last time, if that is known.
        note: Told of its program, once it runs.
        traffic: Told what passes.
    """

    spec: ServerSpec
    launcher: Launcher
    config: McpConfig
    last_protocol: str
    note: Callable[[Confined], None]
    traffic: Traffic

    @classmethod
    def of(
        cls,
        spec: ServerSpec,
        launcher: Launcher,
        config: McpConfig,
        *,
        now_s: Callable[[], float],
        last_protocol: str,
        note: Callable[[Confined], None],
    ) -> "Opening":
        """One of a server that is not open yet."""
        return cls(spec, launcher, config, last_protocol, note, Traffic(now_s))

    def session(self) -> AbstractAsyncContextManager[Session]:
        """The conversation with the server; when the block ends, so has its program, with all that it started."""
        spec, config = self.spec, self.config
        streams = (
            _program(self)
            if spec.command
            else http_streams(
                spec.url,
                spec.headers,
                self.traffic,
                max_message_bytes=config.max_message_bytes,
                silence_s=spec.options.timeout_s + config.start_timeout_s,
            )
        )
        return open_session(streams, self.traffic, is_old=is_old(self.last_protocol))


@asynccontextmanager
async def _program(opening: Opening) -> AsyncIterator[Streams]:
    async with own_folder() as folder:
        running = await opening.launcher.open(order_of(opening.spec, folder))
        opening.note(running)
        async with stdio_streams(
            running, opening.traffic, max_message_bytes=opening.config.max_message_bytes
        ) as streams:
            yield streams


def order_of(spec: ServerSpec, folder: Path) -> Order:
    """What to start for a server, with a folder of its own.

    Raises:
        ToolFailed: Its program is not there.
    """
    path = os.environ.get("PATH", PATH)
    found = shutil.which(spec.command[0], path=path)
    if found is None:
        raise ToolFailed(
            f"its program {spec.where} is not there", hint="install it, or mend `PATH`"
        )
    options = spec.options
    named = [str(at_home(word)) for word in (*spec.command[1:], *options.read)]
    around = [str(spec.folder)] if spec.folder is not None else []
    env = {"PATH": f"{Path(found).parent}:{PATH}", "LANG": "C.UTF-8"}
    env |= {"HOME": str(folder), "TMPDIR": str(folder)}
    writable = tuple(at_home(word).resolve() for word in options.write)
    return Order(
        (found, *spec.command[1:]),
        env | dict(spec.env),
        spec.folder or folder,
        BOUNDS,
        command_places([found, *named, *around]),
        (folder, *writable),
    )
