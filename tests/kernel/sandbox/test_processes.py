"""What kernels that were killed left running is ended by the next one, and nobody else is."""

import os
import signal
import subprocess

import pytest

from aios.kernel.sandbox.processes import MARK, new_mark, sweep


def test_only_what_a_dead_kernel_started_is_swept() -> None:
    dead = subprocess.Popen(["/bin/true"])
    dead.wait()
    marks = [f"{dead.pid}-left", new_mark(), "neither-of-a-kernel", ""]
    marks += ["²-no-number", f"{'9' * 30}-no-pid", f"{'9' * 5000}-too-long"]
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
    mark = f"{dead.pid}-left"
    monkeypatch.setenv(MARK, mark)
    ours = subprocess.Popen(["/bin/sleep", "60"], env={MARK: mark})
    sweep()
    assert ours.poll() is None
    ours.kill()
    ours.wait()


def test_a_mark_names_this_process_and_is_never_the_same() -> None:
    first, second = new_mark(), new_mark()
    assert first != second
    assert first.startswith(f"{os.getpid()}-")
