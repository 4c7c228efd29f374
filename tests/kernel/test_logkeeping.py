"""Logs of programs under one kernel after another in this very interpreter."""

from pathlib import Path

import pytest
from tests.kernel.test_programs import ONCE, booted, home, program

from aios.kernel.kernel import Kernel
from aios.sdk.client import Client

__all__ = ["home"]
pytestmark = pytest.mark.anyio

TALKING = """\
    print("began", os.environ["KEY"], os.environ["AIOS_TOKEN"], flush=True)
    client.exit(0)
"""
WAITING = """\
    print("waits", flush=True)
    client.mail.receive()
"""
SECRET = "hunter2-hunter2"  # noqa: S105 - planted to be looked for


async def lines_of(client: Client, pid: int) -> list[str]:
    async with client.logs(pid) as lines:
        return [line.text async for line in lines]


async def until_said(kernel: Kernel, pid: int, text: str) -> None:
    log = next(process for process in kernel.table if process.pid == pid).log
    while not any(text in line.text for line in log.read(0)[0]):
        await log.wait_changed()


async def test_what_a_program_wrote_is_there_under_the_next_kernel_without_its_secrets(
    home: Path,
) -> None:
    async with booted(home) as (_kernel, client):
        env = {"KEY": SECRET}
        pid = (await client.spawn(program(home, TALKING), restart=ONCE, env=env)).pid
        await client.wait(pid)
        assert SECRET in (await lines_of(client, pid))[0]
    async with booted(home) as (_kernel, client):
        said = await lines_of(client, pid)
        assert said == ["began (hidden) (hidden)"]
        assert not any(SECRET in path.read_text() for path in (home / "logs").iterdir())


async def test_a_program_that_goes_on_has_one_log_over_all_kernels(home: Path) -> None:
    async with booted(home) as (kernel, client):
        pid = (await client.spawn(program(home, WAITING), restart=ONCE)).pid
        await until_said(kernel, pid, "waits")
    async with booted(home) as (kernel, client):
        await until_said(kernel, pid, "waits")
        said = await lines_of(client, pid)
        assert said.count("waits") == 2
        async with client.logs(pid, tail=len(said)) as lines:
            assert [line.text async for line in lines] == said
