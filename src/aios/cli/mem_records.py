"""`mem records`: what an agent said, asked and got, as its owner sees it."""

import sys
from collections.abc import Sequence

import click

from aios.abi.interactions import Interaction
from aios.cli.connecting import connect
from aios.cli.ids import find_process
from aios.cli.options import examples, json_option
from aios.cli.output import (
    Column,
    moment,
    printable,
    shortened,
    write_json,
    write_table,
)
from aios.sdk.blocking import Client

PAGE_RECORDS = 100
"""As many as one call reads: they may be long."""
SHOWN_CHARS = 80
"""Of a text in a pipe; a terminal shows what its width holds."""


@click.command(
    epilog=examples(
        "aios mem records reader",
        "aios mem records 12 --first 1 -n 5",
        "aios mem records reader --json",
    )
)
@click.argument("process", metavar="ID")
@click.option(
    "-n",
    "n_records",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="At most so many.",
)
@click.option(
    "--first",
    type=click.IntRange(1),
    metavar="N",
    help="From this number on; without it, the last ones.",
)
@json_option
def records(*, process: str, n_records: int, first: int | None, as_json: bool) -> None:
    """Show what an agent said, asked and got.

    ID is a pid, a name or the beginning of one, also of a process that has ended. Records belong to an agent, and so those of its earlier processes are
    shown, too.
    """
    with connect() as client:
        found = find_process(process, client.ps(include_ended=True))
        read = _read(client, found.pid, n_records, first)
    if as_json:
        for each in read:
            write_json(each)
        return
    if not read:
        behind = "" if first is None else f" from number {first} on"
        click.echo(f"{printable(found.name)} has no records{behind}", err=True)
        return
    columns = [Column("NR", is_number=True), Column("TIME"), Column("KIND"), Column("TEXT")]
    write_table(columns, [_row(each) for each in read])


def _read(client: Client, pid: int, n_records: int, first: int | None) -> Sequence[Interaction]:
    """As many records as asked for, in several calls where one does not hold them."""
    memory, found = client.memory, list[Interaction]()
    if first is None:
        last = memory.read(pid=pid).records
        first = max(1, last[-1].id - n_records + 1) if last else 1
    while len(found) < n_records:
        limit = min(PAGE_RECORDS, n_records - len(found))
        page = memory.read(first, limit, pid=pid).records
        if not page:
            break
        found += page
        first = page[-1].id + 1
    return found


def _row(record: Interaction) -> list[str]:
    text = " ".join(printable(record.text).split())
    if not sys.stdout.isatty():
        text = shortened(text, SHOWN_CHARS)
    return [str(record.id), moment(record.unix_s), printable(record.kind), text]
