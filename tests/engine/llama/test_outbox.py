from collections.abc import Callable

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from aios.engine.llama.outbox import Outbox, Reply
from aios.errors import EngineFailed

pytestmark = pytest.mark.anyio


async def test_what_a_thread_puts_arrives_in_order_and_in_the_event_loop() -> None:
    outbox, got, done = Outbox(), list[int](), anyio.Event()

    def thread() -> None:
        for number in range(1000):
            outbox.put(got.append, number)
            outbox.flush()
        outbox.put(lambda _: done.set(), None)
        outbox.flush()

    with anyio.fail_after(30):
        await anyio.to_thread.run_sync(thread)
        await done.wait()
    assert got == list(range(1000))


async def test_an_event_loop_that_is_busy_is_woken_once() -> None:
    outbox, got, wakes = Outbox(), list[int](), list[object]()
    wake = outbox._wake

    def count_and_wake(deliver: Callable[[], None]) -> None:
        wakes.append(deliver)
        wake(deliver)

    outbox._wake = count_and_wake
    for number in range(100):  # nothing is awaited: the event loop cannot come in between
        outbox.put(got.append, number)
        outbox.flush()
    assert got == []
    await checkpoint()
    assert got == list(range(100))
    assert len(wakes) == 1


async def test_nothing_is_delivered_before_the_flush() -> None:
    outbox, got = Outbox(), list[int]()
    outbox.put(got.append, 1)
    await checkpoint()
    assert got == []
    outbox.flush()
    await checkpoint()
    assert got == [1]


def test_an_event_loop_that_has_ended_is_no_error() -> None:
    got: list[int] = []

    async def build() -> Outbox:
        return Outbox()

    outbox = anyio.run(build)
    outbox.put(got.append, 1)
    outbox.flush()
    assert got == []


async def test_a_reply_gives_its_value_or_its_error() -> None:
    good, bad = Reply[int](), Reply[int]()
    good.receive(7)
    bad.fail(EngineFailed("it broke"))
    with anyio.fail_after(30):
        assert await good.wait() == 7
        with pytest.raises(EngineFailed, match="it broke"):
            await bad.wait()
