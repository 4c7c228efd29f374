import anyio
import anyio.to_thread
import pytest

from aios.testing.chance import repeatable
from aios.testing.loop import Stuck, VirtualClock, VirtualSelector, run_virtual


def test_an_hour_passes_without_waiting() -> None:
    selector = VirtualSelector(lambda _: None)
    clock = VirtualClock(selector)

    async def main() -> float:
        await anyio.sleep(3600)
        return clock.unix_s()

    assert run_virtual(main, selector) == pytest.approx(1.7e9 + 3600, abs=1)


def test_waiting_for_nothing_is_found() -> None:
    with pytest.raises(Stuck):
        run_virtual(anyio.Event().wait, VirtualSelector(lambda _: None))


def test_a_thread_takes_the_time_that_the_seed_says_and_others_run_meanwhile() -> None:
    selector = VirtualSelector(lambda _: None)
    seen: list[str] = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, lambda: seen.append("thread"))
            await anyio.sleep(1)
            seen.append("loop")

    with repeatable(1, lambda _: 4.0):
        run_virtual(main, selector)
    assert seen == ["loop", "thread"]
    assert selector.now_s >= 4.0
