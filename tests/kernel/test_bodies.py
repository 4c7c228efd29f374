"""What a program waits for between two lives, with real processes on a real database."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from tests.kernel.test_programs import booted, program, work

from aios.abi.recovery import Restart
from aios.abi.types import Pid
from aios.kernel.kernel import Kernel
from aios.kernel.sandbox.scratch import scratch_folder
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio
N_PAGES, N_SEARCHES = 6, 40
WRITING = f"""\
    from random import Random
    for number in range({N_SEARCHES}):
        client.memory.recall(Random(number).randbytes(1500).hex())
    client.memory.remember("done")
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_folder("b") as folder:
        yield folder


def limit(kernel: Kernel, n_pages: int) -> None:
    """How large the database may be."""
    assert kernel.db._writer is not None
    kernel.db._writer.pragma("max_page_count", n_pages)


async def begun(kernel: Kernel, client: Client, home: Path) -> Pid:
    """A program for whose note, and journal, the disk has no room; returns when it waits for that."""
    n_pages = int(str(await kernel.db.read(lambda c: c.pragma("page_count"))))
    limit(kernel, n_pages + N_PAGES)
    spawned = await client.spawn(
        program(home, WRITING), restart=Restart("on-failure", delay_s=0.1), cwd=work(home)
    )
    process = kernel.table.get(spawned.pid)
    while process.waits_for != "waits for the disk":
        assert process.is_alive, process.exit
        await anyio.sleep(0.02)
    return spawned.pid


async def test_a_program_that_a_full_disk_ended_goes_on_when_there_is_room(home: Path) -> None:
    async with booted(home) as (kernel, client):
        pid = await begun(kernel, client, home)
        limit(kernel, 1 << 20)
        assert (await client.wait(pid)).exit.status == 0
        assert [note.text async for note in client.memory.notes()] == ["done"]
        calls = Counter(each.call for each in (await client.journal.read(pid)).records)
        assert calls == {"recall": N_SEARCHES, "remember": 2}
        told = [line.text for line in kernel.table.get(pid).log.read(0)[0]]
        assert f"call {N_SEARCHES + 1} (remember) is made again" in told


async def test_a_program_that_waits_for_the_disk_can_be_killed(home: Path) -> None:
    async with booted(home) as (kernel, client):
        pid = await begun(kernel, client, home)
        await client.kill(pid)
        assert (await client.wait(pid)).exit.status == 137
        limit(kernel, 1 << 20)
