"""The verbs `grant` and `revoke`: what the owner lets a program do besides. No kernel is needed."""

from pathlib import Path

import click

from aios.cli.exits import ExitCode
from aios.cli.options import examples, json_option
from aios.cli.output import agreed, legible, write_json
from aios.configload import load
from aios.errors import InvalidCall
from aios.kernel.access.grants import Grant, Grants, check_wish, digest_of_folder
from aios.kernel.clock import SystemClock
from aios.kernel.loader import load_program


@click.command(epilog=examples("aios grant", "aios grant examples/hello", "aios grant --yes prog"))
@click.argument("program", required=False, type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Grant what is asked for without a question.")
@json_option
def grant(*, program: Path | None, yes: bool, as_json: bool) -> int:
    """Grant a program the rights that its agent.toml asks for; without PROGRAM list what is granted.

    They hold for this folder as it is now; when anything in it changes they are gone.

    Exit codes: 0 granted or listed, 1 not granted, 2 it asks for what is no right, 4 no such program.
    """
    grants = _grants()
    if program is None:
        held = grants.all()
        if not held and not as_json:
            click.echo("nothing is granted to any program", err=True)
        for each in held:
            _show(each, is_current=_is_current(each), as_json=as_json)
        return ExitCode.OK
    loaded = load_program(str(program))
    rights = loaded.manifest.rights
    if not rights:
        raise InvalidCall(f"{program} asks for no rights", hint="`rights` in agent.toml names them")
    for right in rights:
        check_wish(right)
    seen = digest_of_folder(loaded.folder)
    if not yes:
        click.echo(legible(f"{loaded.manifest.name} in {loaded.folder} asks for:"), err=True)
        for right in rights:
            click.echo(f"  {legible(right)}", err=True)
        if not agreed(
            "Grant it?", unasked="nothing is granted; `--yes` grants it without a question"
        ):
            return ExitCode.FAILED
    given = grants.grant(loaded.folder, rights, SystemClock().unix_s(), seen=seen)
    _show(given, is_current=True, as_json=as_json)
    return ExitCode.OK


@click.command(epilog=examples("aios revoke examples/hello"))
@click.argument("program", type=click.Path(path_type=Path))
@json_option
def revoke(*, program: Path, as_json: bool) -> None:
    """Take back what was granted to a program; processes that run keep it until they end.

    Exit codes: 0 taken back, 4 nothing was granted.
    """
    _show(_grants().revoke(program.resolve()), is_current=False, as_json=as_json)


def _grants() -> Grants:
    return Grants(load().home.grants)


def _is_current(grant: Grant) -> bool:
    return digest_of_folder(Path(grant.program)) == grant.digest


def _show(grant: Grant, *, is_current: bool, as_json: bool) -> None:
    if as_json:
        write_json({"program": grant.program, "rights": grant.rights, "is_current": is_current})
        return
    note = "" if is_current else " (not in force)"
    click.echo(f"{legible(grant.program)}{note}")
    for right in grant.rights:
        click.echo(f"  {legible(right)}")
