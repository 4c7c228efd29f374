"""The verb `replay`: a run again, without model, tools or kernel, and where two runs part."""

from collections.abc import Collection
from pathlib import Path
from time import perf_counter

import click

from aios.cli.connecting import connect
from aios.cli.exits import ExitCode
from aios.cli.fork import tell_branch
from aios.cli.gist import parted_lines
from aios.cli.ids import find_process
from aios.cli.journal import show_record
from aios.cli.options import examples, json_option
from aios.cli.output import counted, write_json
from aios.cli.runs import find_run
from aios.errors import InvalidCall, NotFound
from aios.kernel.inspection import recorded
from aios.kernel.journal.difference import Difference, Parting, find_difference
from aios.kernel.journal.runfile import Run
from aios.kernel.journal.tables import Row
from aios.kernel.replay import retell


@click.command(
    epilog=examples("aios replay reader", "aios replay 7 --until 20", "aios replay a.run --diff 9")
)
@click.argument("run", metavar="ID|FILE")
@click.option("--until", type=click.IntRange(1), metavar="SEQ", help="Stop behind this call.")
@click.option("--diff", "other", metavar="ID|FILE", help="Only say where that run parts from it.")
@click.option(
    "--live-from", type=click.IntRange(1), metavar="SEQ", help="Go on live from it, as `aios fork`."
)
@json_option
def replay(
    *, run: str, until: int | None, other: str | None, live_from: int | None, as_json: bool
) -> None:
    """Ask the calls of a run again and show what each is told: from the journal of AIOS_HOME or a file of `aios journal export`.

    No model, no tool and no kernel is needed, and nothing happens. A call that the journal would not find again is a divergence, and ends it.
    With --live-from the program itself runs again as a branch, on the kernel that runs, with models and tools from call SEQ on. With --diff the exit code is 1 if the runs differ; times and pids of processes are no difference.
    """
    if live_from is not None:
        if until is not None or other is not None:
            raise click.UsageError("--live-from goes with neither --until nor --diff")
        if not run.isdecimal() and Path(run).is_file():
            raise InvalidCall(
                f"{run} is a file", hint="only a process can go on: its program is here"
            )
        with connect() as client:
            pid = find_process(run, client.ps(include_ended=True)).pid
            try:
                branch = client.journal.fork(pid, at=live_from - 1)
            except NotFound as error:
                raise NotFound(
                    f"nothing can go on live from call {live_from}: {error.message}",
                    hint=error.hint,
                ) from error
            tell_branch(branch, as_json=as_json)
        return
    found = find_run(run)
    rows = _until(found, until)
    if other is not None:
        beside = find_run(other)
        names = {found.name, beside.name}
        difference = find_difference(rows, _until(beside, until), names=names)
        _tell_difference(difference, len(rows), names=names, as_json=as_json)
        if difference is not None:
            click.get_current_context().exit(ExitCode.FAILED)
        return
    begun_s = perf_counter()
    for row in retell(rows):
        show_record(recorded(row), as_json=as_json)
    took_s = perf_counter() - begun_s
    if not as_json:
        rate = len(rows) / max(took_s, 1e-9)
        click.secho(
            f"{counted(len(rows), 'call')} told in {took_s:.2f} s, {rate:,.0f} a second", dim=True
        )


def _until(run: Run, until: int | None) -> tuple[Row, ...]:
    if until is None:
        return run.rows
    rows = tuple(row for row in run.rows if row.record.seq <= until)
    if not rows:
        first = run.rows[0].record.seq if run.rows else 0
        raise NotFound(f"no call up to {until}", hint=f"the first that is kept is {first}")
    return rows


def _tell_difference(
    difference: Difference | None, n_calls: int, *, names: Collection[str], as_json: bool
) -> None:
    if as_json:
        write_json(_as_object(difference, n_calls))
        return
    if difference is None:
        click.echo(f"the same, {counted(n_calls, 'call')}")
        return
    how = {
        Parting.CALL: "they ask for different things",
        Parting.ANSWER: "the same was asked, and answered otherwise",
        Parting.END: "one asks no more",
    }[difference.kind]
    click.secho(f"the same for {counted(difference.n_equal, 'call')}, then {how}:", bold=True)
    left, right = (
        None if row is None else recorded(row) for row in (difference.left, difference.right)
    )
    for sign, record, beside in (("-", left, right), ("+", right, left)):
        click.secho(f"{sign} {'nothing' if record is None else ''}".rstrip(), fg="yellow")
        if record is not None:
            lines = None if beside is None else parted_lines(record, beside, names)
            show_record(record, as_json=False, lines=lines)


def _as_object(difference: Difference | None, n_calls: int) -> dict[str, object]:
    if difference is None:
        return {"is_same": True, "n_equal": n_calls}
    left, right = difference.left, difference.right
    return {
        "is_same": False,
        "n_equal": difference.n_equal,
        "kind": difference.kind.value,
        "left": None if left is None else recorded(left),
        "right": None if right is None else recorded(right),
    }
