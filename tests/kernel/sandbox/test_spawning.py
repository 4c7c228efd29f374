import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import anyio
import pytest
from tests.kernel.egress.test_egress import no_descriptors

from aios.errors import ProgramFailed
from aios.kernel.sandbox.spawning import ChildProcess, check_words, start_program

LOOPS = [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})]
ENV = {"PATH": os.environ["PATH"]}

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", LOOPS, ids=["asyncio", "uvloop"]),
]


@pytest.fixture
def inherited() -> Iterator[int]:
    """A descriptor as the shell that started a kernel may have left one."""
    read, write = os.pipe()
    os.set_inheritable(read, True)
    yield read
    os.close(read)
    os.close(write)


def shell(
    code: str, *, stdin: int = subprocess.DEVNULL, given: tuple[int, ...] = ()
) -> ChildProcess:
    """A program of the shell."""
    return start_program(["sh", "-c", code], stdin=stdin, env=ENV, pass_fds=given)


async def test_a_program_has_the_descriptors_that_it_is_given_and_no_others(inherited: int) -> None:
    given, ours = os.pipe()
    code = f"[ -e /proc/self/fd/{given} ] && echo given; [ -e /proc/self/fd/{inherited} ] && echo more; exit 0"
    async with shell(code, given=(given,)) as process:
        assert process.stdout is not None
        assert await process.stdout.receive() == b"given\n"
    os.close(given)
    os.close(ours)


async def test_more_than_a_pipe_holds_goes_in_and_comes_out() -> None:
    sent = os.urandom(1 << 20)
    async with shell("cat", stdin=subprocess.PIPE) as process, anyio.create_task_group() as tasks:
        assert process.stdin is not None
        assert process.stdout is not None

        async def feed() -> None:
            assert process.stdin is not None
            await process.stdin.send(sent)
            await process.stdin.aclose()

        tasks.start_soon(feed)
        assert b"".join([piece async for piece in process.stdout]) == sent


async def test_all_who_wait_hear_of_the_end() -> None:
    async with shell("exit 7") as process, anyio.create_task_group() as tasks:
        codes: list[int] = []

        async def wait() -> None:
            codes.append(await process.wait())

        for _ in range(3):
            tasks.start_soon(wait)
    assert codes == [7, 7, 7]
    assert process.returncode == 7


async def test_who_writes_to_a_program_that_has_ended_is_told() -> None:
    async with shell("exit 0", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        await process.wait()
        with pytest.raises(anyio.BrokenResourceError):
            await process.stdin.send(b"anybody there?")


async def test_a_program_that_is_closed_by_who_is_cancelled_ends() -> None:
    with anyio.move_on_after(0.1):
        async with shell("sleep 60") as process:
            pass
    assert process.returncode == -signal.SIGKILL


async def test_a_pipe_that_is_closed_is_no_longer_waited_for() -> None:
    async with shell("sleep 60") as process, anyio.create_task_group() as tasks:
        assert process.stdout is not None
        heard: list[type[Exception]] = []

        async def read() -> None:
            assert process.stdout is not None
            try:
                await process.stdout.receive()
            except anyio.ClosedResourceError as error:
                heard.append(type(error))

        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        await process.stdout.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await process.stdout.receive()
        process.terminate()
    assert heard == [anyio.ClosedResourceError]
    assert process.returncode == -signal.SIGTERM


async def test_a_program_that_is_not_there_is_said_to_be_missing() -> None:
    with pytest.raises(FileNotFoundError):
        start_program([f"{sys.executable}-missing"], stdin=subprocess.DEVNULL, env={})


async def test_an_end_is_seen_while_no_descriptor_is_left() -> None:
    async with shell("sleep 0.2; exit 7") as process:
        with anyio.fail_after(30), no_descriptors():
            assert await process.wait() == 7


async def test_words_that_the_system_cannot_be_told_are_refused() -> None:
    check_words(["all", "that", "is", "text: é\n", os.fsdecode(b"\xff")])
    for word in ("a\0b", "\ud800"):
        with pytest.raises(ProgramFailed, match="no NUL"):
            check_words(["fine", word])
