"""Kernels with MCP servers, for tests."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypedDict, Unpack

from tests.kernel.conftest import NOBODY

from aios.abi.mcp import McpCheck, McpServerInfo, McpToolList, McpTools, McpTrust
from aios.config import ApprovalsConfig, Config, Home, McpConfig
from aios.kernel.kernel import Kernel, open_kernel
from aios.mcpconfig import McpServer, McpToolTraits

PROGRAMS = Path(__file__).parent / "programs"


class Options(TypedDict, total=False):
    """What a server may do, and how it is used."""

    env: tuple[str, ...]
    write: tuple[str, ...]
    is_shared: bool
    timeout_s: float
    believes_hints: bool
    tools: dict[str, McpToolTraits]


def server(program: str, *args: str, **options: Unpack[Options]) -> McpServer:
    """A server over stdio by one of the programs."""
    read = (str(PROGRAMS), *map(str, sys.path[1:]))
    return McpServer(sys.executable, (str(PROGRAMS / program), *args), read=read, **options)


@asynccontextmanager
async def kernel_with(
    home: Path,
    *,
    files: tuple[str, ...] = (),
    knobs: McpConfig | None = None,
    approvals: ApprovalsConfig = NOBODY,
    **servers: McpServer,
) -> AsyncIterator[Kernel]:
    """A kernel with these servers; nobody is there to be asked about them, unless said otherwise."""
    start_s = knobs.start_timeout_s if knobs is not None else 30.0
    idle_s = knobs.idle_s if knobs is not None else 600.0
    config = McpConfig(files=files, servers=servers, start_timeout_s=start_s, idle_s=idle_s)
    async with open_kernel(
        Config(mcp=config, approvals=approvals), Home(home), engines={}
    ) as kernel:
        yield kernel
        kernel.check_invariants()


def write_file(folder: Path, **servers: dict[str, object]) -> str:
    """A `.mcp.json` with these servers."""
    file = folder / ".mcp.json"
    file.write_text(json.dumps({"mcpServers": servers}))
    return str(file)


async def check(kernel: Kernel, name: str) -> McpServerInfo:
    """Start a server now."""
    return (await kernel.init_gate().call(McpCheck(names=(name,)))).value.servers[0]


async def tools_of(kernel: Kernel, name: str) -> McpToolList:
    """The tools of a server."""
    return (await kernel.init_gate().call(McpTools(name=name))).value


async def trust(kernel: Kernel, name: str) -> McpToolList:
    """Say yes to what a server offers now."""
    digest = (await tools_of(kernel, name)).digest
    return (await kernel.init_gate().call(McpTrust(name=name, digest=digest))).value
