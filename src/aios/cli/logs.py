"""The verb `logs`."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import click

from aios.abi.calls import Logs
from aios.abi.gate import Line, Progress
from aios.abi.types import LogLine, ProcessInfo
from aios.cli.exits import Outcomes
from aios.cli.ids import find_processes
from aios.cli.lines import LinePrinter
from aios.cli.options import examples, ids_argument, json_option
from aios.cli.patience import follow_patiently
from aios.sdk.address import Address, find_address
from aios.sdk.blocking import BlockingGate, Client


@click.command(epilog=examples("aios logs reader", "aios logs -f --tail 20 reader editor"))
@ids_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the processes have ended.")
@click.option(
    "--tail", type=click.IntRange(0, 1_000_000), metavar="N", help="Only the last N lines."
)
@click.option("-t", "--times", "has_times", is_flag=True, help="Begin each line with its time.")
@json_option
def logs(
    *, ids: Sequence[str], follow: bool, tail: int | None, has_times: bool, as_json: bool
) -> int:
    """Show what processes wrote: output, errors, what they logged, and what the kernel has to say of them.

    The log of an ended process stays as long as `aios ps --all` shows it, also under later daemons. With --follow it goes on when a kernel that was
    killed is started again; what a program prints while it catches up comes again.
    """
    outcomes, seen = Outcomes(as_json=as_json), dict[int, LogLine]()

    def show_all(client: Client) -> None:
        found = find_processes(ids, client.ps(include_ended=True), outcomes)
        names = {process.pid: process.name for process in found}
        printer = LinePrinter(names, has_times=has_times, as_json=as_json)
        calls = [Logs(pid=pid, follow=follow, tail=None if pid in seen else tail) for pid in names]
        write = partial(_write_new, printer, dict(seen), seen)
        if follow and len(calls) > 1:
            _follow_all(find_address(), calls, write)
            return
        for call in calls:
            with nullcontext() if follow else outcomes.each():
                _read(client.gate, call, write)
        if not as_json:
            for process in found:
                if process.pid not in seen and tail != 0:
                    _tell_silence(process)

    follow_patiently(show_all, is_patient=follow)
    return outcomes.code


def _write_new(
    printer: LinePrinter, before: dict[int, LogLine], seen: dict[int, LogLine], frame: Progress
) -> None:
    """Write a line, unless it was written before the kernel was killed.

    Lines of one moment differ in their numbers. A number that was given to a line which did not come to disk is that of a later one now: it differs in its time.
    """
    if isinstance(frame, Line):
        line, last = frame.line, before.get(frame.line.pid)
        if last is not None and line.number <= last.number and line.unix_s <= last.unix_s:
            return
        seen[line.pid] = line
    printer.write(frame)


def _tell_silence(process: ProcessInfo) -> None:
    """Say that a process has written nothing, and where its result is."""
    about = f"{process.name} ({process.pid}) has written nothing"
    if process.exit is not None and process.exit.result:
        about = f"{about}; `aios wait {process.pid}` shows what it returned"
    click.echo(about, err=True)


def _read(gate: BlockingGate, call: Logs, write: Callable[[Progress], None]) -> None:
    with gate.open_call(call) as frames:
        for frame in frames:
            write(frame)


def _follow_all(address: Address, calls: list[Logs], write: Callable[[Progress], None]) -> None:
    import anyio  # noqa: PLC0415 - start-up time: the event loop takes as long to import as all the rest

    from aios.cli.attend import follow_all  # noqa: PLC0415

    anyio.run(follow_all, address, calls, write)
