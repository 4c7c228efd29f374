"""The verb `doctor`."""

import os

import click

from aios.cli.checks import CHECKS, Finding, Level
from aios.cli.exits import ExitCode
from aios.cli.options import examples, json_option
from aios.cli.output import printable, write_json
from aios.configload import Loaded, load
from aios.errors import AiosError, ConfigError

KEPT = ("HOME", "XDG_DATA_HOME", "AIOS_HOME")
COLORS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


@click.command(epilog=examples("aios doctor", "aios doctor --json"))
@json_option
def doctor(*, as_json: bool) -> int:
    """Say what is missing and how to mend it; the exit code is 1 when something must be mended."""
    worst = Level.OK
    loaded, finding = _load()
    if finding is not None:
        worst = finding.level
        _show(finding, as_json=as_json)
    for check in CHECKS:
        try:
            finding = check(loaded)
        except AiosError as error:
            finding = Finding(check.__name__, Level.FAIL, error.message, error.hint)
        except OSError as error:  # what cannot be looked at keeps nobody from the rest
            finding = Finding(check.__name__, Level.FAIL, str(error), "check its permissions")
        if finding is not None:
            worst = Level.FAIL if Level.FAIL in (worst, finding.level) else worst
            _show(finding, as_json=as_json)
    return ExitCode.FAILED if worst is Level.FAIL else ExitCode.OK


def _load() -> tuple[Loaded, Finding | None]:
    """The configuration; the defaults, and why, when it cannot be used."""
    try:
        return load(), None
    except ConfigError as error:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        loaded = load(env={**kept, "AIOS_CONFIG": os.devnull})
        return loaded, Finding("config", Level.FAIL, error.message, error.hint)


def _show(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        write_json(finding)
        return
    level = click.style(f"{finding.level.value:<4}", fg=COLORS[finding.level])
    click.echo(f"{level}  {finding.check:<9} {printable(finding.found)}")
    if finding.mend:
        click.echo(f"{'':<16}{click.style('mend:', fg='cyan')} {printable(finding.mend)}")
