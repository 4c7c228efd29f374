import json
from pathlib import Path

import anyio
import pytest
from tests.kernel.conftest import OpenKernel
from tests.kernel.tools.offering import idle, run_tool

from aios.errors import DeadlineExceeded, ToolFailed
from aios.kernel.sandbox.probe import Wall, Walls
from aios.kernel.sandbox.view import View

pytestmark = pytest.mark.anyio


async def test_a_command_line_is_run_and_its_status_and_output_come_back(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        with anyio.fail_after(30):
            ran = await run_tool(gate, "shell", command="echo hi | tr h H; echo no >&2; exit 3")
            assert json.loads(ran.text) == {"status": 3, "output": "Hi\n", "errors": "no\n"}
            ran = await run_tool(gate, "python", code="print(input()[::-1])", input="abc")
            assert json.loads(ran.text)["output"] == "cba\n"


async def test_it_works_in_the_callers_workspace_and_nowhere_else(
    booted: OpenKernel, tmp_path: Path
) -> None:
    work, other = tmp_path / "work", tmp_path / "other"
    work.mkdir()
    other.mkdir()
    (other / "secret").write_text("canary")
    async with booted() as kernel:
        pid = kernel.spawn_task("ann", idle)
        kernel.table.get(pid).view = View(work, (), (work,))
        with anyio.fail_after(30):
            command = f"pwd; echo made > made; cat {other}/secret; echo bad > {other}/new"
            ran = json.loads((await run_tool(kernel.gate(pid), "shell", command=command)).text)
    assert ran["output"] == f"{work}\n"
    assert "canary" not in ran["errors"]
    assert (work / "made").read_text() == "made\n"
    assert [path.name for path in other.iterdir()] == ["secret"]


async def test_a_caller_without_a_workspace_gets_an_empty_folder_each_time(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        with anyio.fail_after(30):
            for _ in range(2):
                ran = await run_tool(kernel.init_gate(), "shell", command="ls -A; touch left")
                assert json.loads(ran.text)["output"] == ""


async def test_there_is_no_network_and_no_other_process(booted: OpenKernel) -> None:
    source = (
        "import os, socket\n"
        "try: socket.create_connection(('127.0.0.1', 1), 1)\n"
        "except ConnectionRefusedError: print('refused')\n"
        "except OSError as e: print('closed')\n"
        "try: print(len([p for p in os.listdir('/proc') if p.isdigit()]) < 5)\n"
        "except OSError: print(True)\n"
    )
    async with booted() as kernel:
        with anyio.fail_after(30):
            ran = await run_tool(kernel.init_gate(), "python", code=source)
    lines = json.loads(ran.text)["output"].splitlines()
    assert lines[0] in ("closed", "refused")  # the namespace's own loopback has nobody on it
    assert lines[1] == "True"


async def test_too_much_output_and_too_long_a_run_are_faults(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.init_gate()
        with anyio.fail_after(30):
            with pytest.raises(ToolFailed, match="was ended"):
                await run_tool(gate, "shell", command="yes")
            kernel.tools._registry.get(kernel.init, "shell").traits = kernel.tools._registry.get(
                kernel.init, "shell"
            ).traits.__class__(effect="compensable", timeout_s=0.3)
            with pytest.raises((ToolFailed, DeadlineExceeded)):
                await run_tool(gate, "shell", command="sleep 60")


async def test_without_walls_no_code_is_run_unless_that_is_wanted(booted: OpenKernel) -> None:
    async with booted() as kernel:
        kernel.launcher._walls = Walls(Wall.NONE, missing=("nothing works here",))
        with anyio.fail_after(30), pytest.raises(ToolFailed, match="no sandbox"):
            await run_tool(kernel.init_gate(), "shell", command="true")
