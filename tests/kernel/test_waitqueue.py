import anyio
import pytest

from aios.kernel.waitqueue import WaitQueue

pytestmark = pytest.mark.anyio


async def test_all_who_wait_are_woken_and_only_they() -> None:
    queue = WaitQueue()
    queue.wake_all()  # nobody waits: it is not kept for later
    woken: list[int] = []

    async def wait(number: int) -> None:
        await queue.wait()
        woken.append(number)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(wait, number)
            await anyio.wait_all_tasks_blocked()
            assert woken == []
            queue.wake_all()
            await anyio.wait_all_tasks_blocked()
            assert sorted(woken) == [0, 1, 2]
            tasks.start_soon(wait, 3)
            await anyio.wait_all_tasks_blocked()
            assert len(woken) == 3
            queue.wake_all()
    assert woken[-1] == 3
