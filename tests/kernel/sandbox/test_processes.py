"""What kernels that were killed left running is ended by the next one, and nobody else is."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from aios.kernel.sandbox.processes import MARK, new_mark, sweep


def namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def mark_of(pid: int) -> str:
    return f"{pid}.{namespace()}-left"


def test_only_what_a_dead_kernel_started_is_swept() -> None:
    dead = subprocess.Popen(["/bin/true"])
    dead.wait()
    marks = [mark_of(dead.pid), new_mark(), "neither-of-a-kernel", ""]
    marks += [f"{pid}.{namespace()}-no-pid" for pid in ("²", "9" * 30, "9" * 5000)]
    marks += [f"{dead.pid}.1-in-a-container", f"{dead.pid}-before-0.1"]
    started = [
        subprocess.Popen(["/bin/sleep", "60"], env={MARK: mark} if mark else {}) for mark in marks
    ]
    try:
        sweep()  # or that of a test beside this one
        assert started[0].wait(10) == -signal.SIGKILL
        assert [process.poll() for process in started[1:]] == [None] * (len(marks) - 1)
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_kernel_that_a_program_of_a_dead_kernel_started_ends_neither_itself_nor_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dead = subprocess.Popen(["/bin/true"])
    dead.wait()
    mark = mark_of(dead.pid)
    monkeypatch.setenv(MARK, mark)
    ours = subprocess.Popen(["/bin/sleep", "60"], env={MARK: mark})
    sweep()
    assert ours.poll() is None
    ours.kill()
    ours.wait()


def test_a_mark_names_this_process_and_is_never_the_same() -> None:
    first, second = new_mark(), new_mark()
    assert first != second
    assert first.startswith(f"{os.getpid()}.{namespace()}-")
