"""The command as a whole: help, usage, errors at the edge, and what it does not import."""

import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tests.cli.conftest import Aios, Fifo, Served, Start, Terminals

from aios import __version__
from aios.cli import main as edge
from aios.cli.exits import ExitCode
from aios.cli.main import SECTIONS, VERBS, main
from aios.errors import NotFound


def test_alone_it_shows_its_help(aios: Aios) -> None:
    ran = aios()
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == aios("--help").out
    for title, verbs in SECTIONS.items():
        assert f"{title}:" in ran.out
        assert all(f"  {name} " in ran.out for name in verbs)


def test_help_is_shown_without_importing_a_single_verb() -> None:
    code = (
        "import sys; from aios.cli.main import main; main(['--help']);"
        "print([m for m in sys.modules if m.startswith('aios.cli.')])"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter and a fixed line
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "['aios.cli.hints', 'aios.cli.exits', 'aios.cli.main']"


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help_with_examples_and_json(aios: Aios, name: str) -> None:
    assert len(VERBS[name].help) <= 60
    verb = VERBS[name].load()
    parts = [[name]]
    if isinstance(verb, click.Group) and not verb.invoke_without_command:
        parts = [[name, part] for part in verb.commands]
    for words in parts:
        ran = aios(*words, "--help")
        assert ran.code == 0
        assert "--json" in ran.out
        assert "Examples:\n    " in ran.out
        assert f"aios {' '.join(words)}" in ran.out


def test_version(aios: Aios) -> None:
    assert aios("--version").out == f"aios {__version__}\n"


@pytest.mark.parametrize(
    "words", [["frobnicate"], ["--frobnicate"], ["ps", "--frobnicate"], ["kill"]]
)
def test_a_senseless_command_line_ends_with_2_and_points_to_the_help(
    aios: Aios, words: list[str]
) -> None:
    ran = aios(*words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert "--help` shows how" in ran.err.splitlines()[1]


def test_a_verb_that_is_nearly_one_is_answered_with_the_one_that_was_meant(aios: Aios) -> None:
    assert "Did you mean `journal`?" in aios("jounral").err
    assert "Did you mean" not in aios("frobnicate").err


def test_a_group_alone_shows_its_help_and_ends_with_2(aios: Aios) -> None:
    ran = aios("mem")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: aios mem")
    assert "owner's" in ran.err


def test_only_quotes_around_a_word_become_backticks(aios: Aios) -> None:
    err = aios("run", "--nice", "it's", ".").err
    assert "`--nice`" in err
    assert "it's" in err


def test_text_that_is_no_utf8_is_the_callers_mistake(aios: Aios) -> None:
    ran = aios("chat", "bad\udcff")
    assert ran.code == ExitCode.USAGE
    assert "is no text in UTF-8" in ran.err


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aios", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"aios {__version__}\n"


def test_a_senseless_command_line_with_json_is_told_as_json(aios: Aios) -> None:
    error = aios("ps", "--json", "--frobnicate").error()
    assert (error["code"], error["exit_code"]) == ("usage", 2)


def test_json_after_two_dashes_is_not_ours(aios: Aios) -> None:
    assert aios("run", "/nowhere", "--", "--json").err.startswith("error: ")


def test_a_short_command_does_not_pay_for_an_event_loop(served: Served) -> None:
    assert served.kernel.urls
    code = (
        "import sys; from aios.cli.main import main; main(['ps']);"
        "print([m for m in ('aios.config', 'asyncio', 'anyio', 'rich', 'httpx', 'difflib', 'shutil') if m in sys.modules])"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter and a fixed line
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_colours_show_only_on_a_terminal_that_wants_them(
    terminal: Terminals, aios: Aios, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b[" not in aios("frobnicate").err
    assert "\x1b[" in terminal("frobnicate").end().out
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b[" not in terminal("frobnicate").end().out
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in terminal("frobnicate").end().out


def test_it_runs_where_its_standard_files_are_closed(served: Served) -> None:
    assert served.kernel.urls
    for closed in (">&-", "2>&-", "<&- >&- 2>&-"):
        line = f"exec {sys.executable} -m aios ps {closed}"
        done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter and fixed words
        assert (done.returncode, done.stderr) == (0, "")


def test_several_errors_at_once_are_told_as_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ExceptionGroup("x", [ExceptionGroup("y", [NotFound("gone")]), NotFound("too")])

    monkeypatch.setattr(edge.cli, "main", fail)
    assert main(["ps"]) == 4
    assert capsys.readouterr().err == "error: gone\n"


def test_bugs_in_a_group_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ExceptionGroup("x", [ValueError("y")])

    monkeypatch.setattr(edge.cli, "main", fail)
    with pytest.raises(ExceptionGroup):
        main(["ps"])


def test_a_file_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/some/file")

    monkeypatch.setattr(edge.cli, "main", fail)
    assert main(["ps"]) == 1
    assert capsys.readouterr().err == "error: /some/file: Permission denied\n"


def test_a_bug_is_one_line_and_the_traceback_only_for_those_who_ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edge.report_bug(ValueError, ValueError("odd"), None)
    err = capsys.readouterr().err
    assert err.startswith("error: a bug in aios: ValueError: odd\nhint: AIOS_DEBUG=1")
    monkeypatch.setenv("AIOS_DEBUG", "1")
    edge.report_bug(ValueError, ValueError("odd"), None)
    assert capsys.readouterr().err.startswith("ValueError: odd\n")


def test_a_reader_that_has_enough_ends_the_command_without_a_word(start: Start) -> None:
    running = start("config", "--json")
    assert running.process.stdout is not None
    running.process.stdout.close()
    running.process.stdout = None
    ran = running.end()
    assert (ran.code, ran.err) == (1, "")


def test_ctrl_c_ends_with_130(
    start: Start, served: Served, aios: Aios, programs: Path, fifo: Fifo
) -> None:
    assert served.kernel.urls
    aios("run", "--detach", programs / "waiter", fifo.path)
    running = start("logs", "-f", "waiter")
    assert running.line()
    running.signal(signal.SIGINT)
    ran = running.end()
    assert ran.code == 130
    assert "Traceback" not in ran.err


def test_the_guide_names_every_verb_and_every_exit_code() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "command-line.md").read_text()
    assert [name for name in VERBS if f"`{name}" not in guide] == []
    assert [int(code) for code in ExitCode if f"| {int(code)}" not in guide and code < 100] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("mem", "search", "x", "-n", "many"), "`many` is no whole number"),
        (("nice", "-n", "1.5", "x"), "`1.5` is no whole number"),
        (("chat", "x", "--temperature", "hot"), "`hot` is no number"),
        (("mem", "add", "x", "--importance", "much"), "`much` is no number"),
    ],
)
def test_what_is_no_number_is_said_in_plain_words(
    aios: Aios, words: tuple[str, ...], told: str
) -> None:
    ran = aios(*words)
    assert (ran.code, told in ran.err) == (2, True), ran.err


@pytest.mark.usefixtures("served")
def test_a_number_that_is_too_large_is_no_bug(aios: Aios) -> None:
    huge = "9" * 20
    for words, code in (
        (("undo", huge), 4),
        (("undo", "\u00b2"), 4),
        (("journal", huge), 4),
        (("audit", "log", "--last", huge), 2),
        (("audit", "log", "--pid", huge), 2),
        (("timer", "rm", huge), 2),
        (("mem", "show", huge), 2),
    ):
        ran = aios(*words)
        assert (ran.code, "bug" in ran.err) == (code, False), ran
