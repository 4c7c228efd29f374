"""The verbs `journal` (show, export, import), `inspect` and `events`: what processes asked of the kernel, and what came of it."""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from aios.abi.journal import Event, EventList, Recorded
from aios.abi.types import Pid, ProcessInfo
from aios.cli.connecting import connect
from aios.cli.gist import lines_of
from aios.cli.ids import as_pid, find_process
from aios.cli.options import examples, json_option
from aios.cli.output import counted, printable, short_seconds, short_size, write_json
from aios.cli.patience import follow_patiently
from aios.errors import InvalidCall
from aios.sdk.blocking import Client


class ShowGroup(click.Group):
    """A group whose first command is meant where none is named: `aios journal reader`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ShowGroup)
def journal() -> None:
    """Show what a process asked of the kernel, and keep it as a file; `aios journal ID` is `aios journal show ID`."""


@journal.command(
    epilog=examples("aios journal reader", "aios journal 7 --full -n 20", "aios journal -f reader")
)
@click.argument("process", metavar="ID")
@click.option("-n", "--last", type=click.IntRange(1), metavar="N", help="Only the last N records.")
@click.option("--full", "is_full", is_flag=True, help="Also what was asked and answered.")
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Go on with calls as they end, until the process has ended.",
)
@json_option
def show(*, process: str, last: int | None, is_full: bool, follow: bool, as_json: bool) -> None:
    """Show the system calls of process ID (a pid, a name, or the unique beginning of a name), oldest first.

    A daemon keeps them on disk, also of ended processes and of earlier daemons. With --follow, records that come faster
    than they are read may be dropped; a line says how many.
    """
    shown, settled = dict[int, tuple[str, float | None]](), 0

    def show_new(record: Recorded) -> None:
        """Show a record that was not there, or was otherwise: calls end in any order, and one that was cut off may be made again."""
        how = (record.outcome, record.ended_unix_s)
        if shown.get(record.seq) != how:
            show_record(record, as_json=as_json)
            shown[record.seq] = how

    def show_all(client: Client) -> None:
        """What is there, and what comes; after the kernel was away, what is new."""
        nonlocal settled
        pid = _pid_of(client, process)
        number = client.journal.events(after=0, is_waiting=False).last if follow else 0
        is_settled = True
        for record in _records(client, pid, last=last, is_full=is_full, after=settled):
            show_new(record)
            is_settled = is_settled and record.outcome != "open"
            settled = record.seq if is_settled else settled or record.seq - 1
        is_over = not follow or _has_ended(client, pid)
        while not is_over:
            found = client.journal.events(after=number, pid=pid)
            _tell_missed(found, as_json=as_json)
            for event in found.events:
                if event.record is not None and event.pid == pid:
                    show_new(event.record)
                is_over = is_over or (event.what == "exited" and event.pid == pid)
            number = found.last

    follow_patiently(show_all, is_patient=follow)


@journal.command("export", epilog=examples("aios journal export reader > reader.run"))
@click.argument("process", metavar="ID")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file; stdout without.")
@json_option
def export_run(*, process: str, output: Path | None, as_json: bool) -> None:
    """Write all that process ID asked and was told as one file, for `aios replay` and `aios journal import`.

    Left out: tokens, environments, and what looks like a key of a well-known service. What else agents said is in it: read it before
    you give it away. It works with a kernel and without.
    """
    from aios.cli.runs import stored_run  # noqa: PLC0415 - start-up time: SQLite is for these alone
    from aios.kernel.journal.runfile import write_run  # noqa: PLC0415

    run, redaction = stored_run(process)
    data = write_run(run, redaction)
    if output is not None:
        output.write_bytes(data)
        told = {"name": run.name, "n_records": len(run.rows), "size_bytes": len(data)}
        if as_json:
            write_json(told)
        else:
            size = short_size(len(data))
            click.echo(f"wrote {counted(len(run.rows), 'call')} of {run.name} to {output} ({size})")
    elif sys.stdout.isatty():
        raise InvalidCall("a run is no text for a terminal", hint="`-o FILE`, or `> FILE`")
    else:
        sys.stdout.buffer.write(data)


@journal.command("import", epilog=examples("aios journal import reader.run"))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def import_run(*, file: Path, as_json: bool) -> None:
    """Put a run from a file into the journal of AIOS_HOME, as that of a process that ended now; no kernel may run there.

    It has a pid and a name of its own: that of the run, with a number if another has it. `aios replay` reads files as they are: this is for keeping them.
    """
    from aios.cli.runs import keep_run, read_file  # noqa: PLC0415 - start-up time

    run = read_file(file)
    pid, name = keep_run(run, file.name)
    if as_json:
        write_json({"pid": pid, "name": name, "n_records": len(run.rows)})
    else:
        click.echo(
            f"process {pid} is {printable(name)} now, with {counted(len(run.rows), 'record')}"
        )


@click.command(epilog=examples("aios inspect reader", "aios inspect 7 --json | jq .process.usage"))
@click.argument("process", metavar="ID")
@click.option("-n", "--last", type=click.IntRange(0), default=10, help="Records to show; 10.")
@json_option
def inspect(*, process: str, last: int, as_json: bool) -> None:
    """Show what is known of process ID: its row of the table, its budget, and its last calls with what they asked and got."""
    with connect() as client:
        found = find_process(process, client.ps(include_ended=True))
        budget = client.budget(found.pid)
        records = list(_records(client, found.pid, last=last, is_full=True)) if last else []
    if as_json:
        write_json({"process": found, "budget": budget, "records": records})
        return
    _show_fields(found)
    limits = {k: v for k, v in msgspec.structs.asdict(budget.limits).items() if v is not None}
    spent = {k: v for k, v in msgspec.structs.asdict(budget.spent).items() if v}
    _field("budget", _pairs(limits) or "no limits")
    _field("spent", _pairs(spent) or "nothing")
    for record in records:
        show_record(record, as_json=False)


@click.command(epilog=examples("aios events -f", "aios events -f reader --json"))
@click.argument("process", metavar="[ID]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--text", "has_text", is_flag=True, help="Also what models say, as they say it.")
@json_option
def events(*, process: str | None, follow: bool, has_text: bool, as_json: bool) -> None:
    """Show what happened last: calls that ended, and what became of processes; with ID, of that one and those below it.

    The kernel keeps the last events only. Who reads too slowly is told how many were missed, and holds nobody up. With --follow it
    goes on where it was when a kernel that was killed is started again.
    """
    number = 0

    def show_all(client: Client) -> None:
        nonlocal number
        pid = None if process is None else _pid_of(client, process)
        is_caught_up = False
        while follow or not is_caught_up:
            found = client.journal.events(
                after=number, pid=pid, is_waiting=is_caught_up, has_text=has_text
            )
            if number:  # what was dropped before the first look was missed by nobody
                _tell_missed(found, as_json=as_json)
            for event in found.events:
                _show_event(event, as_json=as_json)
            is_caught_up = not found.events and not found.is_restarted
            number = found.last

    follow_patiently(show_all, is_patient=follow)


def _pid_of(client: Client, reference: str) -> Pid:
    """The pid of a process; a number may be of one that the table has forgotten."""
    pid = as_pid(reference)
    return pid if pid is not None else find_process(reference, client.ps(include_ended=True)).pid


def _has_ended(client: Client, pid: Pid) -> bool:
    return all(each.exit is not None for each in client.ps(include_ended=True) if each.pid == pid)


def _records(
    client: Client, pid: Pid, *, last: int | None, is_full: bool, after: int = 0
) -> Iterator[Recorded]:
    """The records of a process behind a number, or the last of all, page by page."""
    start: int | None = -last if last is not None and not after else after
    while start is not None:
        page = client.journal.read(pid, after=start, is_full=is_full)
        yield from page.records
        start = page.next_seq


def show_record(record: Recorded, *, as_json: bool, lines: Sequence[str] | None = None) -> None:
    """One call on stdout: when, what, how it ended, and `lines`; without, what was asked and answered."""
    if as_json:
        write_json(record)
        return
    took = record.ended_unix_s - record.begun_unix_s if record.ended_unix_s is not None else None
    how = record.outcome + (f" {record.code}" if record.code else "")
    color = {"done": "green", "fault": "red", "open": "yellow"}.get(record.outcome)
    head = f"{record.seq:>6}  {_clock_time(record.begun_unix_s)}  {record.call:<16}"
    spent = short_seconds(took) if took is not None else "-"
    within = f"  in call {record.within}" if record.within else ""
    within += f"  for tool call {record.job}" if record.job else ""
    click.echo(f"{head}  {click.style(f'{how:<10}', fg=color)}  {spent:>6}{within}")
    for line in lines_of(record) if lines is None else lines:
        click.echo(f"        {line}")


def _show_event(event: Event, *, as_json: bool) -> None:
    if as_json:
        write_json(event)
        return
    detail = event.detail + (f" {event.record.code}" if event.record and event.record.code else "")
    line = f"{_clock_time(event.unix_s)}  {event.pid:>5}  {event.what:<16}  {detail}"
    click.echo(printable(line).rstrip())


def _tell_missed(found: EventList, *, as_json: bool) -> None:
    if found.is_restarted and as_json:
        write_json({"is_restarted": True})
    elif found.is_restarted:
        click.secho("(another kernel has begun)", fg="yellow")
    if found.n_missed and as_json:
        write_json({"n_missed": found.n_missed})
    elif found.n_missed:
        click.secho(
            f"({counted(found.n_missed, 'event')} left out: more came than are kept)", fg="yellow"
        )


def _show_fields(process: ProcessInfo) -> None:
    end = process.exit
    _field("process", f"{process.pid} {process.name} ({process.kind.value}) of {process.owner}")
    _field("parent", str(process.ppid))
    _field("program", process.program or "-")
    _field("state", process.state.value + (f" ({process.activity})" if process.activity else ""))
    if end is not None:
        _field("exit", f"{end.status} {end.reason}".rstrip())
    if process.taint is not None:
        via = f", by {process.taint.via}" if process.taint.via else ""
        _field("taint", f"{process.taint.source}{via}, at call {process.taint.seq}")
    _field("calls", f"{process.n_calls}, {process.n_faults} of them faults")
    _field("waited", short_seconds(process.waited_s))
    _field("ran", short_seconds(process.ran_s))
    _field("tokens", _pairs(msgspec.structs.asdict(process.usage)))


def _field(name: str, value: str) -> None:
    click.echo(f"{click.style(f'{name:<8}', bold=True)} {printable(value)}")


def _pairs(values: dict[str, int]) -> str:
    return ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in values.items())


def _clock_time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
