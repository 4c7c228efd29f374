"""What a program waits for between two lives, with real processes on a real database."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from tests.kernel.mail.test_post import idle
from tests.kernel.test_programs import booted, program, work

from aios.abi.recovery import Restart
from aios.abi.tools import Traits
from aios.abi.types import Pid
from aios.kernel.kernel import Kernel
from aios.kernel.process import INIT_PID, Process
from aios.kernel.sandbox.scratch import scratch_folder
from aios.kernel.tools.builtin.making import make
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job
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


async def waiting(kernel: Kernel, pid: Pid) -> None:
    """Return when a program waits for its next life."""
    process = kernel.table.get(pid)
    while process.waits_for != "starts again soon":
        assert process.is_alive, process.exit
        await anyio.sleep(0.02)


async def test_crashes_in_a_row_are_counted_over_the_ends_of_kernels(home: Path) -> None:
    async with booted(home) as (kernel, client):
        once = Restart("on-failure", max_restarts=1, delay_s=30.0)
        spawned = await client.spawn(program(home, "    os._exit(3)\n"), restart=once)
        await waiting(kernel, spawned.pid)
    async with booted(home) as (_, client):
        assert (await client.wait(spawned.pid)).exit.status == 3


async def test_crashes_are_counted_anew_once_a_program_ran_long_enough(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.bodies.STEADY_S", 0.1)
    source = """\
    if not Path("here").exists():
        Path("here").touch()
        os._exit(3)
    client.mail.receive()
"""
    async with booted(home) as (kernel, client):
        again = Restart("on-failure", max_restarts=1, delay_s=0.5)
        spawned = await client.spawn(program(home, source), restart=again, cwd=work(home))
        process = kernel.table.get(spawned.pid)
        await waiting(kernel, spawned.pid)
        assert n_crashes(kernel, process) == 1
        while n_crashes(kernel, process):
            await anyio.sleep(0.02)
        assert process.is_alive
        await client.kill(spawned.pid)


def n_crashes(kernel: Kernel, process: Process) -> int:
    """What the next kernel is told of them."""
    assert kernel.programs.residents is not None
    launched = kernel.programs.residents.row_of(process).launched
    assert launched is not None
    return launched.n_crashes


ALWAYS = """\
    client.files.append("/shared/runs.txt", ".")
    here = Path("lives")
    here.write_text(here.read_text() + "." if here.exists() else ".")
    if len(here.read_text()) > 1:
        client.mail.receive()
"""


async def received(kernel: Kernel, pid: Pid) -> None:
    """Return when a program waits for mail."""
    process = kernel.table.get(pid)
    while not any(run.name == "receive" for run in process.runs.values()):
        assert process.is_alive, process.exit
        await anyio.sleep(0.02)


async def test_a_new_life_is_journalled_behind_the_old_one_though_that_was_swept(
    home: Path,
) -> None:
    async with booted(home) as (kernel, client):
        always = Restart("always", delay_s=60.0)
        spawned = await client.spawn(program(home, ALWAYS), restart=always, cwd=work(home))
        await waiting(kernel, spawned.pid)
        assert kernel.journal.disk is not None
        assert await kernel.journal.disk.sweep(kernel._kept())
    for _ in range(2):  # a new life, and the same one again
        async with booted(home) as (kernel, client):
            await received(kernel, spawned.pid)
            assert await client.files.read("/shared/runs.txt") == b"..", "one of each life"


SLOW = """\
    if not Path("x").exists():
        Path("x").touch()
        client.tools.run("post")
    time.sleep(60)
"""


async def test_a_kill_between_two_lives_is_heeded(home: Path) -> None:
    """The program is gone, and a call of it still ends: whoever kills it then must not find it running again."""

    async def post(job: Job) -> Outcome:
        assert job.run.process.os_pid is not None
        os.kill(job.run.process.os_pid, signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)
        return Outcome("")

    async with booted(home) as (kernel, client):
        tool = make("post", "Post.", post, parameters={}, traits=Traits(effect="pure"))
        kernel.tools.install([tool])
        spawned = await client.spawn(
            program(home, SLOW), restart=Restart("always", delay_s=0.01), cwd=work(home)
        )
        process = kernel.table.get(spawned.pid)
        while process.os_pid is None:
            await anyio.sleep(0.01)
        while process.os_pid is not None:
            await anyio.sleep(0.01)
        with anyio.fail_after(30):
            await client.kill(spawned.pid)
        assert not process.is_alive


EXITING = """\
    client.files.append("/shared/lives.txt", ".")
    client.exit(0)
    time.sleep(60)
"""


async def exiting(kernel: Kernel, client: Client, home: Path, *, ppid: Pid = INIT_PID) -> Process:
    """A program that always starts again, and has just asked to exit."""
    always = Restart("always", delay_s=0.01)
    parent = Client(kernel.gate(ppid)) if ppid != INIT_PID else client
    spawned = await parent.spawn(program(home, EXITING), restart=always, cwd=work(home))
    process = kernel.table.get(spawned.pid)
    while process.exiting is None:
        await anyio.sleep(0.001)
    assert process.os_pid is not None
    return process


@pytest.mark.parametrize("is_of_tree", [True, False])
async def test_a_kill_reaches_a_program_that_exits_and_would_start_again(
    home: Path, is_of_tree: bool
) -> None:
    async with booted(home) as (kernel, client):
        top = kernel.spawn_task("top", idle)
        process = await exiting(kernel, client, home, ppid=top)
        with anyio.fail_after(30):
            await client.kill(top if is_of_tree else process.pid)
        assert not process.is_alive
        assert await client.files.read("/shared/lives.txt") == b".", "one life"


async def test_what_a_program_that_began_anew_had_started_ends_though_it_always_starts_again(
    home: Path,
) -> None:
    async with booted(home) as (kernel, client):
        top = kernel.spawn_task("top", idle)
        process = await exiting(kernel, client, home, ppid=top)
        with anyio.fail_after(30):
            await kernel.signals.end_children(kernel.table.get(top))
        assert not process.is_alive


async def test_a_program_that_exits_while_it_is_stopped_starts_again_stopped(home: Path) -> None:
    async with booted(home) as (kernel, client):
        process = await exiting(kernel, client, home)
        assert process.pid in await client.stop(process.pid)
        while process.exiting is not None or process.os_pid is None:
            assert process.is_alive
            await anyio.sleep(0.01)
        assert process.is_stopped
        await client.cont(process.pid)
        while process.exiting is None:
            await anyio.sleep(0.01)
        await client.kill(process.pid)
