"""Word from a daemon to the command that starts it."""

import os
import signal
import sys
from pathlib import Path

import pytest

from aios.cli import background
from aios.cli.background import start_daemon, tell_failed, tell_ready
from aios.config import Home
from aios.errors import ConfigError, Conflict, KernelUnreachable


def test_a_daemon_that_fails_hands_its_own_error_over(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOS_SERVER_PORT", "-1")
    with pytest.raises(ConfigError, match="AIOS_SERVER_PORT"):
        start_daemon(Home(home))


def test_a_daemon_that_dies_without_a_word_points_to_its_log(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(KernelUnreachable, match="ended with status 1") as caught:
        start_daemon(Home(home))
    assert str(home / "run" / "serve.log") in caught.value.hint


def test_ctrl_c_before_it_is_ready_ends_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    daemon, number = tmp_path / "daemon", tmp_path / "pid"
    daemon.write_text(f'#!/bin/sh\necho $$ > "{number}"\nsleep 1\nkill -INT $PPID\nexec sleep 60\n')
    daemon.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(daemon))
    with pytest.raises(KeyboardInterrupt):
        start_daemon(Home(home))
    _, status = os.waitpid(int(number.read_text()), 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


def test_a_home_that_cannot_be_written_to_is_told_as_such() -> None:
    with pytest.raises(ConfigError, match="/proc/nowhere cannot be written to") as caught:
        start_daemon(Home(Path("/proc/nowhere")))
    assert "AIOS_HOME" in caught.value.hint


def test_word_goes_through_the_pipe_once() -> None:
    reader, writer = os.pipe()
    tell_ready(writer)
    assert os.read(reader, 100) == background.READY
    assert os.read(reader, 100) == b""
    tell_failed(writer, Conflict("late"))  # nobody listens any more
    tell_ready(None)
    os.close(reader)
