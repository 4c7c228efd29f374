"""All the tools that come with the kernel, in the order of their names."""

from aios.config import ToolsConfig
from aios.kernel.clock import Clock
from aios.kernel.tools.builtin.ask_human import ask_human
from aios.kernel.tools.builtin.calculator import calculator
from aios.kernel.tools.builtin.clock import clock_tool
from aios.kernel.tools.builtin.code import python, shell
from aios.kernel.tools.builtin.files import files
from aios.kernel.tools.builtin.http_fetch import Fetcher, http_fetch
from aios.kernel.tools.builtin.memory import memory
from aios.kernel.tools.builtin.search_files import search_files
from aios.kernel.tools.builtin.spawn_agent import spawn_agent
from aios.kernel.tools.launcher import Launcher
from aios.kernel.tools.tool import Tool


def builtin_tools(clock: Clock, launcher: Launcher, config: ToolsConfig) -> list[Tool]:
    """Made anew for each kernel."""
    return [
        ask_human(),
        calculator(),
        clock_tool(clock),
        files(),
        http_fetch(Fetcher(config)),
        memory(),
        python(launcher),
        search_files(),
        shell(launcher),
        spawn_agent(),
    ]
