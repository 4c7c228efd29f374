"""The verb `timer`: programs that are started at a time; `aios run --at` and `--every` set them."""

from collections.abc import Sequence

import click

from aios.abi.timers import TimerInfo
from aios.cli.connecting import connect
from aios.cli.exits import Outcomes
from aios.cli.options import examples, json_option
from aios.cli.output import Column, printable, write_json, write_table
from aios.cli.when import shown

COLUMNS = (
    Column("ID", is_number=True), Column("NEXT"), Column("EVERY"), Column("ZONE"), Column("MISSED"),
    Column("RUNS", is_number=True), Column("FAILED", is_number=True), Column("LATE", is_number=True), Column("PROGRAM"),
)  # fmt: skip


@click.group()
def timer() -> None:
    """List and remove timers. `aios run --at TIME` and `aios run --every CRON` set them."""


@timer.command("ls", epilog=examples("aios timer ls", "aios timer ls --json | jq .next_unix_s"))
@json_option
def list_timers(*, as_json: bool) -> None:
    """List timers, the next first. LATE counts the runs that were missed and left out; NEXT is a time in the timer's ZONE.

    A single run that failed, or was missed and left out, stays in the list, with NEXT `-`, until `aios timer rm`.
    """
    with connect() as client:
        found = client.timers.list()
    if as_json:
        for each in found:
            write_json(each)
        return
    write_table(COLUMNS, [_row(each) for each in found])
    for each in found:
        if each.fault:
            click.secho(f"timer {each.id}: {printable(each.fault)}", fg="red", err=True)


@timer.command("rm", epilog=examples("aios timer rm 3"))
@click.argument("ids", metavar="ID...", type=click.IntRange(1), nargs=-1, required=True)
@json_option
def remove(*, ids: Sequence[int], as_json: bool) -> int:
    """Remove timers; what they started goes on."""
    outcomes = Outcomes(as_json=as_json)
    with connect() as client:
        for timer_id in ids:
            with outcomes.each():
                removed = client.timers.remove(timer_id)
                if as_json:
                    write_json(removed)
                else:
                    click.echo(f"removed timer {removed.id} of {printable(removed.program)}")
    return outcomes.code


@timer.command("run", epilog=examples("aios timer run 3"))
@click.argument("timer_id", metavar="ID", type=click.IntRange(1))
@json_option
def run_now(*, timer_id: int, as_json: bool) -> None:
    """Start the program of a timer now, besides its runs."""
    with connect() as client:
        spawned = client.timers.run(timer_id)
    if as_json:
        write_json(spawned)
    else:
        click.echo(f"{spawned.pid}  {spawned.name}")


def _row(found: TimerInfo) -> list[str]:
    words = " ".join((found.program, *found.args))
    return [
        str(found.id), shown(found.next_unix_s, found.zone), found.cron or "-", found.zone, found.missed,
        str(found.n_runs), str(found.n_failed), str(found.n_missed), printable(words),
    ]  # fmt: skip
