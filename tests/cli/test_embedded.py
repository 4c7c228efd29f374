"""A kernel inside `aios run`: found by other commands, kept while others need it, gone without a trace."""

import fcntl
import os
import signal
import socket
from pathlib import Path

import pytest
from tests.cli.conftest import Aios, Fifo, Start


def test_a_program_runs_without_a_daemon(start: Start, home: Path, programs: Path) -> None:
    ran = start("run", programs / "asker").end()
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("You said")
    assert sorted(path.name for path in (home / "run").iterdir()) == ["kernel.lock"]


def test_other_commands_work_against_it_meanwhile(
    start: Start, aios: Aios, programs: Path, fifo: Fifo
) -> None:
    running = start("run", programs / "waiter", fifo.path)
    assert running.line() == "ready"
    assert aios("info", "--json").rows()[0]["embedded"] is True
    assert [row["name"] for row in aios("ps", "--json").rows()] == ["waiter"]
    assert "ready" in aios("logs", "waiter").out
    assert aios("kill", "waiter").code == 0
    assert running.end().code == 137
    assert aios("ps").code == 3


def test_it_stays_until_the_programs_of_others_have_ended_and_says_so(
    start: Start, aios: Aios, programs: Path, fifo: Fifo
) -> None:
    first = start("run", "--name", "first", programs / "waiter", fifo.path)
    assert first.line() == "ready"
    second = start("run", "--name", "second", programs / "waiter", fifo.path)
    assert second.line() == "ready"
    aios("kill", "first")
    assert "second (3); staying" in first.complains("still running on this kernel")
    assert [row["name"] for row in aios("ps", "--json").rows()] == ["second"]
    fifo.let_go()
    ended = second.end()
    assert (ended.code, ended.out) == (0, "let go\n")
    assert first.end().code == 137


def test_two_that_start_at_once_share_one_kernel(start: Start, programs: Path) -> None:
    both = [start("run", "--name", name, programs / "hello") for name in ("one", "two")]
    ends = [one.end() for one in both]
    assert [ran.code for ran in ends] == [0, 0], ends
    assert {ran.out.splitlines()[-1] for ran in ends} == {"hello from one", "hello from two"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_programs_and_kernel(
    start: Start, home: Path, programs: Path, fifo: Fifo, number: signal.Signals, code: int
) -> None:
    running = start("run", programs / "parent", programs / "waiter", fifo.path)
    assert running.line().startswith("started")
    running.signal(number)
    ran = running.end()
    assert ran.code == code
    assert "Traceback" not in ran.err
    assert not (home / "run" / "kernel.sock").exists()
    assert not [folder.name for folder in Path("/proc").iterdir() if _waits_at(folder, fifo)]


def _waits_at(folder: Path, fifo: Fifo) -> bool:
    """Whether a process of the machine is a waiter at that FIFO."""
    try:
        words = (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[2:3] == [os.fsencode(fifo.path)] and words[1].endswith(b"main.py")


def test_ctrl_c_while_it_stays_for_others_ends_them(
    start: Start, aios: Aios, programs: Path, fifo: Fifo
) -> None:
    first = start("run", "--name", "first", programs / "waiter", fifo.path)
    assert first.line() == "ready"
    aios("run", "--detach", "--name", "second", programs / "waiter", fifo.path)
    aios("kill", "first")
    first.complains("still running")
    first.signal(signal.SIGINT)
    assert first.end().code == 130
    assert aios("ps").code == 3


def test_shutdown_ends_the_command(start: Start, aios: Aios, programs: Path, fifo: Fifo) -> None:
    running = start("run", programs / "waiter", fifo.path)
    assert running.line() == "ready"
    assert aios("shutdown").code == 0
    assert running.end().code == 143


def test_without_its_model_nothing_is_started_and_the_hint_says_what_to_do(
    aios: Aios, home: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOS_ENGINE_KIND", "openai")
    ran = aios("run", programs / "hello")
    assert ran.code == 2
    assert "engine.base_url" in ran.err
    assert not (home / "run").exists()


def test_no_program_is_run_here_when_the_daemon_that_it_should_leave_to_cannot_start(
    start: Start, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("AIOS_SERVER_PORT", str(taken.getsockname()[1]))
        ran = start("run", "--detach", programs / "hello").end()
    assert (ran.code, ran.out) == (6, "")
    assert "is taken by another program" in ran.err


def test_a_home_that_is_held_by_who_cannot_be_found_is_told_of(
    aios: Aios, home: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.cli.run.SETTLE_S", 0.5)
    (home / "run").mkdir(parents=True, exist_ok=True)
    with (home / "run" / "kernel.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ran = aios("run", programs / "hello")
    assert (ran.code, "starting or ending" in ran.err) == (6, True)
