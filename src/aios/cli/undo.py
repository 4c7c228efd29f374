"""The verb `undo`: take back what a process did to files, and say what stays."""

from datetime import datetime

import click

from aios.abi.undo import Undone
from aios.cli.connecting import connect
from aios.cli.exits import ExitCode
from aios.cli.ids import as_pid, find_process
from aios.cli.options import examples, json_option
from aios.cli.output import counted, printable, write_json
from aios.sdk.blocking import Client


@click.command(
    epilog=examples(
        "aios undo 17 --dry-run",
        "aios undo 17",
        "aios undo writer --last 1",
        "aios undo crew --tree",
        "aios undo 1 --last 1",
    )
)
@click.argument("process", metavar="ID")
@click.option("--last", type=click.IntRange(1, 10_000), help="Only so many of its acts.")
@click.option("--tree", is_flag=True, help="Also what all that it started did.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
def undo(*, process: str, last: int | None, tree: bool, dry_run: bool, as_json: bool) -> None:
    """Bring files back to what they were before process ID changed them, in its workspace too.

    What others have changed since is told and left: the exit code is then 6. The undo is an act of yours, which
    `aios undo 1 --last 1` takes back.
    """
    with connect() as client:
        pid = _pid(client, process)
        done = client.files.undo(pid, last=last, is_dry_run=dry_run, with_children=tree)
    if as_json:
        write_json(done)
    else:
        _show(done)
    if done.conflicts:
        click.get_current_context().exit(ExitCode.CONFLICT)


def _pid(client: Client, process: str) -> int:
    """A number is taken as it is: the process may have ended under an earlier kernel."""
    pid = as_pid(process)
    return pid if pid is not None else find_process(process, client.ps(include_ended=True)).pid


def _show(done: Undone) -> None:
    for act in done.acts:
        when = datetime.fromtimestamp(act.unix_s).astimezone().isoformat(" ", "seconds")[:19]
        what = printable(act.message) or "a call about files"
        whose = f"process {act.pid}: " if act.pid not in (0, done.pid) else ""
        click.echo(f"{when}  {whose}{what}  ({counted(act.n_files, 'file')})")
    for path in done.paths:
        click.echo(f"  {path.what:<9} {printable(path.real or path.path)}")
    for each in done.conflicts:
        click.echo(
            click.style(f"  left      {printable(each.what)}: {printable(each.why)}", fg="yellow")
        )
    for each in done.cannot:
        n = f" x{each.n}" if each.n > 1 else ""
        click.echo(f"  cannot    {printable(each.what)}{n}: {printable(each.why)}")
    verb = "to be brought back" if done.is_dry_run else "brought back"
    click.echo(f"{counted(len(done.paths), 'file')} {verb}, {len(done.conflicts)} left")
