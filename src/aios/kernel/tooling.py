"""Building the tool manager: the tools of the kernel, of the manifests in its home, and of MCP servers."""

from typing import Protocol

from aios.config import Config, Home
from aios.disk.db import Database
from aios.kernel.egress.egress import Egress
from aios.kernel.gate import GateServices, LocalGate
from aios.kernel.lineage import home_of
from aios.kernel.sandbox.launch import Launcher
from aios.kernel.storage.manager import StorageManager
from aios.kernel.tools.builtin.catalogue import builtin_tools
from aios.kernel.tools.launcher import Launcher as ToolLauncher
from aios.kernel.tools.manager import ToolManager
from aios.kernel.tools.mcp.servers import Servers


class ToolServices(GateServices, Protocol):
    """What tools use of the kernel."""

    config: Config
    home: Home
    db: Database
    launcher: Launcher
    storage: StorageManager
    egress: Egress
    warnings: list[str]


def make_tools(kernel: ToolServices) -> ToolManager:
    """The tool manager; what was wrong with manifests and files of servers is among the kernel's warnings."""
    config = kernel.config
    launcher = ToolLauncher(
        kernel.launcher, kernel.storage.workspaces.watching, kernel.egress.open_way
    )
    servers = Servers(
        config.mcp,
        kernel.db,
        launcher=launcher,
        clock=kernel.clock,
        tasks=kernel.tasks,
        warn=kernel.warnings.append,
    )
    tools = ToolManager(
        kernel.table,
        kernel.access,
        kernel.clock,
        config.tools,
        make_gate=lambda run: LocalGate(kernel, run.process, run),
        home_of=lambda process: home_of(process.lineage),
        check_held=lambda process, call, effect: kernel.branches.check(process, call, effect),
        launcher=launcher,
        servers=servers,
        budgets=kernel.budgets,
    )
    tools.install(builtin_tools(kernel.clock, launcher, config.tools))
    kernel.warnings += tools.install_folder(kernel.home.tools) + servers.complaints
    return tools
