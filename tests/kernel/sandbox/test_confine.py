import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aios.kernel.sandbox import confine


def run(order: bytes) -> "subprocess.CompletedProcess[str]":
    fd = os.memfd_create("order")
    os.write(fd, order)
    os.lseek(fd, 0, os.SEEK_SET)
    return subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-I", "-S", confine.__file__, str(fd)],
        pass_fds=(fd,), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("order", [b"", b"{}", b"[1]", b'{"cwd": "/nowhere/at/all"}'])
def test_an_order_that_cannot_be_obeyed_ends_it_before_anything_runs(order: bytes) -> None:
    ended = run(order)
    assert ended.returncode == 126
    assert "the sandbox could not be made" in ended.stderr


def order_of(folder: Path, command: list[str], *, groups: list[str]) -> bytes:
    order = {"command": command, "cwd": str(folder), "env": {}, "bounds": {}, "behind": 0}
    return json.dumps({**order, "groups": groups, "walls": None}).encode()


def test_it_is_in_its_groups_before_the_program_begins(tmp_path: Path) -> None:
    procs = tmp_path / "cgroup.procs"
    procs.touch()
    ended = run(order_of(tmp_path, ["/bin/cat", str(procs)], groups=[str(procs)]))
    assert (ended.returncode, ended.stdout) == (0, "0")  # itself, as the operating system has it


def test_a_group_that_cannot_be_joined_ends_it_before_anything_runs(tmp_path: Path) -> None:
    procs = tmp_path / "gone" / "cgroup.procs"
    ended = run(order_of(tmp_path, ["/bin/echo", "ran"], groups=[str(procs)]))
    assert (ended.returncode, ended.stdout) == (126, "")
    assert str(procs) in ended.stderr
    ended = run(order_of(tmp_path, ["/bin/echo", "ran"], groups=[str(tmp_path / "made")]))
    assert (ended.returncode, [*tmp_path.iterdir()]) == (126, [])


def test_it_imports_nothing_of_ours() -> None:
    text = Path(confine.__file__).read_text()
    assert "import aios" not in text
    assert "from aios" not in text
