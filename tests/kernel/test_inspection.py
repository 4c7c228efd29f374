import anyio
import pytest
from tests.kernel.conftest import OpenKernel

from aios.abi.gate import in_course_of
from aios.abi.types import Pid
from aios.config import KernelConfig
from aios.errors import AccessDenied, DeadlineExceeded, NotFound
from aios.kernel.gate import LocalGate
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


async def test_a_process_reads_its_own_journal_and_its_childrens_but_no_others(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        parent = kernel.spawn_task("parent", idle)
        child = kernel.spawn_task("child", idle, ppid=parent)
        other = kernel.spawn_task("other", idle)
        await Client(kernel.gate(child)).getpid()
        client = Client(kernel.gate(parent))
        page = await client.journal.read(child)
        assert [record.call for record in page.records] == ["getpid"]
        assert (page.next_seq, page.is_on_disk) == (None, False)
        for refused in (client.journal.read(other), client.journal.events(pid=other)):
            with pytest.raises(AccessDenied):
                await refused
        with pytest.raises(NotFound):
            await client.journal.read(99)


async def test_pages_follow_on_each_other_and_a_negative_number_counts_from_the_end(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        client = Client(kernel.gate(kernel.spawn_task("agent", idle)))
        for _ in range(10):
            await client.getpid()
        me = (await client.getpid()).pid
        owner = Client(kernel.init_gate()).journal
        seen: list[int] = []
        after: int | None = 0
        while after is not None:
            page = await owner.read(me, after=after, limit=4)
            seen += [record.seq for record in page.records]
            after = page.next_seq
        assert seen == list(range(1, 12))
        last = await owner.read(me, after=-3)
        assert [record.seq for record in last.records] == [9, 10, 11]


async def test_what_a_function_asked_names_the_call_that_it_ran_for(booted: OpenKernel) -> None:
    async with booted() as kernel:
        client = Client(kernel.gate(kernel.spawn_task("agent", idle)))
        with in_course_of(1700):
            me = (await client.getpid()).pid
            await client.log("said in it")
        await client.log("said")
        found = (await Client(kernel.init_gate()).journal.read(me)).records
        assert [record.job for record in found] == [1700, 1700, 0]


async def test_a_watcher_sees_only_what_it_may_and_waits_for_more(booted: OpenKernel) -> None:
    async with booted() as kernel:
        watcher = Client(kernel.gate(kernel.spawn_task("watcher", idle)))
        other = Client(kernel.gate(kernel.spawn_task("other", idle)))
        await other.getpid()
        with pytest.raises(DeadlineExceeded):
            await watcher.journal.events(after=0, deadline_s=0.01)
        await watcher.getpid()
        with anyio.fail_after(30):
            found = await watcher.journal.events(after=0)
        assert [event.what for event in found.events] == ["getpid"]
        owner = Client(kernel.init_gate())
        found = await owner.journal.events(after=0)
        assert [event.pid for event in found.events if event.what == "getpid"] == [
            Pid(3),
            Pid(2),
        ]


async def test_a_slow_watcher_is_told_what_it_missed(booted: OpenKernel) -> None:
    async with booted(limits=KernelConfig(max_journal_records=10)) as kernel:
        owner = Client(kernel.init_gate())
        for _ in range(30):
            await owner.getpid()
        found = await owner.journal.events(after=5, is_waiting=False)
        assert (len(found.events), found.n_missed, found.last) == (10, 15, 30)
