import os
import threading

import anyio
import anyio.from_thread
import apsw
import pytest
from tests.kernel.conftest import OpenKernel
from tests.kernel.tools.offering import idle

from aios.abi.calls import Cont, Stop
from aios.abi.storage import Changes, FileVersion, Put
from aios.errors import NotFound
from aios.kernel.storage import changes, tables
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


async def test_a_follower_gets_the_state_that_each_path_came_to(booted: OpenKernel) -> None:
    async with booted() as kernel:
        files, stream = Files(kernel.init_gate()), kernel.storage.changes
        assert await stream.last() == 0
        for text in ("1", "22", "333"):
            await files.write("/shared/a", text)
        await files.write("/shared/b", "b")
        await files.delete("/shared/b")
        found = await stream.newest(0)
        assert [(c.change, c.path, c.version, c.size_bytes) for c in found] == [
            (3, "/shared/a", 3, 3),
            (5, "/shared/b", 2, None),
        ]
        assert {c.author for c in found} == {"/"}
        assert await stream.existing(["/shared/a", "/shared/b"]) == {"/shared/a"}
        assert await stream.read("/shared/a", 2, range(1, 9)) == b"2"
        with pytest.raises(NotFound):
            await stream.read("/shared/b", 2, range(9))
        assert await stream.newest(await stream.last()) == []


async def test_changes_are_counted_where_they_are_however_many_come_before(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        files, stream = Files(kernel.init_gate()), kernel.storage.changes
        for number in range(5):
            await files.write(f"/shared/a/{number}", "a")
        await files.write("/shared/b", "b")
        await files.write("/shared/b", "b again")
        await files.write("/groups/owner/c", "c")
        assert await stream.count_newest(0, ["/"], limit=3) == 3
        assert await stream.count_newest(0, ["/"], limit=100) == 7
        assert await stream.count_newest(0, ["/shared/b", "/groups"], limit=2) == 2
        assert await stream.count_newest(6, ["/shared"], limit=2) == 1
        assert await stream.count_newest(0, ["/shared/c"], limit=2) == 0
        assert await stream.count_newest(0, [], limit=2) == 0


async def test_a_follower_goes_on_page_by_page_and_misses_nothing(booted: OpenKernel) -> None:
    async with booted() as kernel:
        files, stream = Files(kernel.init_gate()), kernel.storage.changes
        for number in range(7):
            await files.write(f"/shared/{number}", "x")
        cursor, seen = 0, []
        while page := await stream.newest(cursor, limit=2):
            seen += [each.path for each in page]
            cursor = page[-1].change
        assert seen == [f"/shared/{number}" for number in range(7)]


async def test_who_waits_is_woken_by_a_change_and_not_by_a_purge(booted: OpenKernel) -> None:
    async with booted() as kernel:
        files, stream = Files(kernel.init_gate()), kernel.storage.changes
        await files.write("/shared/a", "1")
        await files.write("/shared/a", "2")
        last = await stream.last()
        found: list[str] = []

        async def follow() -> None:
            found.extend(each.path for each in await stream.wait_newest(last))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                await anyio.wait_all_tasks_blocked()
                await files.purge("/shared/a")
                assert not found
                await files.write("/shared/b", "b")
        assert found == ["/shared/b"]


async def test_who_watches_looks_at_each_change_elsewhere_once_and_at_a_few_in_one_step(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MAX_CHANGES", 100)
    looked, look = list[int](), tables.changes_since

    def changes_since(
        connection: apsw.Connection, path: str, since: int, limit: int
    ) -> tuple[list[FileVersion], int, bool]:
        looked.append(since)
        return look(connection, path, since, limit)

    monkeypatch.setattr(changes, "changes_since", changes_since)
    async with booted() as kernel:
        files = Files(kernel.init_gate())
        await files.write("/shared/mine/a", "old")
        for _ in range(2):
            await files.edit([Put(f"/shared/{number}", os.urandom(4)) for number in range(450)])
        first = await files.watch("/shared/mine", since=0, is_waiting=False)
        assert [each.path for each in first.versions] == ["/shared/mine/a"]
        rest = await files.watch("/shared/mine", since=first.next, is_waiting=False)
        assert (rest.versions, rest.next) == ((), 901)
        assert looked == [0, *range(100, 901, 100)]
        looked.clear()
        found: list[Changes] = []

        async def watch() -> None:
            found.append(await files.watch("/shared/mine", since=rest.next))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch)
                for number in range(3):
                    await anyio.wait_all_tasks_blocked()
                    await files.write("/shared/elsewhere", str(number))
                await anyio.wait_all_tasks_blocked()
                await files.write("/shared/mine/a", "new")
        assert list(dict.fromkeys(looked)) == [901, 902, 903, 904]
        assert found[0].next == 905


async def test_who_is_far_behind_looks_beside_the_event_loop_and_can_be_stopped_meanwhile(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MAX_CHANGES", 100)
    looked, look = list[int](), tables.changes_since
    is_begun, (ended, end) = anyio.Event(), os.pipe()

    def changes_since(
        connection: apsw.Connection, path: str, since: int, limit: int
    ) -> tuple[list[FileVersion], int, bool]:
        assert (threading.current_thread() is threading.main_thread()) == (since == 900)
        looked.append(since)
        if len(looked) == 1:
            anyio.from_thread.run_sync(is_begun.set)
            os.read(ended, 1)
        return look(connection, path, since, limit)

    with anyio.fail_after(60):
        async with booted() as kernel, anyio.create_task_group() as tasks:
            gate, bob = kernel.init_gate(), kernel.spawn_task("bob", idle)
            await Files(gate).edit(
                [Put(f"/shared/{number}", os.urandom(4)) for number in range(900)]
            )
            monkeypatch.setattr(changes, "changes_since", changes_since)
            watching = Files(kernel.gate(bob)).watch("/shared/none", since=0, is_waiting=False)
            found: list[Changes] = []

            async def watch() -> None:
                found.append(await watching)

            tasks.start_soon(watch)
            await is_begun.wait()
            tasks.start_soon(gate.call, Stop(pid=bob))
            await anyio.wait_all_tasks_blocked()
            os.write(end, b".")
            while not next(iter(kernel.table.get(bob).runs.values())).is_parked:
                await anyio.sleep(0.01)
            assert looked == [0]
            await gate.call(Cont(pid=bob))
            while not found:
                await anyio.sleep(0.01)
            assert (found[0].versions, found[0].next) == ((), 900)
            assert looked == list(range(0, 901, 100))
    os.close(ended)
    os.close(end)
