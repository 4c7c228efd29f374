"""A whole kernel with the scripted engine, in-process or on its sockets, for tests of user space."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import wait_all_tasks_blocked

from aios.abi.types import ToolCall
from aios.config import Config, EngineConfig, Home, ServerConfig
from aios.configload import Loaded
from aios.engine.base import Ability
from aios.engine.script import Reply, Script
from aios.engine.scripted import ScriptedEngine
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.sandbox.scratch import scratch_folder
from aios.sdk.client import Client
from aios.server.daemon import open_server

SILENT = Script()
"""The default rule of the scripted engine."""


def scripted(*says: str | Reply) -> Script:
    """A script that says these things in turn."""
    return Script(replies=says)


def calling(*calls: tuple[str, str], text: str = "") -> Reply:
    """A reply that calls tools: (name, arguments), with the ids c0, c1..."""
    return Reply(text, tuple(ToolCall(f"c{i}", *call) for i, call in enumerate(calls)))


@asynccontextmanager
async def booted(script: Script = SILENT) -> AsyncIterator[Kernel]:
    """A kernel in this process."""
    engines = {"test": ScriptedEngine(script=script, abilities=frozenset(Ability))}
    async with open_kernel(Config(), Home(Path("/nonexistent")), engines=engines) as kernel:
        yield kernel
        kernel.check_invariants()


@asynccontextmanager
async def own_client(script: Script = SILENT) -> AsyncIterator[Client]:
    """The client of a guest of a kernel in this process."""
    async with booted(script) as kernel:
        process, _ = kernel.admit("test")
        yield Client(kernel.gate(process.pid))


@asynccontextmanager
async def served(script: Script = SILENT, *, http: bool = False) -> AsyncIterator[Kernel]:
    """A kernel on its sockets; the folder's name is short because a socket's path must be."""
    config = Config(engine=EngineConfig(kind="scripted"), server=ServerConfig(port=0))
    engines = {"test": ScriptedEngine(script=script)}
    with scratch_folder("t") as root:
        loaded = Loaded(config, Home(root), root / "config.toml")
        async with open_server(loaded, http=http, engines=engines) as kernel:
            yield kernel
            # The server must see that its clients have left: anyio reports a stray error when a receive is cancelled in
            # the very turn of the loop in which its socket becomes readable.
            await wait_all_tasks_blocked()
