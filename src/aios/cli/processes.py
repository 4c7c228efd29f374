"""The verbs for processes: ps, wait, kill, stop, cont, nice."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import get_args

import click
from msgspec import Struct

from aios.abi.calls import SignalName
from aios.abi.types import Pid, ProcessInfo, State
from aios.cli.cells import attained_tokens, count_or_dash, described_place, shared_part
from aios.cli.connecting import connect
from aios.cli.durations import Seconds
from aios.cli.exits import Outcomes
from aios.cli.ids import find_again, find_processes
from aios.cli.options import examples, ids_argument, json_option
from aios.cli.output import (
    Column,
    printable,
    short_count,
    short_seconds,
    write_json,
    write_table,
)
from aios.cli.patience import follow_patiently
from aios.sdk.blocking import Client

INIT_PID = 1
LONGEST_AWAY_S = 600.0
"""How long `wait` waits for a kernel that has gone: a script must not hang for ever where none comes back."""
LOOK_S = 0.1
"""What each process is given when the time is up: it may have ended meanwhile."""
STATE_COLORS = {
    State.NEW: "cyan",
    State.READY: "yellow",
    State.RUNNING: "green",
    State.STOPPED: "magenta",
}


class Field(Struct, frozen=True):
    """One column of `ps`; those that are not `always` shown take `--wide`."""

    column: Column
    cell: Callable[[ProcessInfo, float], str]
    always: bool = True


def _number(title: str, cell: Callable[[ProcessInfo], str], *, always: bool = True) -> Field:
    return Field(Column(title, is_number=True), lambda process, _: cell(process), always)


def _word(title: str, cell: Callable[[ProcessInfo], str], *, always: bool = True) -> Field:
    return Field(Column(title), lambda process, _: cell(process), always)


FIELDS = (
    _number("PID", lambda p: str(p.pid)),
    _number("PPID", lambda p: str(p.ppid), always=False),
    _word("NAME", lambda p: p.name),
    _word("OWNER", lambda p: p.owner, always=False),
    _word("KIND", lambda p: p.kind.value, always=False),
    _word("STATE", lambda p: styled_state(p.state)),
    _word("ACTIVITY", lambda p: printable(p.activity) or "-"),
    _number("NICE", lambda p: str(p.nice), always=False),
    _number("PLACE", described_place),
    _number("LEVEL", lambda p: count_or_dash(p.level), always=False),
    _number("CALLS", lambda p: short_count(p.n_calls), always=False),
    _number("IN", lambda p: short_count(p.usage.prompt_tokens), always=False),
    _number("CACHED", lambda p: short_count(p.usage.cached_tokens), always=False),
    _number("OUT", lambda p: short_count(p.usage.completion_tokens), always=False),
    _number("TOKENS", lambda p: short_count(attained_tokens(p))),
    _number("WAITED", lambda p: short_seconds(p.waited_s)),
    _number("RAN", lambda p: short_seconds(p.ran_s)),
    _number("PREEMPT", lambda p: short_count(p.n_preemptions), always=False),
    _number("PAGES", lambda p: count_or_dash(p.pages.n_pages if p.pages else None), always=False),
    _number("RAM", lambda p: count_or_dash(p.pages.n_in_memory if p.pages else None), always=False),
    _number("DISK", lambda p: count_or_dash(p.pages.n_on_disk if p.pages else None), always=False),
    _number("SHARED", shared_part, always=False),
    _number("BLOCK", lambda p: short_count(p.block_bytes), always=False),
    _number("FAULTS", lambda p: short_count(p.n_block_faults), always=False),
    _word("TAINT", lambda p: printable(p.taint.source) if p.taint else "-", always=False),
    Field(Column("AGE", is_number=True), lambda p, now_s: short_seconds(_age_s(p, now_s))),
)
EXIT = _word("EXIT", lambda p: described_exit(p))


@click.command(epilog=examples("aios ps", "aios ps --wide", "aios ps --json | jq -r .name"))
@click.option(
    "-a", "--all", "with_ended", is_flag=True, help="Also processes that have ended, and init."
)
@click.option("-w", "--wide", is_flag=True, help="All columns; the others fit into 80.")
@json_option
def ps(*, with_ended: bool, wide: bool, as_json: bool) -> None:
    """List processes.

    PLACE is that of its best-placed call: `turn` has a turn, 1 is the next in its queue. TOKENS is what the model did for
    it: prompt tokens that were computed, and those generated. WAITED and RAN are the seconds that calls waited for turns and
    held them. What a process does between its calls, the kernel does not see: then it is `waiting`.

    With --wide: LEVEL under a policy that has levels; IN, CACHED and OUT count tokens; PAGES, RAM, DISK and SHARED are the KV
    pages of its last conversation, how many of them are in memory or on disk alone, and the part that others use as well; BLOCK is what its
    memory block of interactions holds, FAULTS those that it read back from disk; TAINT is where data came from outside that has reached it.
    """
    with connect() as client:
        processes = client.ps(include_ended=with_ended)
        about = client.info()
    shown = [p for p in processes if with_ended or p.pid != INIT_PID]
    if as_json:
        for process in shown:
            write_json(process)
        return
    now_s = about.started_unix_s + about.uptime_s
    fields = [field for field in FIELDS if wide or field.always]
    fields += [EXIT] if with_ended else []
    columns = [field.column for field in fields]
    write_table(columns, [[field.cell(p, now_s) for field in fields] for p in shown], fits=not wide)


def _age_s(process: ProcessInfo, now_s: float) -> float:
    until_s = process.ended_unix_s if process.ended_unix_s is not None else now_s
    return until_s - process.started_unix_s


def styled_state(state: State) -> str:
    """The name of a state in its colour."""
    color = STATE_COLORS.get(state)
    return click.style(state.value, fg=color) if color else state.value


def described_exit(process: ProcessInfo) -> str:
    """How a process ended, in short; empty while it lives."""
    if process.exit is None:
        return ""
    text = printable(f"{process.exit.status} {process.exit.reason}".rstrip()).replace("\n", " ")
    return click.style(text, fg="red") if process.exit.status else text


@click.command(epilog=examples("aios wait reader-2", "aios wait 4 5 6 --timeout 60"))
@ids_argument
@click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(),
    help="Longest wait for all of them: 60 (seconds), 5m or 1h.",
)
@json_option
def wait(*, ids: Sequence[str], timeout_s: float | None, as_json: bool) -> int:
    """Wait until processes have ended, and print their results.

    ID is a pid, a name or the unique beginning of one. The exit code is the first one that is not 0. When the kernel has gone, it waits
    for the next one, which brings processes back that have a restart policy: ten minutes, or what --timeout leaves. Then it ends with 3.
    """
    outcomes = Outcomes(as_json=as_json)
    give_up_s = None if timeout_s is None else monotonic() + timeout_s
    waited: list[ProcessInfo] | None = None
    """Those that have not ended yet, as far as we were told."""

    def wait_all(client: Client) -> None:
        nonlocal waited
        processes = client.ps(include_ended=True)
        if waited is None:
            waited = find_processes(ids, processes, outcomes)
        while waited:
            with outcomes.each():
                left_s = None if give_up_s is None else max(LOOK_S, give_up_s - monotonic())
                process = find_again(waited[0], processes)
                end = client.wait(process.pid, deadline_s=left_s).exit
                outcomes.add(end.status)
                if as_json:
                    write_json({"pid": process.pid, "name": process.name, "exit": end})
                elif end.result:
                    click.echo(printable(end.result))
            del waited[0]

    def longest_s() -> float:
        return LONGEST_AWAY_S if give_up_s is None else give_up_s - monotonic()

    follow_patiently(wait_all, is_patient=True, longest_s=longest_s)
    return outcomes.code


@click.command(epilog=examples("aios kill reader-2", "aios kill -s TERM 4 5"))
@ids_argument
@click.option(
    "-s",
    "--signal",
    "name",
    type=click.Choice(get_args(SignalName), case_sensitive=False),
    default="KILL",
    help="TERM asks them to end, USR1 is a letter on the topic `signal`; KILL by default.",
)
@click.option("--reason", default="", help="What `ps --all` will show.", metavar="TEXT")
@json_option
def kill(*, ids: Sequence[str], name: SignalName, reason: str, as_json: bool) -> int:
    """End processes and all their descendants, or send them another signal.

    When it returns after KILL, nothing they asked for takes effect any more.
    """
    if name != "KILL":
        return _signal(
            ids, lambda client, pid: client.signal(pid, name), f"sent {name} to", as_json=as_json
        )
    return _signal(ids, lambda client, pid: client.kill(pid, reason), "killed", as_json=as_json)


@click.command(epilog=examples("aios stop editor"))
@ids_argument
@json_option
def stop(*, ids: Sequence[str], as_json: bool) -> int:
    """Hold processes and all their descendants until `aios cont`."""
    return _signal(ids, Client.stop, "stopped", as_json=as_json)


@click.command(epilog=examples("aios cont editor"))
@ids_argument
@json_option
def cont(*, ids: Sequence[str], as_json: bool) -> int:
    """Let stopped processes and their descendants go on where they were."""
    return _signal(ids, Client.cont, "continued", as_json=as_json)


@click.command(epilog=examples("aios nice -n 10 reader", "aios nice -n -5 editor"))
@click.option(
    "-n",
    "--to",
    "value",
    type=click.IntRange(-20, 19),
    required=True,
    help="-20 comes first, 19 last; 0 is normal.",
)
@ids_argument
@json_option
def nice(*, ids: Sequence[str], value: int, as_json: bool) -> int:
    """Set how willing processes are to wait for others."""
    outcomes = Outcomes(as_json=as_json)
    with connect() as client:
        for process in find_processes(ids, client.ps(include_ended=True), outcomes):
            with outcomes.each():
                in_force = client.nice(process.pid, value)
                if as_json:
                    write_json({"pid": process.pid, "name": process.name, "nice": in_force})
                else:
                    click.echo(f"{process.name} ({process.pid}) has nice {in_force}")
    return outcomes.code


def _signal(
    ids: Sequence[str],
    send: Callable[[Client, Pid], tuple[Pid, ...]],
    verb: str,
    *,
    as_json: bool,
) -> int:
    outcomes = Outcomes(as_json=as_json)
    with connect() as client:
        for process in find_processes(ids, client.ps(include_ended=True), outcomes):
            with outcomes.each():
                pids = send(client, process.pid)
                if as_json:
                    write_json(
                        {"pid": process.pid, "name": process.name, "done": verb, "pids": pids}
                    )
                else:
                    also = f" and {len(pids) - 1} below it" if len(pids) > 1 else ""
                    click.echo(f"{verb} {process.name} ({process.pid}){also}")
    return outcomes.code
