"""ps, wait, kill, stop, cont and nice against a kernel that runs."""

import time
from pathlib import Path

import click
import pytest
from tests.cli.conftest import Aios, Fifo, Served, Start, Terminals
from tests.cli.test_approvals import ask, wait_open
from tests.cli.test_logs import LISTENER
from tests.kernel.test_resume import daemon, owner

from aios.abi.recovery import Restart
from aios.sdk.blocking import Client


def waiter(aios: Aios, programs: Path, fifo: Fifo, *options: str) -> int:
    """A process that waits at the FIFO."""
    ran = aios("run", "--detach", "--json", *options, programs / "waiter", fifo.path)
    pid = ran.rows()[0]["pid"]
    assert isinstance(pid, int)
    return pid


@pytest.mark.usefixtures("home")
def test_without_a_kernel_the_exit_code_is_3_and_the_hint_says_what_to_start(aios: Aios) -> None:
    ran = aios("ps")
    assert ran.code == 3
    assert ran.err.startswith("error: no kernel is running for ")
    assert "aios serve" in ran.err
    assert aios("kill", "1", "--json").error()["code"] == "kernel_unreachable"


def test_ps_lists_the_living_and_ps_all_the_ended_and_init(
    served: Served, aios: Aios, programs: Path
) -> None:
    served.admit("bob")
    assert aios("run", programs / "status", "3").code == 3
    living = aios("ps")
    assert [line.split()[:3] for line in living.out.splitlines()] == [
        ["PID", "NAME", "STATE"],
        ["2", "bob", "waiting"],
    ]
    rows = [line.split() for line in aios("ps", "--all").out.splitlines()]
    assert [row[1] for row in rows] == ["NAME", "init", "bob", "status"]
    assert rows[-1][2] == "exited"
    assert rows[-1][-1] == "3"


def test_ps_fits_into_80_columns_and_wide_shows_the_rest(served: Served, aios: Aios) -> None:
    served.admit("a-name-of-20-letters")
    assert max(map(len, aios("ps").out.splitlines())) <= 80
    title = aios("ps", "--wide").out.splitlines()[0].split()
    assert {"PPID", "OWNER", "LEVEL", "CACHED", "PREEMPT", "PAGES", "DISK", "SHARED"} <= set(title)


def test_ps_as_json_is_an_object_a_line(served: Served, aios: Aios) -> None:
    served.admit("bob")
    (row,) = aios("ps", "--json").rows()
    assert (row["pid"], row["name"], row["kind"], row["state"]) == (2, "bob", "guest", "waiting")
    assert row["usage"] == {"prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0}


@pytest.mark.usefixtures("served")
def test_a_crash_shows_its_status_in_ps_and_its_traceback_in_logs(
    aios: Aios, programs: Path
) -> None:
    assert aios("run", "--detach", programs / "crash").code == 0
    assert aios("wait", "crash").code == 1
    assert aios("ps", "--all", "--json").rows()[-1]["exit"] == {
        "status": 1,
        "reason": "",
        "result": "",
    }
    told = aios("logs", "crash").out
    assert "about to fail\n" in told
    assert "Traceback (most recent call last)" in told
    assert "ValueError: too bad" in told
    assert "exited with status 1" in told


@pytest.mark.usefixtures("served")
def test_stop_holds_a_process_and_cont_lets_it_go_on(
    aios: Aios, programs: Path, fifo: Fifo
) -> None:
    pid = waiter(aios, programs, fifo)
    assert aios("stop", "wait").out == f"stopped waiter ({pid})\n"
    assert aios("ps", "--json").rows()[0]["state"] == "stopped"
    fifo.let_go()
    assert aios("wait", "waiter", "--timeout", "0.1").code == 8
    assert aios("cont", "waiter").out == f"continued waiter ({pid})\n"
    assert aios("wait", "waiter").code == 0


@pytest.mark.usefixtures("served")
def test_kill_ends_a_whole_tree_and_says_how_many(
    aios: Aios, start: Start, programs: Path, fifo: Fifo
) -> None:
    parent = aios("run", "--detach", "--json", programs / "parent", programs / "waiter", fifo.path)
    pid = parent.rows()[0]["pid"]
    assert start("logs", "-f", "parent").line().startswith("started")
    assert aios("kill", "parent").out == f"killed parent ({pid}) and 1 below it\n"
    assert aios("ps", "--json").rows() == []
    again = aios("kill", "parent")
    assert again.code == 6
    assert "has exited with status 137" in again.err


def test_signals_take_several_ids_and_the_first_failure_decides(served: Served, aios: Aios) -> None:
    served.admit("one")
    served.admit("two")
    ran = aios("kill", "one", "nobody", "two", "--json")
    assert ran.code == 4
    assert [row["name"] for row in ran.rows()] == ["one", "two"]
    assert ran.error()["message"] == "no process 'nobody'"


@pytest.mark.usefixtures("served")
def test_nobody_kills_init(aios: Aios) -> None:
    ran = aios("kill", "init")
    assert ran.code == 5
    assert "nobody may kill init" in ran.err


def test_an_ambiguous_id_lists_the_candidates(served: Served, aios: Aios) -> None:
    served.admit("reader-a")
    served.admit("reader-b")
    ran = aios("stop", "read")
    assert ran.code == 2
    assert "reader-a (2), reader-b (3)" in ran.err


def test_nice_takes_negative_values_and_refuses_absurd_ones(served: Served, aios: Aios) -> None:
    served.admit("bob")
    assert aios("nice", "-n", "-5", "bob").out == "bob (2) has nice -5\n"
    assert aios("ps", "--json").rows()[0]["nice"] == -5
    assert aios("nice", "-n", "20", "bob").code == 2
    assert aios("nice", "bob").code == 2


@pytest.mark.usefixtures("served")
def test_wait_prints_results_and_ends_with_the_first_status_that_is_not_0(
    aios: Aios, programs: Path
) -> None:
    aios("run", "--detach", programs / "hello")
    for status in ("0", "7", "9"):
        aios("run", "--detach", "--name", f"s{status}", programs / "status", status)
    ran = aios("wait", "hello", "s0", "s7", "s9")
    assert ran.code == 7
    assert ran.out == "hello from hello\n"
    (row,) = aios("wait", "hello", "--json").rows()
    assert row["exit"] == {"status": 0, "reason": "", "result": "hello from hello"}


@pytest.mark.usefixtures("served")
def test_what_a_program_returns_cannot_steer_the_terminal(aios: Aios, programs: Path) -> None:
    (programs / "hello" / "main.py").write_text(
        "from aios.sdk.blocking import connect\n"
        "with connect() as client:\n    client.exit(3, 'a\\x1b[2Jb')\n"
    )
    ran = aios("run", programs / "hello")
    assert (ran.code, ran.out) == (3, "a[2Jb\n")


def test_ps_shows_what_a_call_waits_for_and_cuts_it_on_a_narrow_terminal(
    served: Served, aios: Aios, terminal: Terminals, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = ask(served)
    number = str(wait_open(aios)["id"])
    assert f"ask_human waits for approval {number}" in aios("ps").out
    monkeypatch.setenv("COLUMNS", "72")
    screen = click.unstyle(terminal("ps").end().out)
    assert "ask_human w" in screen
    assert "…" in screen
    assert max(map(len, screen.split("\r\n"))) <= 72
    aios("approvals", "answer", number, "blue")
    assert answer.result(20) == "blue"


def until_in_flight(client: Client, n_calls: int) -> None:
    """Until so many calls are in flight, with that of the programs, the command that waits, and this one."""
    end_s = time.monotonic() + 20
    while client.info().n_in_flight < n_calls:
        assert time.monotonic() < end_s, "nobody waits"
        time.sleep(0.02)  # noqa: TID251 - another process is waited for


@pytest.mark.parametrize("is_killed", [True, False])
def test_wait_goes_on_under_the_next_kernel(
    home: Path, start: Start, programs: Path, *, is_killed: bool
) -> None:
    (programs / "waiter" / "main.py").write_text(LISTENER)
    with daemon(home) as kernel:
        with owner(home) as client:
            restart = Restart(policy="on-failure")
            ann = client.spawn(str(programs / "waiter"), name="ann", restart=restart).pid
            client.spawn(str(programs / "waiter"), name="bob")
            waiting = start("wait", "ann", "bob", "--json")
            until_in_flight(client, 4)
            if not is_killed:
                client.shutdown()
                kernel.join()
    waiting.complains("waiting until it is back, 10m00s at most")
    with daemon(home):
        with owner(home) as client:
            client.mail.send(ann, "a letter")
        ran = waiting.end()
    assert ran.code == 137, "that of bob, who has no restart policy"
    assert [row["exit"] for row in ran.rows()] == [
        {"status": 0, "reason": "", "result": ""},
        {"status": 137, "reason": "ended with its kernel", "result": ""},
    ]


def test_wait_ends_with_3_when_no_kernel_comes_back_in_time(
    home: Path, start: Start, programs: Path
) -> None:
    (programs / "waiter" / "main.py").write_text(LISTENER)
    with daemon(home):
        with owner(home) as client:
            client.spawn(str(programs / "waiter"), name="ann")
            waiting = start("wait", "ann", "--timeout", "3")
            until_in_flight(client, 3)
    assert waiting.end().code == 3


def test_wait_does_not_take_another_process_for_the_one_that_went_with_its_kernel(
    home: Path, start: Start, programs: Path
) -> None:
    (programs / "waiter" / "main.py").write_text(LISTENER)
    forgets = {"AIOS_JOURNAL_IS_ON": "false"}
    with daemon(home, forgets):
        with owner(home) as client:
            pid = client.spawn(str(programs / "waiter"), name="ann").pid
            waiting = start("wait", "ann")
            until_in_flight(client, 3)
    with daemon(home, forgets), owner(home) as client:
        assert client.spawn(str(programs / "waiter"), name="ann").pid == pid
        ran = waiting.end()
    assert ran.code == 4
    assert "knows nothing of process" in ran.err
