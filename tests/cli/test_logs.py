"""`aios logs` against a kernel that runs."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios, Fifo, Start
from tests.kernel.test_resume import daemon, owner

from aios.abi.gate import Line
from aios.abi.recovery import Restart
from aios.abi.types import LogLine, Pid
from aios.cli.lines import LinePrinter
from aios.cli.logs import _write_new

LISTENER = """\
from aios.sdk.blocking import connect
with connect() as client:
    print("ready", flush=True)
    print(client.mail.receive().body, flush=True)
    client.exit(0)
"""


@pytest.mark.usefixtures("served")
def test_logs_shows_both_streams_and_tail_only_the_end(
    aios: Aios, programs: Path, fifo: Fifo
) -> None:
    fifo.let_go()
    assert aios("run", programs / "waiter", fifo.path).code == 0
    assert sorted(aios("logs", "waiter").out.splitlines()) == ["a complaint", "let go", "ready"]
    assert len(aios("logs", "waiter", "--tail", "1").out.splitlines()) == 1
    assert aios("logs", "waiter", "--tail", "0").out == ""


@pytest.mark.usefixtures("served")
def test_a_process_that_wrote_nothing_is_told_of_with_where_its_result_is(
    aios: Aios, programs: Path
) -> None:
    silent = programs / "silent"
    silent.mkdir()
    (silent / "agent.toml").write_text('name = "silent"\n')
    (silent / "main.py").write_text(
        "import aios\n\n\ndef main(client: aios.blocking.Client) -> str:\n"
        '    return "42"\n\n\naios.run(main)\n'
    )
    assert aios("run", silent).out == "42\n"
    ran = aios("logs", "silent")
    pid = aios("ps", "--all", "--json").rows()[-1]["pid"]
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == (
        f"silent ({pid}) has written nothing; `aios wait {pid}` shows what it returned\n"
    )
    assert aios("wait", "silent").out == "42\n"
    assert aios("logs", "silent", "--json").err == ""
    assert aios("logs", "silent", "--tail", "0").err == ""


@pytest.mark.usefixtures("served")
def test_follow_goes_on_until_the_process_ends(
    aios: Aios, start: Start, programs: Path, fifo: Fifo
) -> None:
    aios("run", "--detach", programs / "waiter", fifo.path)
    following = start("logs", "-f", "waiter")
    seen = {following.line(), following.line()}
    fifo.let_go()
    assert seen == {"ready", "a complaint"}
    ran = following.end()
    assert (ran.code, ran.out) == (0, "let go\n")


@pytest.mark.usefixtures("served")
def test_several_processes_are_followed_at_once(aios: Aios, programs: Path, fifo: Fifo) -> None:
    aios("run", "--detach", "-n", "2", "--name", "w", programs / "waiter", fifo.path)
    fifo.let_go(2)
    ran = aios("logs", "-f", "w-1", "w-2")
    assert ran.code == 0
    assert sorted(ran.out.splitlines()) == sorted(
        f"w-{number} | {text}" for number in (1, 2) for text in ("ready", "a complaint", "let go")
    )


@pytest.mark.usefixtures("served")
def test_logs_as_json_name_the_process(aios: Aios, programs: Path) -> None:
    aios("run", programs / "status", "4")
    (row,) = aios("logs", "status", "--json").rows()
    assert (row["event"], row["name"], row["stream"]) == ("line", "status", "kernel")
    assert row["text"] == "exited with status 4"


@pytest.mark.usefixtures("served")
def test_an_unknown_process_does_not_keep_the_others_from_being_read(
    aios: Aios, programs: Path
) -> None:
    aios("run", programs / "status", "4")
    ran = aios("logs", "nobody", "status")
    assert (ran.code, ran.out) == (4, "exited with status 4\n")


def test_a_line_is_old_by_its_number_and_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a write of two lines the kernel was killed behind the first; others had not come to disk; the clock was set back."""

    def line(number: int, unix_s: float, text: str) -> Line:
        return Line(LogLine(Pid(2), unix_s, "out", text, number))

    printer, seen = LinePrinter({Pid(2): "ann"}), dict[int, LogLine]()
    for each in (line(0, 10.0, "a"), line(1, 11.0, "b"), line(2, 12.0, "c")):
        _write_new(printer, {}, seen, each)
    after = [line(0, 10.0, "a"), line(1, 11.0, "b"), line(2, 12.5, "new 2"), line(3, 12.0, "d")]
    for each in [*after, line(4, 5.0, "e")]:
        _write_new(printer, {2: line(2, 12.0, "c").line}, seen, each)
    assert capsys.readouterr().out.split("\n") == ["a", "b", "c", "new 2", "d", "e", ""]


@pytest.mark.parametrize("names", [["ann"], ["ann", "bob"]])
def test_follow_goes_on_when_a_kernel_that_was_killed_is_started_again(
    home: Path, start: Start, programs: Path, names: list[str]
) -> None:
    (programs / "waiter" / "main.py").write_text(LISTENER)
    with daemon(home):
        with owner(home) as client:
            for name in names:
                restart = Restart(policy="on-failure")
                client.spawn(str(programs / "waiter"), name=name, restart=restart)
        following = start("logs", "-f", *names)
        assert {following.line().split()[-1] for _ in names} == {"ready"}
    following.complains("waiting until it is back")
    with daemon(home):
        with owner(home) as client:
            for each in client.ps(include_ended=True):
                if each.name in names:
                    client.mail.send(each.pid, f"a letter for {each.name}")
        ran = following.end()
    assert ran.code == 0, ran
    assert sum("a letter for" in line for line in ran.out.splitlines()) == len(names), ran


def test_a_run_whose_kernel_is_killed_says_how_its_program_is_followed(
    home: Path, start: Start, programs: Path
) -> None:
    (programs / "waiter" / "main.py").write_text(LISTENER)
    with daemon(home):
        running = start("run", "--restart", "on-failure", programs / "waiter")
        assert running.line() == "ready"
    running.complains("go on under the next kernel: `aios logs -f waiter`")
    running.complains("start it again (`aios serve`)")
    assert running.end().code == 3
