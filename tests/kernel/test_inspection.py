import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from tests.kernel.calls import chat
from tests.kernel.conftest import OpenKernel

from aios.abi.calls import Chat, Ps
from aios.abi.gate import in_course_of
from aios.abi.journal import JournalRead
from aios.abi.pages import Pages
from aios.abi.types import Message, Pid, Role
from aios.abi.undo import Undo
from aios.config import Config, EngineConfig, Home, KernelConfig
from aios.engine.models import find_model
from aios.engine.scripted import ScriptedEngine
from aios.errors import AccessDenied, DeadlineExceeded, NotFound
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.replay import Replay
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


MEBIBYTE = 1 << 20
N_CHATS = 120


def long_chat(number: int, first: str) -> Chat:
    """One that fails, and says so in more than a row of the journal takes."""
    said = (Message(Role.USER, first), Message(Role.USER, str(number)))
    return Chat(messages=said, model="nope" * 100)


async def read(kernel: Kernel, pid: Pid) -> None:
    """All pages of its journal."""
    gate, after, n_records = kernel.gate(pid), 0, 0
    while n_records < N_CHATS:
        page = (await gate.call(JournalRead(pid, after, limit=9_999, is_full=True))).value
        assert all(each.answer["code"] == "not_found" for each in page.records)
        n_records += len(page.records)
        after = page.next_seq or 0


async def undo(kernel: Kernel, pid: Pid) -> None:
    undone = (await kernel.gate(pid).call(Undo(pid, is_dry_run=True))).value
    assert undone.cannot == ()


async def run_again(kernel: Kernel, pid: Pid) -> None:
    """Its last call, from a journal that is ready to answer them all."""
    disk, process = kernel.journal.disk, kernel.table.get(pid)
    assert disk is not None
    process.replay = Replay(await disk.load(pid))
    with pytest.raises(NotFound, match="nopenope"):
        await kernel.gate(pid).call(long_chat(N_CHATS - 1, "z" * MEBIBYTE))
    assert (process.replay.n_left, process.replay.n_replayed) == (N_CHATS - 1, 1)


@pytest.mark.parametrize("is_same", [True, False])
@pytest.mark.parametrize("look", [read, undo, run_again])
async def test_a_journal_of_large_calls_takes_little_memory_whoever_looks_at_it(
    tmp_path: Path, look: Callable[[Kernel, Pid], Awaitable[None]], is_same: bool
) -> None:
    async with open_kernel(
        Config(), Home(tmp_path), engines={"a": ScriptedEngine()}, is_durable=True
    ) as kernel:
        pid = kernel.spawn_task("agent", idle)
        for number in range(N_CHATS):
            is_last = number == N_CHATS - 1
            first = "z" * MEBIBYTE if is_same or is_last else f"{number} " * (MEBIBYTE // 3)
            with pytest.raises(NotFound):
                await kernel.gate(pid).call(long_chat(number, first))
        tracemalloc.start()
        try:
            await look(kernel, pid)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 80 * MEBIBYTE, "which the model of the file index may take 50 of"
        kernel.table.get(pid).end_replay()


@pytest.mark.model
async def test_a_process_shows_where_its_pages_are_and_which_others_share(
    tmp_path: Path,
) -> None:
    config = Config(engine=EngineConfig(model=str(find_model("")), n_slots=2, n_threads=1))
    with anyio.fail_after(60):
        async with open_kernel(config, Home(tmp_path)) as kernel:
            head = "You are an agent. Follow the rules. " * 12
            guests = [kernel.admit(name)[0] for name in ("alice", "bob")]
            for guest in guests:
                await kernel.gate(guest.pid).call(chat(head + guest.name, max_tokens=2))
            rows = (await kernel.init_gate().call(Ps())).value.processes
            for row in rows[1:]:
                assert row.pages is not None
                assert row.pages.n_pages >= 3
                assert row.pages.n_in_memory == row.pages.n_pages
                assert row.pages.n_shared >= 3
            assert rows[0].pages is None, "init has asked nothing"
            [store] = (await kernel.init_gate().call(Pages())).value.stores
            assert store.n_resident >= 3
            assert store.page_tokens == 32
