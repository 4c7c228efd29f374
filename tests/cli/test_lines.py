"""Log lines on the terminal."""

import json

import pytest

from aios.abi.gate import Line, Token
from aios.abi.types import LogLine, Pid
from aios.cli.lines import LinePrinter


def line(text: str, *, pid: int = 2, stream: str = "out", n_missed: int = 0) -> Line:
    return Line(LogLine(Pid(pid), 1_700_000_000.0, stream, text), n_missed)


def test_the_lines_of_one_process_stand_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter({Pid(2): "reader"})
    printer.write(line("hello"))
    printer.write(line("oh", stream="err"))
    assert capsys.readouterr() == ("hello\noh\n", "")


def test_errors_go_to_stderr_where_streams_are_split(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter({Pid(2): "reader"}, splits_streams=True)
    for stream in ("out", "log", "err", "kernel"):
        printer.write(line(stream, stream=stream))
    assert capsys.readouterr() == ("out\nlog\n", "err\nkernel\n")


def test_several_processes_are_told_apart_by_their_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printer = LinePrinter({Pid(2): "reader", Pid(3): "ed"})
    printer.write(line("a"))
    printer.write(line("b", pid=3))
    assert capsys.readouterr().out == "reader | a\ned     | b\n"


def test_times_stand_before_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    LinePrinter({}, has_times=True).write(line("a"))
    clock, _, text = capsys.readouterr().out.partition(" ")
    assert (len(clock), clock.count(":"), text) == (8, 2, "a\n")


def test_missing_lines_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    LinePrinter({}).write(line("a", n_missed=5))
    assert capsys.readouterr() == ("a\n", "... 5 lines left out, the log is bounded ...\n")


def test_json_has_the_whole_line(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter({Pid(2): "reader"}, as_json=True)
    printer.write(line("a\x1b[2J", n_missed=5))
    assert json.loads(capsys.readouterr().out) == {
        "event": "line",
        "pid": 2,
        "name": "reader",
        "unix_s": 1_700_000_000.0,
        "stream": "out",
        "text": "a\x1b[2J",
        "n_missed": 5,
    }


def test_frames_that_are_no_lines_are_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    LinePrinter({}).write(Token("a"))
    assert capsys.readouterr() == ("", "")
