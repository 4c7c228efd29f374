"""The verb `branch`: branches of a program that are tried side by side; one is committed, the others leave nothing."""

from collections.abc import Sequence

import click

from aios.abi.branches import MAX_BRANCHES, BranchEnd, BranchGroup
from aios.cli.connecting import connect
from aios.cli.fork import tell_branch
from aios.cli.ids import find_process
from aios.cli.options import examples, json_option
from aios.cli.output import Column, counted, printable, write_json, write_table
from aios.cli.when import shown
from aios.sdk.blocking import Client

COLUMNS = (
    Column("GROUP", is_number=True), Column("SOURCE"), Column("STATE"), Column("BEGUN"), Column("BRANCHES"),
)  # fmt: skip


@click.group()
def branch() -> None:
    """Try branches of a program side by side: each in files of its own; one is committed, the others leave nothing."""


@branch.command(
    "start",
    epilog=examples(
        "aios branch start coder -n 4",
        'aios branch start coder --with "Mend the test." --with "Mend the code."',
    ),
)
@click.argument("process", metavar="ID")
@click.option(
    "-n",
    "n_branches",
    type=click.IntRange(1, MAX_BRANCHES),
    default=2,
    help="So many.",
    show_default=True,
)
@click.option(
    "--at", type=click.IntRange(0), metavar="SEQ", help="The last call in common; its last."
)
@click.option(
    "--with",
    "instructions",
    multiple=True,
    metavar="TEXT",
    help="What each chat of one branch ends with; once a branch.",
)
@click.option("--may-act", is_flag=True, help="Let their tools do what cannot be taken back.")
@json_option
def start(
    *,
    process: str,
    n_branches: int,
    at: int | None,
    instructions: Sequence[str],
    may_act: bool,
    as_json: bool,
) -> None:
    """Start branches of program ID from one point, held in: what they change is their own until one is committed.

    With --with, there are as many branches as texts. They share what process ID has left of its budget.
    """
    with connect() as client:
        pid = find_process(process, client.ps(include_ended=True)).pid
        told = client.branches.start(
            len(instructions) or n_branches,
            pid=pid,
            at=at,
            instructions=instructions,
            may_act=may_act,
        )
    if as_json:
        write_json(told)
        return
    click.echo(f"group {told.group}")
    for each in told.branches:
        tell_branch(each, as_json=False)


@branch.command("ls", epilog=examples("aios branch ls", "aios branch ls --all --json"))
@click.option("--all", "with_ended", is_flag=True, help="Also those that have ended.")
@json_option
def list_groups(*, with_ended: bool, as_json: bool) -> None:
    """List groups of branches, the latest first; `*` marks the one that was committed."""
    with connect() as client:
        found = [each for each in client.branches.list_all() if with_ended or each.state == "open"]
    if as_json:
        for each in found:
            write_json(each)
        return
    write_table(COLUMNS, [_row(each) for each in found])


@branch.command("commit", epilog=examples("aios branch commit coder-branch-2"))
@click.argument("process", metavar="ID")
@json_option
def commit(*, process: str, as_json: bool) -> None:
    """Give the source of branch ID what the branch changed, and end its group: the others leave nothing.

    Nothing is merged, and all go on, where files that the branch changed were changed at its source, too.
    """
    with connect() as client:
        pid = find_process(process, client.ps(include_ended=True)).pid
        _tell(client.branches.commit(pid=pid), as_json=as_json)


@branch.command("discard", epilog=examples("aios branch discard 3"))
@click.argument("group", metavar="GROUP", type=click.IntRange(1))
@json_option
def discard(*, group: int, as_json: bool) -> None:
    """End all branches of a group and remove what they made."""
    with connect() as client:
        _tell(client.branches.discard(group), as_json=as_json)


@branch.command("join", epilog=examples("aios branch join 3"))
@click.argument("group", metavar="GROUP", type=click.IntRange(1))
@json_option
def join(*, group: int, as_json: bool) -> None:
    """Wait until a branch of a group is committed, or all have ended; then show how they ended."""
    with connect() as client:
        end = client.branches.join(group)
        _tell(end, as_json=as_json)
        if end.winner is None and not end.discarded and not as_json:
            _show_results(client, group)


def _show_results(client: Client, group: int) -> None:
    found = next(each for each in client.branches.list_all() if each.group == group)
    for each in found.branches:
        end = client.wait(each.pid).exit
        click.echo(
            f"{printable(each.name)} ({each.pid}): {end.status} {printable(end.result or end.reason)}"
        )


def _tell(end: BranchEnd, *, as_json: bool) -> None:
    if as_json:
        write_json(end)
        return
    if end.winner is not None:
        click.echo(f"committed {end.winner}: {counted(end.n_changed, 'file')} changed")
        if end.result:
            click.echo(printable(end.result))
    elif not end.discarded:
        click.echo("all have ended, none is committed yet")
    if end.discarded:
        click.echo(f"discarded {', '.join(map(str, end.discarded))}")
    for each in end.lasting:
        text = f"stays: {each.call} (call {each.seq} of process {each.pid}), {each.effect}, outside of AIOS"
        click.secho(text, fg="yellow", err=True)


def _row(found: BranchGroup) -> list[str]:
    branches = (f"{each.pid}{'*' if each.pid == found.winner else ''}" for each in found.branches)
    source = f"{printable(found.source_name)} ({found.source})"
    return [str(found.group), source, found.state, shown(found.begun_unix_s), " ".join(branches)]
