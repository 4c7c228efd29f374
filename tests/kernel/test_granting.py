"""What is granted to a program counts for a life of it, and for no other code."""

from pathlib import Path

import anyio
import pytest
from tests.kernel.test_programs import booted

from aios.abi.types import Pid
from aios.kernel.kernel import Kernel

pytestmark = pytest.mark.anyio

WISH = "tool.run Tool::base/fire"
MANIFEST = 'name = "watch"\n[restart]\npolicy = "always"\ndelay_s = 0.01\n'
MAIN = """\
import os, time
from aios.sdk.blocking import connect

with connect() as client:
    client.log("begun")
    while not os.path.exists("go"):
        time.sleep(0.01)
    os.rename("go", "gone")
"""


async def begun(kernel: Kernel, pid: Pid, n_lives: int) -> tuple[str, ...]:
    """What is granted to a process once it has begun so many lives."""
    process = kernel.table.get(pid)
    while [line.text for line in process.log.read(0)[0]].count("begun") < n_lives:
        await anyio.sleep(0.01)
    return process.bounds[-1].granted


async def test_other_code_that_asks_for_nothing_keeps_nothing_of_a_grant(tmp_path: Path) -> None:
    home, work, folder = tmp_path / "home", tmp_path / "work", tmp_path / "watch"
    for place in (home, work, folder):
        place.mkdir()
    (folder / "agent.toml").write_text(f'rights = ["{WISH}"]\n{MANIFEST}')
    (folder / "main.py").write_text(MAIN)
    async with booted(home) as (kernel, client):
        kernel.grants.grant(folder, (WISH,), 1.0)
        with anyio.fail_after(30):
            pid = (await client.spawn(str(folder), cwd=str(work))).pid
            assert await begun(kernel, pid, 1) == (WISH,)
            (folder / "agent.toml").write_text(MANIFEST)
            (folder / "main.py").write_text(MAIN + "    # and something evil\n")
            (work / "go").touch()
            assert await begun(kernel, pid, 2) == ()
        await client.kill(pid)
