import anyio
import pytest

from aios.abi.types import Pid
from aios.kernel.journal.events import EventRing, ProcessEvent

pytestmark = pytest.mark.anyio


def event(number: int) -> ProcessEvent:
    return ProcessEvent(Pid(number), "started", 0.0)


async def test_a_watcher_reads_on_where_it_was() -> None:
    ring = EventRing(10)
    for n in range(1, 6):
        ring.put(event(n))
    items, n_missed = ring.read(0, 3)
    assert ([number for number, _ in items], n_missed) == ([1, 2, 3], 0)
    items, n_missed = ring.read(3, 3)
    assert ([item.pid for _, item in items], n_missed) == ([4, 5], 0)
    assert ring.read(5, 3) == ([], 0)


async def test_who_is_slow_is_told_what_it_missed() -> None:
    ring = EventRing(3)
    for n in range(1, 11):
        ring.put(event(n))
    items, n_missed = ring.read(2, 10)
    assert ([number for number, _ in items], n_missed) == ([8, 9, 10], 5)
    assert (len(ring), ring.n_dropped, ring.last) == (3, 7, 10)


async def test_a_new_event_wakes_all_who_wait() -> None:
    ring = EventRing(3)
    n_woken = 0

    async def watch() -> None:
        nonlocal n_woken
        await ring.wait_changed()
        n_woken += 1

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(watch)
            await anyio.wait_all_tasks_blocked()
            ring.put(event(1))
    assert n_woken == 3
