import asyncio  # noqa: TID251 - its own way to cancel is tested
import socket

import anyio
import anyio.lowlevel
import pytest
from tests.server.serving import short_folder

from aios.sdk.stream import UnixStream

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


def pair() -> tuple[UnixStream, UnixStream]:
    ours, theirs = socket.socketpair()
    return UnixStream(ours), UnixStream(theirs)


async def test_a_megabyte_passes_a_small_buffer_whole() -> None:
    sender, receiver = pair()
    data, found = bytes(range(256)) * 4096, bytearray()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sender.send, data)
            while len(found) < len(data):
                found += await receiver.receive()
    sender.close()
    assert await receiver.receive() == b""
    receiver.close()
    assert found == data


async def test_cancelling_a_receiver_loses_nothing() -> None:
    sender, receiver = pair()
    with anyio.move_on_after(0.01) as scope:
        await receiver.receive()
    assert scope.cancelled_caught
    await sender.send(b"late")
    assert await receiver.receive() == b"late"
    sender.close()
    receiver.close()


async def test_a_receiver_that_asyncio_itself_cancels_loses_nothing() -> None:
    """No shield of anyio's holds `Task.cancel`, `asyncio.timeout` and `asyncio.TaskGroup` back."""
    sender, receiver = pair()
    with anyio.fail_after(30):
        await sender.send(b"early")
        task = asyncio.create_task(receiver.receive())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await receiver.receive() == b"early"
        await sender.send(b"late")
        assert await receiver.receive() == b"late"
    sender.close()
    receiver.close()


async def test_closing_wakes_who_waits() -> None:
    sender, receiver = pair()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:

            async def receive() -> None:
                with pytest.raises(anyio.ClosedResourceError):
                    await receiver.receive()

            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            receiver.close()
            receiver.close()
    sender.close()


async def test_who_sends_without_end_does_not_keep_others_from_running() -> None:
    sender, receiver = pair()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            for _ in range(100):
                sender.raw.send(b"x")
                await receiver.receive()
            tasks.cancel_scope.cancel()
    sender.close()
    receiver.close()
    assert ticks >= 100


async def test_connecting_waits_while_the_queue_is_full() -> None:
    with short_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        listener.listen(0)
        streams: list[UnixStream] = []

        async def connect() -> None:
            streams.append(await UnixStream.connect(str(folder / "s")))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(connect)
                await anyio.wait_all_tasks_blocked()
                for _ in range(3):
                    listener.accept()[0].close()
                    await anyio.sleep(0.02)
        assert len(streams) == 3
        for stream in streams:
            stream.close()
