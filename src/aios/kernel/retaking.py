"""Calls of functions that a program serves, when the program runs again: what they did is done, so it is told how they ended.

A function acts outside of the kernel, and nothing says what it did there. So it runs once for each call: its end is in the journal, with the
take or return by which the program handed it in; or it was cut off, and then its caller's call is settled by its effect, and comes anew if it
is made again. What the function asked of the kernel meanwhile need not be asked for again. Only where it does nothing (`pure`), and the
program asked something meanwhile, it runs again: that may have been for the sake of something else, as what is told to it.
"""

from collections.abc import Iterator

import msgspec

from aios.abi.tools import JobEnd, ToolJob, ToolJobs, ToolReturn, ToolRun, ToolTake
from aios.abi.wire import decode_call
from aios.kernel.handlers import Services
from aios.kernel.journal.records import Effect, Record
from aios.kernel.journal.tables import HANDING_IN, Row
from aios.kernel.process import Process
from aios.kernel.replay import Replay

CUT_OFF = "it was cut off, and may or may not have taken effect"


def with_ends(
    kernel: Services, process: Process, replay: Replay, told: ToolJobs, *, taken: Record
) -> ToolJobs:
    """The calls that a program took with one of its own, each with its end unless it is to run again."""
    jobs = []
    for job in told.jobs:
        end, others = _end_of(job, replay.behind(taken.seq), since_unix_s=taken.ended_unix_s)
        if others and kernel.tools.effect(process, ToolRun(name=job.tool)) is Effect.PURE:
            jobs.append(job)
            continue
        replay.spare(others)
        jobs.append(msgspec.structs.replace(job, end=end or JobEnd(job.id, error=CUT_OFF)))
    return msgspec.structs.replace(told, jobs=tuple(jobs))


def _end_of(
    job: ToolJob, rows: Iterator[Row], *, since_unix_s: float
) -> tuple[JobEnd | None, list[int]]:
    """How a call ended, None if it was cut off; and what the program asked meanwhile beside taking calls."""
    others = []
    for row in rows:
        record = row.record
        if record.call not in HANDING_IN:
            if not record.within and record.begun_unix_s >= since_unix_s:
                others.append(record.seq)
            continue
        for end in _handed_in(row):
            if end.id == job.id:
                return end, others
    return None, others


def _handed_in(row: Row) -> Iterator[JobEnd]:
    if not row.intent:
        return
    match decode_call(row.intent):
        case ToolTake(returns=returns):
            yield from returns
        case ToolReturn(id=number, text=text, is_json=is_json, error=error):
            yield JobEnd(number, text, is_json=is_json, error=error)
