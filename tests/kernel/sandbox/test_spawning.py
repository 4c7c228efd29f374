import os
import subprocess
from collections.abc import Iterator

import pytest

from aios.kernel.sandbox.spawning import Spawner, nothing_inherited

LOOPS = [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})]


@pytest.fixture
def inherited() -> Iterator[int]:
    """A descriptor as the shell that started a kernel may have left one."""
    read, write = os.pipe()
    os.set_inheritable(read, True)
    yield read
    os.close(read)
    os.close(write)


def test_what_was_inheritable_is_so_again_and_what_was_closed_is_no_matter(inherited: int) -> None:
    other = os.dup(inherited)
    os.set_inheritable(other, True)
    with nothing_inherited():
        assert not os.get_inheritable(inherited)
        os.close(other)
    assert os.get_inheritable(inherited)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", LOOPS, ids=["asyncio", "uvloop"])
async def test_a_program_has_the_descriptors_that_it_is_given_and_no_others(inherited: int) -> None:
    given, ours = os.pipe()
    code = f"[ -e /proc/self/fd/{given} ] && echo given; [ -e /proc/self/fd/{inherited} ] && echo more; exit 0"
    process = await Spawner().spawn(
        ["sh", "-c", code],
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"]},
        pass_fds=(given,),
    )
    assert process.stdout is not None
    said = await process.stdout.receive()
    await process.wait()
    await process.aclose()
    assert said == b"given\n"
    os.close(given)
    os.close(ours)
