from pathlib import Path

import anyio
import pytest
from tests.kernel.conftest import OpenKernel
from tests.sdk.serving import served

from aios.abi.interactions import MAX_RECORD_CHARS, Interactions
from aios.abi.taint import Taint
from aios.abi.types import Pid, Right
from aios.config import Config, Home, MemoryConfig
from aios.errors import AccessDenied, InvalidCall, NotFound, ProcessGone
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.memory import interactions
from aios.kernel.taint import mark
from aios.sdk.client import Client, connect
from aios.sdk.memory import Memory

pytestmark = pytest.mark.anyio

SMALL = Config(memory=MemoryConfig(block_bytes=10_000, max_interactions=500))


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


def texts(read: Interactions) -> list[str]:
    return [each.text for each in read.records]


async def end(kernel: Kernel, pid: Pid) -> None:
    owner = Client(kernel.init_gate())
    await owner.kill(pid)
    await owner.wait(pid)


def agent(kernel: Kernel, name: str) -> Memory:
    return Memory(kernel.gate(kernel.spawn_task(name, idle)))


async def test_records_come_back_in_order_and_are_nobody_elses(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann, bob = agent(kernel, "ann"), agent(kernel, "bob")
        assert (await ann.read()).records == ()
        for number in range(1, 11):
            assert await ann.log(f"line {number}", "got") == number
        assert await bob.log("mine") == 1
        assert [each.id for each in (await ann.read(limit=3)).records] == [8, 9, 10]
        assert [each.id for each in (await ann.read(4, limit=2)).records] == [4, 5]
        assert (await ann.read(11)).records == ()
        record = (await ann.read(2)).records[0]
        assert (record.kind, record.text) == ("got", "line 2")
        assert [each.text for each in (await bob.read(limit=100)).records] == ["mine"]
        assert (await ann.stat()).n_faults == 0


async def test_the_owner_reads_the_records_of_any_process_and_leaves_its_block_alone(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        pid = kernel.spawn_task("ann", idle)
        ann, owner = Memory(kernel.gate(pid)), Memory(kernel.init_gate())
        assert (await owner.read(pid=pid, limit=9)).records == ()
        for number in range(1, 6):
            await ann.log(f"line {number}", "got")
        await owner.log("mine")
        before = await ann.stat()
        read = await owner.read(pid=pid, limit=2)
        assert [(each.id, each.kind, each.text) for each in read.records] == [
            (4, "got", "line 4"),
            (5, "got", "line 5"),
        ]
        assert read.n_faults == 0
        assert texts(await owner.read(2, limit=3, pid=pid)) == ["line 2", "line 3", "line 4"]
        assert (await owner.read(6, limit=3, pid=pid)).records == ()
        assert (await owner.read((1 << 63) - 1, pid=pid)).records == ()
        assert await owner.stat(pid=pid) == await ann.stat(pid=pid) == await ann.stat() == before
        assert (
            texts(await owner.read(limit=9)) == texts(await owner.read(limit=9, pid=1)) == ["mine"]
        )
        await end(kernel, pid)
        again = agent(kernel, "ann")
        await again.log("line 6")
        assert texts(await owner.read(limit=9, pid=pid)) == [f"line {n}" for n in range(1, 7)]
        ended = await owner.stat(pid=pid)
        assert (ended.n_records, ended.n_in_memory, ended.size_bytes) == (6, 0, 0)
        with pytest.raises(NotFound):
            await owner.read(pid=99)
        with pytest.raises(InvalidCall):
            await owner.read(1 << 63, pid=pid)


async def test_a_parent_reads_what_its_child_has_logged_and_nothing_else_of_that_name(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        first = kernel.spawn_task("ann", idle)
        await Memory(kernel.gate(first)).log("secret of an agent of that name")
        await end(kernel, first)
        parent, other = kernel.spawn_task("parent", idle), agent(kernel, "other")
        above = Memory(kernel.gate(parent))
        child = kernel.spawn_task("ann", idle, ppid=parent)
        below = Memory(kernel.gate(child))
        assert (await below.read()).records == ()
        assert (await above.read(limit=9, pid=child)).records == ()
        for number in range(3):
            await below.log(f"line {number}")
        await end(kernel, child)
        later = kernel.spawn_task("ann", idle, ppid=parent)
        assert texts(await Memory(kernel.gate(later)).read(limit=9)) == [
            "line 0",
            "line 1",
            "line 2",
        ]
        await Memory(kernel.gate(later)).log("a later life")
        await end(kernel, later)
        namesake = agent(kernel, "ann")
        assert texts(await namesake.read(limit=9)) == ["secret of an agent of that name"]
        await namesake.log("more of it")
        assert texts(await above.read(limit=9, pid=child)) == ["line 0", "line 1", "line 2"]
        assert texts(await above.read(limit=2, pid=child)) == ["line 1", "line 2"]
        assert texts(await above.read(1, limit=2, pid=child)) == ["line 0", "line 1"]
        assert (await above.stat(pid=child)).n_records == 3
        for stranger in (other, below):
            for pid in (parent, child, first, 1):
                with pytest.raises((AccessDenied, ProcessGone)):
                    await stranger.read(limit=9, pid=pid)
                with pytest.raises((AccessDenied, ProcessGone)):
                    await stranger.stat(pid=pid)


@pytest.mark.parametrize("right", [Right.SEE, Right.MEMORY_READ])
async def test_reading_another_takes_the_right_to_see_it_and_the_right_to_read_memory(
    booted: OpenKernel, right: Right
) -> None:
    async with booted() as kernel:
        parent = kernel.spawn_task("parent", idle)
        child = kernel.spawn_task("ann", idle, ppid=parent)
        await Memory(kernel.gate(child)).log("hello")
        process, above = kernel.table.get(parent), Memory(kernel.gate(parent))
        assert texts(await above.read(pid=child)) == ["hello"]
        process.rights -= {right}
        for ask in (above.read, above.stat):
            with pytest.raises(AccessDenied, match=right.value):
                await ask(pid=child)
        if right is Right.SEE:
            assert (await above.read(pid=parent)).records == ()
            assert (await above.stat(pid=parent)).n_records == 0


async def test_records_that_are_shown_of_another_bring_their_taint(booted: OpenKernel) -> None:
    async with booted() as kernel:
        parent = kernel.spawn_task("parent", idle)
        child = kernel.spawn_task("ann", idle, ppid=parent)
        above, below = Memory(kernel.gate(parent)), Memory(kernel.gate(child))
        await below.log("clean")
        mark(kernel.table.get(child), "tool web")
        await below.log("from outside")
        await above.read(1, pid=child)
        assert kernel.table.get(parent).taint is None
        await above.read(2, pid=child)
        assert kernel.table.get(parent).taint == Taint("tool web", "record 2", seq=2)


async def test_a_long_log_stays_inside_its_block_and_faults_are_counted(tmp_path: Path) -> None:
    async with open_kernel(SMALL, Home(tmp_path), engines={}) as kernel:
        memory = agent(kernel, "ann")
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(memory.log, f"{number} " + "x" * 100)
        stat = await memory.stat()
        assert stat.n_records == 200
        assert 0 < stat.n_in_memory < 30
        assert stat.size_bytes <= 8_000
        read = await memory.read(1, limit=5)
        assert (len(read.records), read.n_faults) == (5, 5)
        assert (await memory.read(1, limit=5)).n_faults == 0
        mixed = await memory.read(3, limit=10)
        assert [each.id for each in mixed.records] == list(range(3, 13))
        assert mixed.n_faults == 7
        assert (await memory.stat()).n_faults == 12
        kernel.check_invariants()


async def test_long_records_are_read_in_as_many_answers_as_they_need(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interactions, "PAGE_BYTES", 100)
    async with booted() as kernel:
        parent = kernel.spawn_task("parent", idle)
        child = kernel.spawn_task("ann", idle, ppid=parent)
        ann = Memory(kernel.gate(child))
        for number in range(9):
            await ann.log(f"{number}" + "\N{BUG}" * 10)  # 41 bytes
        for memory, pid in ((ann, None), (Memory(kernel.gate(parent)), child)):
            newest = await memory.read(limit=9, pid=pid)
            assert [each.id for each in newest.records] == [7, 8, 9]
            found, first = list[int](), 1
            while page := (await memory.read(first, limit=9, pid=pid)).records:
                assert len(page) <= 3
                found += [each.id for each in page]
                first = found[-1] + 1
            assert found == list(range(1, 10))
            assert len((await memory.read(1, limit=2, pid=pid)).records) == 2
        assert (await ann.stat()).n_reads == 3 + 9 + 2, "no more is looked for than is shown"


async def test_records_that_are_longer_than_a_packet_are_read_over_a_socket() -> None:
    text = "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * MAX_RECORD_CHARS  # 128 KiB
    with anyio.fail_after(120):
        async with served() as kernel, connect(kernel.urls[0], kernel.owner_token) as client:
            async with anyio.create_task_group() as tasks:
                for _ in range(600):
                    tasks.start_soon(client.memory.log, text)
            for first, ids in ((1, range(1, 33)), (None, range(569, 601))):
                read = await client.memory.read(first, limit=1_000)
                assert [each.id for each in read.records] == list(ids)


async def test_records_survive_a_restart_and_the_oldest_go(tmp_path: Path) -> None:
    async with open_kernel(SMALL, Home(tmp_path), engines={}) as kernel:
        memory = Memory(kernel.init_gate())
        async with anyio.create_task_group() as tasks:
            for number in range(510):
                tasks.start_soon(memory.log, str(number))
    async with open_kernel(SMALL, Home(tmp_path), engines={}) as kernel:
        memory = Memory(kernel.init_gate())
        assert (await memory.stat()).n_records == 500
        read = await memory.read(1, limit=1)
        assert [each.id for each in read.records] == [11]
        assert read.n_faults == 1
        assert await memory.log("next") == 511


async def test_a_process_has_a_block_of_its_own_size_and_ps_shows_its_faults() -> None:
    source = """
import aios

def main(client: aios.blocking.Client) -> str:
    for number in range(60):
        client.memory.log(f"{number} " + "x" * 200)
    stat = client.memory.stat()
    client.memory.read(1, limit=5)
    return f"{stat.max_bytes} {stat.size_bytes}"

aios.run(main)
"""
    with anyio.fail_after(30):
        async with served() as kernel, connect(kernel.urls[0], kernel.owner_token) as client:
            folder = kernel.home.root / "prog"
            folder.mkdir()
            (folder / "main.py").write_text(source)
            for manifest, option, expected in (
                ("block_bytes = 8192", None, 8192),
                ("block_bytes = 8192", 16384, 16384),
                ('block_bytes = "8KiB"', None, 8192),
                ("", None, 1 << 20),
            ):
                (folder / "agent.toml").write_text(f'name = "prog"\n{manifest}\n')
                child = await client.spawn(folder, block_bytes=option)
                end = (await client.wait(child.pid)).exit
                max_bytes, size_bytes = map(int, end.result.split())
                assert max_bytes == expected
                assert size_bytes <= expected
                rows = await client.ps(include_ended=True)
                row = next(row for row in rows if row.pid == child.pid)
                assert row.n_block_faults == 5, (
                    "the first records have left it, or are of an earlier process"
                )
            with pytest.raises(InvalidCall, match="block_bytes"):
                await client.spawn(folder, block_bytes=10)
