"""The swaps of tests/kernel/sandbox/test_launch.py, without a sandbox: what counts as the same."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from aios.errors import ProgramFailed
from aios.kernel.sandbox.mounted import held, let_go
from aios.kernel.sandbox.spawning import ChildProcess, start_program

pytestmark = pytest.mark.anyio
WITHIN_S = 5.0


@pytest.fixture
async def around() -> AsyncIterator[ChildProcess]:
    """A process whose only child is held; `let_go` sees it as it sees `bwrap`."""
    words = " ".join(f"'{word}'" for word in (*held({})[0], "echo", "begun"))
    process = start_program(
        ["/bin/sh", "-c", f"{words}; exit 3"], stdin=subprocess.DEVNULL, env={"PATH": "/bin"}
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, 9)
        await process.aclose()


async def test_a_program_begins_when_its_mounts_are_what_they_should_be(
    around: ChildProcess, tmp_path: Path
) -> None:
    with anyio.fail_after(30):
        await let_go(around, around.pid, [tmp_path], within_s=WITHIN_S)
        assert around.stdout is not None
        assert await around.stdout.receive() == b"begun\n"


async def test_a_path_with_a_symlink_in_it_is_not_the_same_though_it_leads_there(
    around: ChildProcess, tmp_path: Path
) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    with anyio.fail_after(30), pytest.raises(ProgramFailed, match="link/sub was changed"):
        await let_go(around, around.pid, [tmp_path / "link" / "sub"], within_s=WITHIN_S)


async def test_what_is_gone_is_not_the_same(around: ChildProcess, tmp_path: Path) -> None:
    with anyio.fail_after(30), pytest.raises(ProgramFailed, match="gone was changed"):
        await let_go(around, around.pid, [tmp_path / "gone"], within_s=WITHIN_S)


async def test_a_sandbox_that_ends_before_its_program_begins_is_told() -> None:
    ended = start_program(["/bin/true"], stdin=subprocess.DEVNULL, env={})
    try:
        with anyio.fail_after(30), pytest.raises(ProcessLookupError):
            await let_go(ended, ended.pid, [], within_s=WITHIN_S)
    finally:
        await ended.aclose()


async def test_a_program_gets_its_environment_when_it_is_let_go() -> None:
    env = {"A": os.fsdecode(bytes(range(1, 256))), "Q": "'\"$(id)`id`\\ \n\n", "E": "", "IFS": "/"}
    words, first = held({**env, "BASH_FUNC_kill%%": "() { :; }", "x;id": "a"})
    assert not first.keys() & env.keys()
    assert set(first.values()) == set(env.values()), "what no shell can name is left out"
    process = start_program([*words, "/usr/bin/env", "-0"], stdin=subprocess.DEVNULL, env=first)
    try:
        with anyio.fail_after(30):
            while "(sh) T" not in Path(f"/proc/{process.pid}/stat").read_text():
                await anyio.sleep(0.01)
            process.send_signal(signal.SIGCONT)
            assert process.stdout is not None
            said = b"".join([piece async for piece in process.stdout])
        told = dict(os.fsdecode(each).split("=", 1) for each in said.split(b"\0")[:-1])
        assert {name: value for name, value in told.items() if name in env} == env
        assert not told.keys() & first.keys()
    finally:
        process.kill()
        await process.aclose()
