"""Taint: which processes have had data from outside, and what takes it further. Pure.

A process is marked as a whole, from the first piece of such data on until its end: what a model makes of it nobody can tell apart.
What a marked process writes (letters, notes, files, results, children) carries the mark, and marks whoever reads it. The owner is
never marked: what a human has read and says again is the human's word.
Source: Fraser, "LOMAC: Low Water-Mark Integrity Protection for COTS Environments", S&P 2000.
"""

import msgspec

from aios.abi.taint import Taint
from aios.abi.types import Kind, ProcessInfo
from aios.kernel.process import INIT_PID, Process, Run


def mark(process: Process, source: str, via: str = "", *, seq: int = 0) -> None:
    """Data from `source` has reached a process; an empty one is none. The first mark stays, from the earliest call that brought any."""
    if not source or process.pid == INIT_PID:
        return
    known = process.taint
    if known is not None:
        process.taint = msgspec.structs.replace(known, seq=min(known.seq, seq))
        return
    process.taint = Taint(source, via, seq)
    if process.on_taint is not None:
        process.on_taint(process)


def take(run: Run, source: str, via: str = "") -> None:
    """A call brings its process data from `source`; an empty one is none."""
    if source:
        mark(run.process, source, via, seq=run.record_seq)


def take_from(run: Run, giver: Process) -> None:
    """A call brings its process data that another process had."""
    if giver.taint is not None and giver is not run.process:
        take(run, giver.taint.source, told(giver))


def source_of(process: Process) -> str:
    """What is written down beside what a process leaves behind; empty: nothing from outside is in it."""
    return process.taint.source if process.taint is not None else ""


def at_birth(name: str, kind: Kind, parent: Process | None) -> Taint | None:
    """The mark that a new process begins with: its parent's, and a guest is itself from outside."""
    if kind is Kind.GUEST:
        return Taint(f"guest {name}")
    if parent is None or parent.taint is None:
        return None
    return Taint(parent.taint.source, told(parent))


def at_fork(source: Taint | None, own: Taint | None, at: int | None) -> Taint | None:
    """The mark of a branch that has the calls up to `at` in common with its source, None all; `own` is what it has from its parent."""
    if own is not None or source is None or (at is not None and source.seq > at):
        return own
    return source


def without_words(row: ProcessInfo) -> ProcessInfo:
    """A row of `ps` as other processes see it: of a marked one without names that it may have chosen, which say something by themselves.

    The folder of its program, what it waits for, and the file or the like by which its mark came.
    """
    if row.taint is None:
        return row
    return msgspec.structs.replace(
        row,
        program="",
        activity=row.activity.partition(", waits for ")[0],
        taint=msgspec.structs.replace(row.taint, via=""),
    )


def told(process: Process) -> str:
    """A process as the way that data took."""
    return f"process {process.pid} ({process.name})"
