from pathlib import Path

import anyio
import pytest
from tests.kernel.conftest import OpenKernel
from tests.sdk.serving import served

from aios.config import Config, Home, MemoryConfig
from aios.errors import InvalidCall
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.sdk.client import connect
from aios.sdk.memory import Memory

pytestmark = pytest.mark.anyio

SMALL = Config(memory=MemoryConfig(block_bytes=10_000, max_interactions=500))


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


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
