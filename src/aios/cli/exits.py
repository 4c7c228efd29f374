"""How commands end: exit codes, and errors as one line for people or one JSON object for programs."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum

import click

from aios.cli.hints import NO_OPTIONS, for_commands, for_message, options_of
from aios.errors import (
    AccessDenied,
    AiosError,
    BudgetExceeded,
    ConfigError,
    Conflict,
    ContextWindowExceeded,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidCall,
    KernelStopping,
    KernelUnreachable,
    ModelMissing,
    NoProgress,
    NotFound,
    RateLimited,
    ReplayDivergence,
    ResourceExhausted,
    SnapshotIncompatible,
    TooLarge,
    Unauthenticated,
    Unsupported,
)


class ExitCode(IntEnum):
    """What the shell sees. `wait` and a `run` in the foreground end with the program's own status instead."""

    OK = 0
    FAILED = 1  # it was tried and did not work
    USAGE = 2  # the command, an argument or the configuration makes no sense
    NO_KERNEL = 3
    NOT_FOUND = 4  # no such process, program or model
    DENIED = 5
    CONFLICT = 6  # it has ended already, or is there already
    NO_ENGINE = 7  # no model to run, or the engine cannot be reached
    BUSY = 8  # a queue is full or a time limit passed: try again later
    INTERRUPTED = 130  # Ctrl-C
    TERMINATED = 143  # SIGTERM


_CODES: tuple[tuple[type[AiosError], ExitCode], ...] = (
    (InvalidCall, ExitCode.USAGE),
    (ConfigError, ExitCode.USAGE),
    (Unsupported, ExitCode.USAGE),
    (TooLarge, ExitCode.USAGE),
    (ContextWindowExceeded, ExitCode.USAGE),
    (KernelUnreachable, ExitCode.NO_KERNEL),
    (KernelStopping, ExitCode.NO_KERNEL),
    (NotFound, ExitCode.NOT_FOUND),
    (ReplayDivergence, ExitCode.CONFLICT),
    (AccessDenied, ExitCode.DENIED),
    (Unauthenticated, ExitCode.DENIED),
    (BudgetExceeded, ExitCode.DENIED),
    (SnapshotIncompatible, ExitCode.CONFLICT),
    (Conflict, ExitCode.CONFLICT),
    (NoProgress, ExitCode.CONFLICT),
    (ModelMissing, ExitCode.NO_ENGINE),
    (EngineUnavailable, ExitCode.NO_ENGINE),
    (ResourceExhausted, ExitCode.BUSY),
    (RateLimited, ExitCode.BUSY),
    (DeadlineExceeded, ExitCode.BUSY),
)


def exit_code_of(error: AiosError) -> ExitCode:
    """The exit code for an error."""
    return next((code for cls, code in _CODES if isinstance(error, cls)), ExitCode.FAILED)


def report(error: AiosError, *, as_json: bool, options: Mapping[str, str] = NO_OPTIONS) -> ExitCode:
    """Tell an error on stderr; return the exit code that goes with it. With `AIOS_DEBUG` the traceback comes first.

    `options` are those of the command by the arguments that they stand for (`hints.options_of`).
    """
    if os.environ.get("AIOS_DEBUG"):
        import traceback  # noqa: PLC0415 - start-up time

        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    code = exit_code_of(error)
    tell(
        for_message(error.message, options),
        hint=for_commands(error.hint, options),
        code=error.code,
        exit_code=code,
        as_json=as_json,
    )
    return code


def tell(message: str, *, hint: str, code: str, exit_code: int, as_json: bool) -> None:
    """Write `error: ...` and `hint: ...`, or the same as JSON, on stderr."""
    if as_json:
        told = {"code": code, "message": message, "hint": hint, "exit_code": int(exit_code)}
        import json  # noqa: PLC0415 - start-up time

        click.echo(json.dumps({"error": told}), err=True)
        return
    from aios.cli.output import printable  # noqa: PLC0415 - start-up time

    color = wants_color()  # said here, for errors are told after click's own context has gone
    error = click.style("error:", fg="red", bold=True)
    click.echo(f"{error} {printable(message)}", err=True, color=color)
    if hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {printable(hint)}", err=True, color=color)


def wants_color() -> bool | None:
    """Whether to use colours: not with `NO_COLOR`, nor on a dumb terminal; None leaves it to whether the output is a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


class Outcomes:
    """The exit code of a command that does the same to several things: the first failure decides, the rest goes on."""

    def __init__(self, *, as_json: bool) -> None:
        self.code: int = ExitCode.OK
        self._as_json = as_json

    @contextmanager
    def each(self) -> Iterator[None]:
        """Around one of the things: an error is told, and is not the end."""
        try:
            yield
        except (KernelUnreachable, KernelStopping):
            raise  # the others would fail in the same way
        except AiosError as error:
            context = click.get_current_context(silent=True)
            options = options_of(context.command if context is not None else None)
            self.add(report(error, as_json=self._as_json, options=options))

    def add(self, code: int) -> None:
        """Take in the code of one of the things."""
        self.code = self.code or code
