"""The verb `fork`: a program again from one of its calls on, with other words, in a folder of its own."""

from collections.abc import Sequence

import click

from aios.abi.fork import Forked
from aios.abi.journal import Recorded
from aios.cli.connecting import connect
from aios.cli.ids import find_process
from aios.cli.options import examples, json_option
from aios.cli.output import printable, write_json
from aios.cli.run import environment

MAX_BRANCHES = 64
N_LOOKED_AT = 100
"""Calls before a point that are looked at, for others that were in flight with them."""


@click.command(
    epilog=examples(
        "aios fork reader --at 40", 'aios fork 7 --at 40 --with "Answer in French." -n 3'
    )
)
@click.argument("process", metavar="ID")
@click.option(
    "--at", type=click.IntRange(0), metavar="SEQ", help="The last call in common; its last."
)
@click.option("--with", "instruction", default="", metavar="TEXT", help="What each chat ends with.")
@click.option("-n", "n_branches", type=click.IntRange(1, MAX_BRANCHES), default=1, help="So many.")
@click.option("--name", help="The name of the branch; NAME-fork without.")
@click.option(
    "--env", "pairs", multiple=True, metavar="K=V", help="A variable; K alone takes ours."
)
@json_option
def fork(
    *,
    process: str,
    at: int | None,
    instruction: str,
    n_branches: int,
    name: str | None,
    pairs: Sequence[str],
    as_json: bool,
) -> None:
    """Start the program of process ID again: told by the journal what it was told up to call SEQ, live behind it.

    A branch has the contexts, mail, short-term memory and the files of its folder as they were then, in a folder of its own. It has not: children (one
    that waits for a child of ID's gets `not_found`, so go back to before it was spawned), notes that only ID may read, locks, and the working folder
    outside of AIOS. The process itself, living or ended, is left as it is. The environment of an ended one is not kept: give it with --env.
    `aios replay BRANCH --diff ID` compares them.
    """
    with connect() as client:
        pid = find_process(process, client.ps(include_ended=True)).pid
        for _ in range(n_branches):
            branch = client.journal.fork(
                pid, at=at, instruction=instruction, name=name, env=environment(pairs)
            )
            tell_branch(branch, as_json=as_json)
            at = branch.at  # of all: the process itself goes on meanwhile
        if at:
            tell_overlaps(client.journal.read(pid, after=max(0, at - N_LOOKED_AT)).records, at)


def tell_overlaps(records: Sequence[Recorded], at: int) -> None:
    """Say which calls behind a point had begun before it, and may have changed what a branch finds there."""
    done_unix_s = max((r.ended_unix_s or 0.0 for r in records if r.seq <= at), default=0.0)
    begun = [
        str(record.seq)
        for record in records
        if record.seq > at and not record.within and record.effect != "pure"
        if record.begun_unix_s < done_unix_s
    ]
    if begun:
        told = f"hint: call {', '.join(begun)} had begun before call {at} was done: what it changed may be there"
        click.echo(f"{told}; go back to before both to be sure", err=True)


def tell_branch(branch: Forked, *, as_json: bool) -> None:
    """A branch on stdout."""
    if as_json:
        write_json(branch)
    else:
        click.echo(f"{printable(branch.name)} ({branch.pid}), live behind call {branch.at}")
