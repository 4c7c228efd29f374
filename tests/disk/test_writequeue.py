from collections.abc import Sequence

import anyio
import anyio.lowlevel
import apsw
import pytest

from aios.disk.commit import Job
from aios.disk.writequeue import MAX_GROUP, MAX_URGENT, Place, WriteQueue

pytestmark = pytest.mark.anyio


class Disk:
    """Takes groups when it is let; writes nothing."""

    def __init__(self) -> None:
        self.groups: list[list[Job[object]]] = []
        self.free = anyio.Event()
        self.most = MAX_GROUP
        self.queue = WriteQueue(anyio.Lock(), self.commit)

    async def commit(self, group: Sequence[Job[object]]) -> list[Job[object]]:
        self.groups.append(list(group))
        await self.free.wait()
        for job in group[: self.most]:
            job.is_done = True
        return [job for job in group[: self.most] if job.is_owed] + list(group[self.most :])

    def place(self, *, is_urgent: bool = False) -> Place[str]:
        place = Place(self.queue, nothing)
        self.queue.add(place, is_urgent=is_urgent)
        return place


def nothing(_: apsw.Connection) -> str:
    return ""


async def test_a_group_is_the_oldest_writes_and_no_more_than_its_limit() -> None:
    disk = Disk()
    disk.free.set()
    places = [disk.place() for _ in range(2 * MAX_GROUP + 1)]
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for place in reversed(places):
                tasks.start_soon(disk.queue.wait_done, place)
    assert [len(group) for group in disk.groups] == [MAX_GROUP, MAX_GROUP, 1]
    assert [place for group in disk.groups for place in group] == places


async def test_a_write_that_is_held_back_is_not_written_and_delays_nobody() -> None:
    disk = Disk()
    disk.free.set()
    first, second = disk.place(), disk.place()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            assert first.hold(True)
            assert first.hold(True)  # twice is once
            tasks.start_soon(disk.queue.wait_done, first)
            await disk.queue.wait_done(second)
            await anyio.wait_all_tasks_blocked()
            assert disk.groups == [[second]]
            assert not first.hold(False)
    assert disk.groups == [[second], [first]]


async def test_the_one_that_was_to_lead_is_held_back_and_the_next_leads() -> None:
    disk = Disk()
    first, second, third = disk.place(), disk.place(), disk.place()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(disk.queue.wait_done, first)
            await anyio.wait_all_tasks_blocked()  # it leads, and has taken all
            fourth, fifth = disk.place(), disk.place()
            tasks.start_soon(disk.queue.wait_done, fourth)
            tasks.start_soon(disk.queue.wait_done, fifth)
            await anyio.wait_all_tasks_blocked()
            assert fourth.hold(True)
            disk.free.set()
            await disk.queue.wait_done(fifth)
            assert second.is_done
            assert third.is_done
            fourth.hold(False)
    assert [len(group) for group in disk.groups] == [3, 1, 1]


async def test_what_is_being_written_cannot_be_held_back_and_is_waited_for() -> None:
    disk = Disk()
    place = disk.place()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(disk.queue.wait_done, place)
            await anyio.wait_all_tasks_blocked()
            assert not place.hold(True)
            tasks.start_soon(disk.queue.leave, place)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
            await anyio.lowlevel.cancel_shielded_checkpoint()
            assert not place.is_done
            disk.free.set()
    assert place.is_done


async def test_a_held_write_that_nobody_wants_any_more_is_never_written() -> None:
    disk = Disk()
    place = disk.place()
    with anyio.fail_after(30):
        assert place.hold(True)
        await disk.queue.leave(place)
        assert not disk.queue.withdraw(place)
    assert disk.groups == []


async def test_what_is_owed_goes_before_all_that_came_meanwhile() -> None:
    disk = Disk()
    disk.free.set()
    owed = Job(nothing, is_owed=True)
    disk.queue.add(owed)
    first = disk.place()
    with anyio.fail_after(30):
        await disk.queue.wait_done(first)
        second = disk.place()
        await disk.queue.wait_done(second)
    assert disk.groups == [[owed, first], [owed, second]]


async def test_urgent_writes_go_before_others_that_wait_and_behind_what_they_may_build_on() -> None:
    disk = Disk()
    disk.free.set()
    others = [disk.place() for _ in range(MAX_GROUP)]
    soon = Job(nothing)
    disk.queue.add(soon)
    urgent = [disk.place(is_urgent=True) for _ in range(MAX_URGENT + 2)]
    unwanted = disk.place(is_urgent=True)
    assert disk.queue.withdraw(unwanted)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for place in (*others, *urgent):
                tasks.start_soon(disk.queue.wait_done, place)
    first, second = disk.groups
    n_others = MAX_GROUP - 1 - MAX_URGENT
    assert first == [soon, *urgent[:MAX_URGENT], *others[:n_others]]
    assert second == [*urgent[MAX_URGENT:], *others[n_others:]]


async def test_what_a_group_did_not_come_to_is_first_in_the_next() -> None:
    disk = Disk()
    disk.free.set()
    disk.most = 2
    places = [disk.place() for _ in range(3)]
    urgent = [disk.place(is_urgent=True) for _ in range(3)]
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for place in (*places, *urgent):
                tasks.start_soon(disk.queue.wait_done, place)
    written = [place for group in disk.groups for place in group[: disk.most]]
    assert written == [*urgent, *places]
    assert len(disk.groups) == 3


async def test_what_a_group_did_not_come_to_can_be_held_back_or_given_up() -> None:
    disk = Disk()
    disk.most = 1
    first, second, third = [disk.place() for _ in range(3)]
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(disk.queue.wait_done, first)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(disk.queue.leave, second)
            await anyio.wait_all_tasks_blocked()
            disk.free.set()
            await disk.queue.wait_done(first)
            assert third.hold(True)
    assert disk.groups == [[first, second, third]]
    assert not second.is_done
    assert not disk.queue.withdraw(second)
