"""`aios run` on a kernel that runs."""

import os
import signal
import subprocess
from pathlib import Path
from time import monotonic

import click
import pytest
from tests.cli.conftest import COMMAND, LONGEST_S, Aios, Fifo, Served, Start, Terminals

from aios.cli.run import _named

pytestmark = pytest.mark.usefixtures("served")


def test_the_output_comes_as_it_is_written_and_the_result_at_the_end(
    aios: Aios, programs: Path
) -> None:
    ran = aios("run", programs / "hello", "a", "b c")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "args ['a', 'b c']",
        f"in {Path.cwd()} ",
        "hello from hello",
    ]


def test_paths_are_taken_from_where_the_command_stands(
    aios: Aios, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(programs)
    assert f"in {programs} \n" in aios("run", "hello").out
    assert f"in {programs / 'crash'} \n" in aios("run", "hello", "--cwd", "crash").out


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (["--task", "say hi"], "['--task', 'say hi']"),
        (["x", "--task", "y"], "['x', '--task', 'y']"),
        (["--dir", "docs", "-v"], "['--dir', 'docs', '-v']"),
        (["--name", "n", "--", "--name", "--json"], "['--name', '--json']"),
        (["-n", "1", "--", "-n", "4"], "['-n', '4']"),
    ],
)
def test_the_program_gets_its_own_options_and_all_after_two_dashes(
    aios: Aios, programs: Path, words: list[str], args: str
) -> None:
    assert aios("run", programs / "hello", *words).out.startswith(f"args {args}\n")


def test_variables_reach_the_program(
    aios: Aios, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLOR", "ours")
    assert "ours" not in aios("run", programs / "hello").out
    assert " ours\n" in aios("run", "--env", "COLOR", programs / "hello").out
    assert " blue=sky\n" in aios("run", "--env", "COLOR=blue=sky", programs / "hello").out
    assert aios("run", "--env", "NOT_THERE", programs / "hello").code == 2
    refused = aios("run", "--env", "AIOS_TOKEN=x", programs / "hello")
    assert refused.code == 2
    assert "AIOS_" in refused.err


def test_a_restart_policy_is_asked_for_and_keeps_the_limits_of_the_manifest(
    aios: Aios, programs: Path
) -> None:
    (programs / "status" / "agent.toml").write_text(
        'name = "status"\n[restart]\nmax_restarts = 1\ndelay_s = 0.01\n'
    )
    (programs / "status" / "main.py").write_text("print('a life')\nraise SystemExit(3)")
    assert aios("run", programs / "status").out == "a life\n"
    ran = aios("run", "--restart", "on-failure", programs / "status")
    assert (ran.code, ran.out) == (3, "a life\n" * 2)
    assert aios("run", "--restart", "sometimes", programs / "status").code == 2


def test_the_status_of_the_program_is_the_exit_code(aios: Aios, programs: Path) -> None:
    ran = aios("run", programs / "status", "42")
    assert (ran.code, ran.out) == (42, "")
    assert "exited with status 42" in ran.err


def test_a_traceback_goes_to_stderr(aios: Aios, programs: Path) -> None:
    ran = aios("run", programs / "crash")
    assert (ran.code, ran.out) == (1, "about to fail\n")
    assert "ValueError: too bad" in ran.err


def test_copies_are_numbered_and_told_apart(aios: Aios, programs: Path) -> None:
    ran = aios("run", "-n", "3", "--name", "h", programs / "hello")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert sorted(line for line in lines if "args" in line) == [
        "h-1 | args []",
        "h-2 | args []",
        "h-3 | args []",
    ]
    assert lines[-3:] == [f"h-{n}: hello from h-{n}" for n in (1, 2, 3)]


@pytest.mark.no_cover
def test_more_copies_than_are_followed_at_once_lose_no_line(aios: Aios, programs: Path) -> None:
    (programs / "status" / "main.py").write_text("print('x')")
    ran = aios("run", "-n", "60", programs / "status")
    assert ran.code == 0
    assert [line[-3:] for line in ran.out.splitlines()] == ["| x"] * 60


def test_json_tells_starts_lines_and_ends(aios: Aios, programs: Path) -> None:
    ran = aios("run", programs / "hello", "--json")
    rows = ran.rows()
    assert [row["event"] for row in rows] == ["started", "line", "line", "ended"]
    assert rows[-1]["exit"] == {"status": 0, "reason": "", "result": "hello from hello"}


def test_detach_prints_the_pid_and_leaves(aios: Aios, programs: Path, fifo: Fifo) -> None:
    ran = aios("run", "--detach", programs / "waiter", fifo.path)
    assert (ran.code, ran.err) == (0, "")
    pid, name = ran.out.split()
    assert name == "waiter"
    fifo.let_go()
    assert aios("wait", pid).code == 0


def test_a_detached_program_goes_on_when_nobody_reads_its_pid(
    aios: Aios, start: Start, served: Served, programs: Path, fifo: Fifo
) -> None:
    assert served.kernel.urls
    running = start("run", "--detach", programs / "waiter", fifo.path)
    assert running.process.stdout is not None
    running.process.stdout.close()
    running.process.stdout = None
    assert running.end().err == ""
    fifo.let_go()
    assert aios("wait", "waiter").code == 0


def test_the_process_that_another_kills_ends_the_command_with_its_status(
    aios: Aios, start: Start, programs: Path, fifo: Fifo
) -> None:
    running = start("run", programs / "waiter", fifo.path)
    assert running.line() == "ready"
    aios("kill", "waiter", "--reason", "no time")
    ran = running.end()
    assert ran.code == 137
    assert "waiter (2) ended with status 137: no time" in ran.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_processes(
    aios: Aios, start: Start, programs: Path, fifo: Fifo, number: signal.Signals, code: int
) -> None:
    running = start("run", "-n", "2", programs / "waiter", fifo.path)
    assert running.line().endswith("| ready")
    running.signal(number)
    ran = running.end()
    assert ran.code == code
    assert "Traceback" not in ran.err
    assert "Ctrl-C again leaves at once" in ran.err
    rows = aios("ps", "-a", "--json").rows()
    ends = [row["exit"] for row in rows if row["kind"] == "program"]
    assert [end["status"] for end in ends if isinstance(end, dict)] == [137, 137]


@pytest.mark.parametrize("n_copies", [1, 3])
def test_when_nobody_reads_any_more_the_processes_end(
    aios: Aios, programs: Path, n_copies: int
) -> None:
    command = [*COMMAND, "run", "-n", str(n_copies), str(programs / "chatter")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:  # noqa: S603 - our own program
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline().endswith(b"and another thing\n")
        run.stdout.close()
        assert run.wait(20) == 1
        assert run.stderr.read() == b""
    assert aios("ps", "--json").out == ""


def test_what_is_no_program_is_not_found(aios: Aios, tmp_path: Path) -> None:
    ran = aios("run", tmp_path / "nowhere")
    assert ran.code == 4
    assert "agent.toml is not there" in ran.err
    assert aios("run", tmp_path / "nowhere", "--json").error()["exit_code"] == 4


@pytest.mark.parametrize(
    "words", [["--detatch"], ["-n", "0"], ["-n", "many"], ["--nice", "99"], ["--cwd", "/nowhere"]]
)
def test_senseless_options_are_refused(aios: Aios, programs: Path, words: list[str]) -> None:
    assert aios("run", *words, programs / "hello").code == 2
    assert aios("run").code == 2


def test_a_malformed_manifest_names_its_field(aios: Aios, programs: Path) -> None:
    (programs / "hello" / "agent.toml").write_text('name = "a b"\n')
    ran = aios("run", programs / "hello")
    assert ran.code == 2
    assert "`name`: expected text that is letters, digits" in ran.err


def test_the_table_comes_before_the_output(aios: Aios, programs: Path) -> None:
    ran = aios("run", "--top", programs / "hello")
    assert ran.code == 0
    assert ran.out.endswith("hello from hello\n")
    assert "exit 0" in ran.err
    assert "TOK/S" in ran.err


def test_on_a_terminal_the_table_is_live_and_the_output_comes_after(
    terminal: Terminals, programs: Path, fifo: Fifo
) -> None:
    running = terminal("run", "--top", "-n", "2", "--name", "w", programs / "waiter", fifo.path)
    running.read_until("w-2")
    assert "| ready" not in running.shown
    fifo.let_go(2)
    ran = running.end()
    shown = click.unstyle(ran.out)
    assert ran.code == 0
    assert shown.count("| let go") == 2
    assert shown.rindex("exit 0") < shown.index("| ready")


def test_the_program_runs_before_the_command_has_got_ready_to_follow_it(
    aios: Aios, programs: Path, served: Served
) -> None:
    # What it wrote before the command looked is shown, too.
    assert served.kernel.urls
    for _ in range(3):
        assert "args" in aios("run", programs / "hello").out


def test_no_token_is_shown(aios: Aios, programs: Path, served: Served) -> None:
    ran = aios("run", programs / "hello", "--json")
    assert served.kernel.owner_token not in ran.out + ran.err
    assert os.environ.get("AIOS_TOKEN") is None


def test_a_signal_while_copies_are_started_leaves_none(
    aios: Aios, start: Start, programs: Path, fifo: Fifo
) -> None:
    running = start("run", "-n", "40", programs / "waiter", fifo.path)
    deadline_s = monotonic() + LONGEST_S
    while not aios("ps", "--json").rows():
        assert monotonic() < deadline_s
    running.signal(signal.SIGTERM)
    assert running.end().code == 143
    assert aios("ps", "--json").rows() == []


def test_a_command_that_nohup_began_stays(start: Start, programs: Path, fifo: Fifo) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        running = start("run", programs / "waiter", fifo.path)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert running.line() == "ready"
    running.signal(signal.SIGHUP)
    fifo.let_go()
    assert running.end().code == 0


def test_files_that_arguments_name_are_shown_whatever_stands_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, outside = tmp_path / "work", tmp_path / "outside"
    work.mkdir()
    outside.write_text("")
    for n in range(100):
        (work / f"{n}.md").write_text("")
    (work / "link").symlink_to(outside)
    monkeypatch.chdir(work)
    words = [
        str(outside),
        "x" * 300,
        "a\0b",
        "--to=../outside",
        *(each.name for each in work.iterdir()),
    ]
    found = _named(words, Path())
    assert [Path(each).resolve() for each in found] == [outside] * len(found)
    assert [Path(each).name for each in found] == ["outside", "outside", "link"]
