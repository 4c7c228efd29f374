"""What becomes of branches, and of what they started, when their group ends; on a kernel with a journal."""

import threading
from functools import partial
from pathlib import Path

import anyio
import apsw
import pytest
from tests.kernel.forking.test_branches import HELD, died, nothing_is_left
from tests.kernel.forking.test_forks import waiting
from tests.kernel.test_programs import ONCE, booted, home, program

from aios.abi.branches import Branched, BranchEnd
from aios.errors import Conflict, DiskFailed, NotFound
from aios.kernel import programs
from aios.kernel.forking import forks, merging, tables
from aios.kernel.forking.endings import Ending
from aios.kernel.kernel import Kernel
from aios.kernel.leftovers import code_hash
from aios.kernel.process import Run
from aios.sdk.client import Client

__all__ = ["home"]
pytestmark = pytest.mark.anyio


async def branched(home: Path, kernel: Kernel, client: Client, n: int) -> Branched:
    """A program that waits, and so many branches of it, which wait too."""
    source = (await client.spawn(program(home, HELD), restart=ONCE)).pid
    await waiting(kernel, source)
    fork = await client.branches.start(n, pid=source)
    for branch in fork.branches:
        await waiting(kernel, branch.pid)
    return fork


@pytest.mark.parametrize("is_nested", [False, True])
async def test_what_a_branch_was_about_to_start_as_its_group_ends_is_held_with_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, *, is_nested: bool
) -> None:
    is_hashed, moving = threading.Event(), list[str]()

    def hash_slowly(folder: str) -> bytes:
        assert is_hashed.wait(30)
        return code_hash(folder)

    async with booted(home) as (kernel, client):
        fork = await branched(home, kernel, client, 2)
        one, two = [each.pid for each in fork.branches]
        mine = Client(kernel.gate(one))

        async def start() -> None:
            if is_nested:
                await mine.branches.start(1)
            else:
                await mine.spawn(program(home, HELD), restart=ONCE)

        async def look(*_: object) -> BranchEnd:
            inside = [each for each in kernel.table if each.confines is not None]
            moving.extend(each.name for each in inside if each.is_alive and not each.is_stopped)
            assert len(inside) == 3
            raise Conflict("it does not fit", hint="")

        async def commit() -> None:
            with pytest.raises(Conflict, match="does not fit"):
                await client.branches.commit(pid=two)

        with monkeypatch.context() as patch:
            patch.setattr(forks if is_nested else programs, "code_hash", hash_slowly)
            patch.setattr(kernel.branches, "_decide", look)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(start)
                while kernel.table.get(one).is_quiet():
                    await anyio.sleep(0.01)
                tasks.start_soon(commit)
                while not kernel.table.get(one).is_stopped:
                    await anyio.sleep(0.01)
                is_hashed.set()
        assert moving == []
        await client.branches.discard(fork.group)


async def test_who_waits_for_the_ends_of_branches_hears_of_each_though_the_kernel_died_as_they_ended(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted(home) as (kernel, client):
        await client.mail.subscribe("child.exit")
        fork = await branched(home, kernel, client, 3)
        one, two, three = [each.pid for each in fork.branches]
        await Client(kernel.gate(two)).mail.send(1, "from a loser")
        await Client(kernel.gate(three)).exit(0, "gave up")
        monkeypatch.setattr(kernel.branches, "_bury", partial(died, kernel))
        with pytest.raises(DiskFailed, match="died"):
            await client.branches.commit("won", pid=one)
    monkeypatch.undo()
    async with booted(home) as (_, client):
        letters = (await client.mail.take()).letters
        assert {each.topic for each in letters} == {"child.exit"}
        assert sorted(each.sender for each in letters) == [one, two, three]


async def test_what_is_decided_is_carried_out_and_answered_though_the_disk_is_full_by_then(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted(home) as (kernel, client):
        fork = await branched(home, kernel, client, 2)
        one, two = [each.pid for each in fork.branches]
        decide = kernel.branches._decide

        def refuse(*_: object) -> None:
            raise apsw.FullError("no room")

        async def decide_and_fill(run: Run, ending: Ending) -> BranchEnd:
            end = await decide(run, ending)
            monkeypatch.setattr(merging, "erase_traces", refuse)
            monkeypatch.setattr(
                kernel.memory, "reindex", lambda _: kernel.db.write(lambda _: refuse())
            )
            return end

        monkeypatch.setattr(kernel.branches, "_decide", decide_and_fill)
        end = await client.branches.commit("won", pid=one)
        assert (end.winner, end.discarded) == (one, (two,))
        assert not any(kernel.table.get(pid).is_alive for pid in (one, two))
        said = [line.text for line in kernel.init.log.read(0)[0]]
        assert any("the next kernel" in text and "disk is full" in text for text in said)
    async with booted(home) as (_, client):  # which has no room either
        assert await client.branches.join(fork.group) == end
    monkeypatch.undo()
    async with booted(home) as (kernel, client):
        assert await client.branches.join(fork.group) == end
        await nothing_is_left(kernel, client, {two})


async def test_what_outlives_who_started_it_in_a_branch_ends_with_the_group(home: Path) -> None:
    async with booted(home) as (kernel, client):
        fork = await branched(home, kernel, client, 2)
        one, two = [each.pid for each in fork.branches]
        left = []
        for pid in (one, two):
            starter = await Client(kernel.gate(pid)).spawn(program(home, HELD), restart=ONCE)
            await waiting(kernel, starter.pid)
            of_it = await Client(kernel.gate(starter.pid)).spawn(program(home, HELD), restart=ONCE)
            await Client(kernel.gate(starter.pid)).exit(0, "")
            await client.wait(starter.pid)
            left.append(kernel.table.get(of_it.pid))
        await client.branches.commit(pid=two)
        assert [each.is_alive for each in left] == [False, False]


async def test_of_groups_that_have_ended_only_the_last_are_remembered(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_ENDED", 2)
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, HELD), restart=ONCE)).pid
        await waiting(kernel, source)
        groups = [(await client.branches.start(1, pid=source)).group for _ in range(5)]
        for group in groups[::-1]:
            end = await client.branches.discard(group)
            assert await client.branches.join(group) == end, "the last one is remembered"
        assert [each.group for each in await client.branches.list_all()] == groups[1::-1]
        with pytest.raises(NotFound):
            await client.branches.join(groups[-1])
        assert kernel.journal.disk is not None
        kept, _ = await kernel.journal.disk.read(tables.load)
        assert [each.id for each in kept] == groups[:2]
    async with booted(home) as (_, client):
        assert len(await client.branches.list_all()) == 2


@pytest.mark.parametrize("is_cut_off", [False, True])
async def test_what_branches_have_of_files_goes_in_parts_also_under_the_next_kernel(
    home: Path, monkeypatch: pytest.MonkeyPatch, *, is_cut_off: bool
) -> None:
    monkeypatch.setattr(merging, "MAX_ERASED", 2)
    async with booted(home) as (kernel, client):
        fork = await branched(home, kernel, client, 2)
        pids = {each.pid for each in fork.branches}
        for pid in pids:
            for number in range(3):
                await Client(kernel.gate(pid)).files.write("more.txt", f"{number}")
        if is_cut_off:
            monkeypatch.setattr(kernel.branches, "_erase", partial(died, kernel))
        await client.branches.discard(fork.group)
        if not is_cut_off:
            await nothing_is_left(kernel, client, pids)
            return
        db, _, _ = kernel.storage.parts
        query = "SELECT count(*) FROM versions WHERE path GLOB '/agents/agent-branch-*'"
        assert await db.read(lambda c: c.execute(query).get) > 2
    async with booted(home) as (kernel, client):
        await nothing_is_left(kernel, client, pids)
