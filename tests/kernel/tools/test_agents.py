from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.kernel.conftest import NOBODY, MakeProgram
from tests.kernel.tools.offering import run_tool

from aios.abi.calls import Ps
from aios.abi.tools import ToolRegister
from aios.config import Config, EngineConfig, Home, ServerConfig
from aios.configload import Loaded
from aios.errors import AccessDenied, ToolFailed
from aios.kernel.kernel import Kernel
from aios.kernel.sandbox.scratch import scratch_folder
from aios.server.daemon import open_server

pytestmark = pytest.mark.anyio

HELPER = """
import aios

def main(client: aios.blocking.Client, *, task: str) -> str:
    if task == "wait":
        client.mail.receive()
    if task == "fail":
        raise ValueError("cannot")
    return f"{task} by {client.getpid().name}"

aios.run(main)
"""


@asynccontextmanager
async def serving() -> AsyncIterator[Kernel]:
    config = Config(
        engine=EngineConfig(kind="scripted"), server=ServerConfig(port=0), approvals=NOBODY
    )
    with scratch_folder("t") as root:
        loaded = Loaded(config, Home(root), root / "config.toml")
        async with open_server(loaded, http=False) as kernel:
            yield kernel
            kernel.check_invariants()


async def test_an_agent_is_a_tool_and_its_result_the_tools(
    program: MakeProgram, tmp_path: Path
) -> None:
    folder = program(HELPER, name="helper")
    manifest = tmp_path / "helper.toml"
    manifest.write_text(
        'name = "team/helper"\ndescription = "d"\nprogram = "helper"\ncommand = ["--task={task}"]\n'
        '[parameters]\ntype = "object"\nproperties.task = { type = "string" }\nrequired = ["task"]\n'
        "[traits]\ntimeout_s = 3.0\n"
    )
    async with serving() as kernel:
        gate = kernel.init_gate()
        with anyio.fail_after(30):
            await gate.call(ToolRegister(manifests=(str(manifest),)))
            assert (await run_tool(gate, "team/helper", task="count")).text == "count by helper"
            result = await run_tool(gate, "spawn_agent", program=folder, args=["--task", "sing"])
            assert result.text == "sing by helper"
            with pytest.raises(ToolFailed, match="status 1"):
                await run_tool(gate, "team/helper", task="fail")
            with pytest.raises(ToolFailed, match="3 s"):
                await run_tool(gate, "team/helper", task="wait")
            alive = (await gate.call(Ps())).value.processes
            assert [row.name for row in alive] == ["init"], "a child that nobody waits for is ended"


async def test_a_guest_may_not_spawn_through_a_tool(program: MakeProgram) -> None:
    folder = program(HELPER, name="helper")
    async with serving() as kernel:
        guest = kernel.gate(kernel.admit("guest")[0].pid)
        with pytest.raises(AccessDenied):
            await run_tool(guest, "spawn_agent", program=folder)
