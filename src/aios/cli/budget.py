"""The verb `budget`."""

from collections.abc import Sequence

import click

from aios.abi.budget import BudgetInfo, OnBreach, Spent
from aios.abi.types import State
from aios.cli.connecting import connect
from aios.cli.ids import family, find_process
from aios.cli.limits import parse_limits
from aios.cli.options import examples, json_option
from aios.cli.output import Column, short_count, write_json, write_table

COLUMNS = (
    Column("WHAT"),
    Column("LIMIT", is_number=True),
    Column("SPENT", is_number=True),
    Column("HELD", is_number=True),
    Column("LEFT", is_number=True),
)


@click.command(
    epilog=examples(
        "aios budget editor",
        "aios budget editor completion_tokens=5000 calls=100",
        "aios budget editor tool_calls=+20 --cont",
    )
)
@click.argument("process_id", metavar="ID")
@click.argument("words", metavar="[WHAT=N]...", nargs=-1)
@click.option(
    "--on-breach",
    type=click.Choice(["pause", "fail"]),
    help="What happens when a call does not fit: the process is stopped, or the call fails.",
)
@click.option("--cont", is_flag=True, help="Then let the process go on, as `aios cont` does.")
@json_option
def budget(
    *, process_id: str, words: Sequence[str], on_breach: OnBreach | None, cont: bool, as_json: bool
) -> None:
    """Show what process ID and all that it starts may spend, have spent and hold; with WHAT=N, set it first.

    WHAT is prompt_tokens, completion_tokens, calls (those that use a model), tool_calls (at each tool's cost), money_micros (millionths
    of the currency of the prices), written_bytes (of files), children (alive at once) or wall_ms (while something of it is at work); N is a number, `+` and a number for so
    many more (where there is no limit: than are spent), or `none` to lift the limit. LEFT counts the limits of all above it as well.
    """
    with connect() as client:
        table = client.ps(include_ended=True)
        process = find_process(process_id, table)
        about = client.budget(process.pid)
        if words or on_breach is not None:
            limits = parse_limits(words, about.limits, _used(about))
            about = client.set_budget(process.pid, limits, on_breach=on_breach or about.on_breach)
        if cont:
            client.cont(process.pid)
    if as_json:
        write_json(about)
    else:
        write_table(COLUMNS, _rows(about))
        # A new limit alone lets nobody go on.
        held = [each for each in family(table, {process.pid}) if each.state is State.STOPPED]
        if words and held and not cont:
            names = ", ".join(f"{each.name} ({each.pid})" for each in held)
            click.echo(f"hint: still stopped: {names}; `aios cont {process.pid}`", err=True)


def _used(about: BudgetInfo) -> Spent:
    """What is spent, and held for what runs."""
    names = Spent.__struct_fields__
    return Spent(**{name: getattr(about.spent, name) + getattr(about.held, name) for name in names})


def _rows(about: BudgetInfo) -> list[list[str]]:
    rows = []
    for what in about.limits.__struct_fields__:
        limit, left = getattr(about.limits, what), getattr(about.left, what)
        amounts = (limit, getattr(about.spent, what), getattr(about.held, what), left)
        rows.append([what, *("-" if amount is None else short_count(amount) for amount in amounts)])
    return rows
