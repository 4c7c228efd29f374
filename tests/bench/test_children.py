"""Programs that a bench starts: they always end, and their failures say why."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from aios.bench.children import (
    BenchFailed,
    Child,
    aios_command,
    blaming,
    environment,
    free_port,
    memory_bytes,
    run_command,
    running,
    scratch_folder,
    wait_healthy,
    wait_until,
)

pytestmark = pytest.mark.anyio

PARENT = """\
import subprocess, sys
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path("pid.part").write_text(str(child.pid))
Path("pid.part").rename("pid")
child.wait()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch_folder() as path:
        yield path


def _exists(os_pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet reaped by init does not."""
    try:
        return Path(f"/proc/{os_pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_leaving_the_block_ends_the_program_and_what_it_started(folder: Path) -> None:
    with anyio.fail_after(30):
        async with running(
            [sys.executable, "-c", PARENT], env=environment({}), folder=folder
        ) as child:
            await wait_until((folder / "pid").exists, child, what="it had a child")
            grandchild = int((folder / "pid").read_text())
            assert _exists(grandchild)
            assert _exists(child.process.pid)
        assert not _exists(child.process.pid)
        while _exists(grandchild):  # killed; the system may take a moment to end it
            await anyio.lowlevel.checkpoint()


async def test_an_error_in_the_block_ends_the_program_too(folder: Path) -> None:
    found: list[int] = []

    async def breaks() -> None:
        async with running(["sleep", "600"], env=environment({}), folder=folder) as child:
            found.append(child.process.pid)
            raise BenchFailed("something else broke")

    with anyio.fail_after(30), pytest.raises(BenchFailed):
        await breaks()
    assert not _exists(found[0])


async def test_a_command_is_timed_to_its_end(folder: Path) -> None:
    with anyio.fail_after(30):
        seconds = await run_command(["sleep", "0.1"], env=environment({}), folder=folder)
    assert 0.1 <= seconds < 10


async def test_a_command_that_fails_says_what_it_wrote(folder: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such thing')"]
    with anyio.fail_after(30), pytest.raises(BenchFailed, match="ended with 1: no such thing"):
        await run_command(command, env=environment({}), folder=folder)


async def test_a_command_that_hangs_is_ended(folder: Path) -> None:
    with anyio.fail_after(30), pytest.raises(BenchFailed, match="not done within"):
        await run_command(["sleep", "600"], env=environment({}), folder=folder, within_s=0.05)


async def test_waiting_for_a_child_that_ended_fails_at_once(folder: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('broken')"]
    with anyio.fail_after(30):
        async with running(command, env=environment({}), folder=folder) as child:
            with pytest.raises(BenchFailed, match="ended with 1 before it was up: broken"):
                await wait_until(lambda: False, child, what="it was up")


async def test_a_failure_after_the_end_of_the_server_says_how_it_ended(folder: Path) -> None:
    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    with anyio.fail_after(30):
        async with running(command, env=environment({}), folder=folder) as child:
            await child.process.wait()
            with pytest.raises(
                BenchFailed, match="no answer; the server had ended with -9: it wrote"
            ):
                _fail_beside(child)


async def test_a_failure_beside_a_running_server_is_left_as_it_is(folder: Path) -> None:
    with anyio.fail_after(30):
        async with running(["sleep", "600"], env=environment({}), folder=folder) as child:
            with pytest.raises(BenchFailed, match=r"^no answer$"):
                _fail_beside(child)


def _fail_beside(child: Child) -> None:
    with blaming(child):
        raise BenchFailed("no answer")


async def test_a_server_that_never_gets_healthy_fails_the_bench(folder: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with anyio.fail_after(30):
        async with running(["sleep", "600"], env=environment({}), folder=folder) as child:
            with pytest.raises(BenchFailed, match="did not get ready"):
                await wait_healthy(url, child, within_s=0.1)


def test_knobs_of_the_caller_do_not_reach_what_a_bench_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIOS_ENGINE_N_SLOTS", "3")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    env = environment({"AIOS_HOME": "/somewhere"})
    assert {name for name in env if name.startswith("AIOS_")} == {"AIOS_HOME", "AIOS_CONFIG"}
    assert env["SOMETHING_ELSE"] == "kept"
    assert env["AIOS_CONFIG"] == os.devnull


def test_memory_of_a_process_is_read_from_the_system() -> None:
    resident, share = memory_bytes(os.getpid())
    assert 5e6 < resident < 5e9
    assert share is None or 0 < share <= resident


def test_the_aios_command_is_that_of_this_interpreter() -> None:
    command = aios_command("ps", "--json")
    assert Path(command[0]).parent == Path(sys.executable).parent
    assert command[-2:] == ["ps", "--json"]


def test_a_scratch_folder_is_removed_and_short_enough_for_sockets() -> None:
    with scratch_folder() as path:
        (path / "file").touch()
        assert len(str(path)) < 60
    assert not path.exists()
