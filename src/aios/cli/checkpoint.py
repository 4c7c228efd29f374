"""The verbs `checkpoint` and `restore`: a whole process put away, and brought back."""

from collections.abc import Sequence

import click

from aios.abi.checkpoints import CheckpointInfo
from aios.cli.connecting import connect
from aios.cli.exits import Outcomes
from aios.cli.ids import find_process
from aios.cli.options import examples, json_option
from aios.cli.output import Column, counted, printable, write_json, write_table
from aios.cli.when import shown

COLUMNS = (
    Column("ID", is_number=True), Column("NAME"), Column("PROCESS"), Column("MADE"), Column("CALL", is_number=True),
    Column("FILES", is_number=True), Column("MAIL", is_number=True), Column("PAGES", is_number=True),
)  # fmt: skip


class MakeGroup(click.Group):
    """A group whose first command is meant where none is named: `aios checkpoint reader`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["make", *args]
        return super().parse_args(ctx, args)


@click.group(cls=MakeGroup)
def checkpoint() -> None:
    """Put processes away, to come back to them with `aios restore`; `aios checkpoint ID` is `aios checkpoint make ID`."""


@checkpoint.command(
    "make", epilog=examples("aios checkpoint reader", "aios checkpoint 7 --name before-edit")
)
@click.argument("process", metavar="ID")
@click.option("--name", help="What to call it.")
@json_option
def make(*, process: str, name: str | None, as_json: bool) -> None:
    """Put program ID away as it is now: what it was told, and so its contexts; its files, short-term memory and mail. It goes on."""
    with connect() as client:
        pid = find_process(process, client.ps(include_ended=True)).pid
        made = client.checkpoints.save(pid, name=name)
    if as_json:
        write_json(made)
        return
    what = f"{counted(made.n_files, 'file')}, {counted(made.n_letters, 'letter')}, {counted(made.n_pages, 'page')} pinned"
    click.echo(f"checkpoint {made.id} of {printable(made.process)} behind call {made.at}: {what}")


@checkpoint.command("ls", epilog=examples("aios checkpoint ls"))
@json_option
def list_checkpoints(*, as_json: bool) -> None:
    """List checkpoints, the latest first."""
    with connect() as client:
        found = client.checkpoints.list_all()
    if as_json:
        for each in found:
            write_json(each)
        return
    write_table(COLUMNS, [_row(each) for each in found])


@checkpoint.command("rm", epilog=examples("aios checkpoint rm before-edit 12"))
@click.argument("which", metavar="NAME|ID...", nargs=-1, required=True)
@json_option
def remove(*, which: Sequence[str], as_json: bool) -> int:
    """Remove checkpoints, and what only they hold. What was restored from them goes on."""
    outcomes = Outcomes(as_json=as_json)
    with connect() as client:
        for each in which:
            with outcomes.each():
                client.checkpoints.remove(each)
                if as_json:
                    write_json({"removed": each})
                else:
                    click.echo(f"removed checkpoint {printable(each)}")
    return outcomes.code


@click.command(epilog=examples("aios restore before-edit", "aios restore 12 --name second-try"))
@click.argument("which", metavar="NAME|ID")
@click.option("--name", help="Begin under this name, in a folder of its own.")
@click.option("--may-differ", is_flag=True, help="Also if its code has changed since.")
@json_option
def restore(*, which: str, name: str | None, may_differ: bool, as_json: bool) -> None:
    """Start a program again from a checkpoint, with the files, the short-term memory and the mail of then.

    If no living process has its name, it goes on under that: later files of its folder are deleted, as versions, and later records are
    gone. Else it begins beside that process, in a folder of its own. What it did outside of AIOS since stays done, and is listed.
    """
    with connect() as client:
        made = client.checkpoints.restore(which, name=name, may_differ=may_differ)
    if as_json:
        write_json(made)
        return
    where = "where it was" if made.is_in_place else "in a folder of its own"
    click.echo(f"{printable(made.name)} ({made.pid}), live behind call {made.at}, {where}")
    for each in made.lasting:
        text = f"stays: {each.call} (call {each.seq} of process {each.pid}), {each.effect}, outside of AIOS"
        click.secho(text, fg="yellow", err=True)


def _row(found: CheckpointInfo) -> list[str]:
    return [
        str(found.id), printable(found.name) or "-", f"{printable(found.process)} ({found.pid})",
        shown(found.made_unix_s), str(found.at), str(found.n_files), str(found.n_letters), str(found.n_pages),
    ]  # fmt: skip
