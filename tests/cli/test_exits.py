"""Exit codes and how errors are told."""

import json

import click
import pytest

from aios.cli.exits import ExitCode, Outcomes, exit_code_of, report
from aios.cli.ids import find_process
from aios.errors import (
    AccessDenied,
    AiosError,
    CallerError,
    Conflict,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidCall,
    KernelBug,
    KernelUnreachable,
    ModelMissing,
    NotFound,
    ProcessGone,
    ResourceExhausted,
    ToolFailed,
    Unauthenticated,
    error_classes,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidCall, 2),
        (KernelUnreachable, 3),
        (NotFound, 4),
        (AccessDenied, 5),
        (Unauthenticated, 5),
        (Conflict, 6),
        (ProcessGone, 6),
        (ModelMissing, 7),
        (EngineUnavailable, 7),
        (ResourceExhausted, 8),
        (DeadlineExceeded, 8),
        (KernelBug, 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: type[AiosError], code: int) -> None:
    assert exit_code_of(error("x")) == code


def test_no_error_ends_with_success_and_no_mistake_of_the_caller_is_a_plain_failure() -> None:
    for cls in error_classes().values():
        code = exit_code_of(cls("x"))
        assert code != ExitCode.OK
        if issubclass(cls, CallerError) and cls is not CallerError:
            assert code != ExitCode.FAILED, cls


def test_an_error_is_a_line_and_a_hint_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    code = report(NotFound("no such thing", hint="look elsewhere"), as_json=False)
    out, err = capsys.readouterr()
    assert (code, out) == (ExitCode.NOT_FOUND, "")
    assert err == "error: no such thing\nhint: look elsewhere\n"


def test_an_error_as_json_has_everything_in_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    report(NotFound("no such thing", hint="look elsewhere"), as_json=True)
    assert json.loads(capsys.readouterr().err) == {
        "error": {
            "code": "not_found",
            "message": "no such thing",
            "hint": "look elsewhere",
            "exit_code": 4,
        }
    }


def test_the_traceback_shows_only_when_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report(NotFound("gone"), as_json=False)
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("AIOS_DEBUG", "1")
    with pytest.raises(NotFound) as caught:
        find_process("nobody", [])
    report(caught.value, as_json=False)
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_one_failure_of_several_is_told_and_decides_the_code_and_the_rest_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcomes, n_done = Outcomes(as_json=False), 0
    for error in (None, Conflict("taken"), NotFound("gone"), None):
        with outcomes.each():
            if error is not None:
                raise error
            n_done += 1
    assert outcomes.code == ExitCode.CONFLICT
    assert n_done == 2
    assert capsys.readouterr().err == "error: taken\nerror: gone\n"


def test_a_kernel_that_went_away_ends_the_whole_command() -> None:
    outcomes = Outcomes(as_json=False)
    with pytest.raises(KernelUnreachable), outcomes.each():
        raise KernelUnreachable("gone")


def test_one_failure_of_several_is_told_in_words_of_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = click.Command("kill", params=[click.Option(["--reason"])])
    with click.Context(command), Outcomes(as_json=False).each():
        raise InvalidCall("`reason`: expected text", hint="shorten `reason`")
    assert capsys.readouterr().err == "error: `--reason`: expected text\nhint: shorten `--reason`\n"


def test_what_others_say_in_an_error_takes_no_terminal_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = ToolFailed("x\x1b]52;c;ZXZpbA==\x07y\x9b2J", hint="z\x1b]0;t\x07")
    report(said, as_json=False)
    err = capsys.readouterr().err
    assert not set("\x1b\x07\x9b") & set(err)
    assert "x" in err
