"""`aios serve`, here and in the background."""

import json
import os
import signal
import socket
import stat
from pathlib import Path

import httpx
import pytest
from tests.cli.conftest import Aios, Fifo, Served, Start


def test_it_says_where_it_listens_and_ends_on_sigterm(start: Start, aios: Aios, home: Path) -> None:
    daemon = start("serve")
    assert daemon.line() == f"serving {home} (Ctrl-C ends it)"
    assert daemon.line() == f"  unix://{home}/run/kernel.sock"
    assert "/v1 speaks the OpenAI API" in daemon.line()
    assert daemon.line().startswith(f"  token: in {home / 'token'}")
    assert aios("ps").code == 0
    daemon.signal(signal.SIGTERM)
    ran = daemon.end()
    assert (ran.code, ran.err) == (0, "stopped\n")
    assert aios("ps").code == 3


def test_json_tells_the_addresses(start: Start, home: Path) -> None:
    daemon = start("serve", "--json", "--engine", "none", "--slots", "2")
    told = json.loads(daemon.line())
    assert told["event"] == "ready"
    assert told["os_pid"] == daemon.process.pid
    assert told["urls"][0] == f"unix://{home}/run/kernel.sock"
    assert httpx.get(told["urls"][1] + "/health").status_code == 200
    daemon.signal(signal.SIGINT)
    assert daemon.end().code == 0


def test_in_the_background_it_returns_when_calls_are_taken(aios: Aios, home: Path) -> None:
    ran = aios("serve", "--detach", "--json", "--model", "my-model")
    (row,) = ran.rows()
    assert (ran.code, row["event"], row["log"]) == (0, "ready", str(home / "run" / "serve.log"))
    try:
        (about,) = aios("info", "--json").rows()
        assert about["os_pid"] == row["os_pid"] != os.getpid()
        assert aios("chat", "hi", "--json").rows()[0]["model"] == "my-model"
        log = Path(str(row["log"]))
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        assert "serving" in log.read_text()
    finally:
        assert aios("shutdown").out == "the kernel has ended\n"


def test_a_second_one_is_refused_wherever_it_is_started(served: Served, aios: Aios) -> None:
    for words in ([], ["--detach"]):
        ran = aios("serve", *words)
        assert ran.code == 6
        assert f"already served by pid {os.getpid()}" in ran.err
        assert "aios shutdown" in ran.err
    assert served.kernel.urls


def test_a_port_that_is_taken_is_told_from_the_background_too(aios: Aios) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = aios("serve", "--detach", "--json", "--port", str(port))
        assert ran.code == 6
        assert ran.error()["code"] == "conflict"
        assert str(port) in str(ran.error()["message"])
    assert aios("ps").code == 3


@pytest.mark.parametrize(
    "words",
    [
        ["--port", "70000"],
        ["--slots", "0"],
        ["--engine", "magic"],
        ["--engine", "openai"],
        ["--host", "0.0.0.0"],  # noqa: S104 - refused, which is the point
        ["extra"],
    ],
)
def test_what_cannot_be_served_is_refused(aios: Aios, words: list[str]) -> None:
    ran = aios("serve", "--detach", *words)
    assert ran.code == 2, ran
    assert ran.err.startswith("error: ")


def test_a_missing_model_is_told_before_anything_is_started(aios: Aios, home: Path) -> None:
    ran = aios("serve", "--engine", "llama")
    assert ran.code == 7
    assert "aios pull" in ran.err
    assert not (home / "run").exists()


def test_run_detached_starts_a_daemon_and_says_so(aios: Aios, home: Path, programs: Path) -> None:
    ran = aios("run", "--detach", programs / "hello")
    try:
        assert ran.code == 0
        assert f"started `aios serve` in the background, log in {home}/run/serve.log" in ran.err
        assert aios("wait", "hello").out == "hello from hello\n"
    finally:
        assert aios("shutdown").code == 0


def test_a_kernel_that_dies_ends_the_commands_that_use_it(
    start: Start, aios: Aios, programs: Path, fifo: Fifo
) -> None:
    daemon = start("serve")
    assert daemon.line().startswith("serving")
    running = start("run", programs / "waiter", fifo.path)
    assert running.line() == "ready"
    daemon.signal(signal.SIGKILL)
    ran = running.end()
    assert ran.code == 3
    assert "the connection to the kernel broke" in ran.err
    assert aios("ps").code == 3
    fifo.let_go()  # the program itself, which nobody is left to end


def test_calls_that_the_kernel_has_no_room_for_are_made_again(
    start: Start, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOS_KERNEL_MAX_CALLS_PER_PROCESS", "3")
    daemon = start("serve")
    assert daemon.line().startswith("serving")
    ran = start("run", "-n", "2", "--name", "h", programs / "hello").end()
    assert ran.code == 0, ran
    assert ran.out.splitlines()[-2:] == ["h-1: hello from h-1", "h-2: hello from h-2"]
    assert ran.out.count("args") == 2


@pytest.mark.parametrize("words", [[], ["--detach"]])
def test_that_a_kernel_keeps_no_processes_is_warned_of(
    start: Start, aios: Aios, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("AIOS_JOURNAL_IS_ON", "false")
    start("serve", *words).complains("warning: no journal is kept (`journal.is_on` is false)")
    assert "no journal is kept" in aios("info").out
    assert aios("shutdown").code == 0
