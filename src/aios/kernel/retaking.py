"""Calls of functions that a program serves, when the program runs again: what they did is done, so it is told how they ended. Pure.

A function acts outside of the kernel, and nothing says what it did there. So it runs once for each call: its end is in the journal, with the
take or return by which the program handed it in; or it was cut off, and then its caller's call is settled by its effect, and comes anew if it
is made again. What the function asked of the kernel bears the number of the call (`Record.job`), and is not asked for again; what it did to contexts is
done again (`jobwork.py`).
"""

from collections.abc import Iterable, Iterator

import msgspec

from aios.abi.tools import CUT_OFF, JobEnd, ToolJobs, ToolReturn, ToolTake
from aios.abi.wire import decode_call
from aios.kernel.journal.tables import HANDING_IN, Row


def with_ends(told: ToolJobs, rows: Iterable[Row]) -> ToolJobs:
    """The calls that a program took, each with its end; `rows` are the records behind that take."""
    missing = {job.id: JobEnd(job.id, error=CUT_OFF) for job in told.jobs}
    found: dict[int, JobEnd] = {}
    for row in rows:
        if len(found) == len(missing):
            break
        found |= {end.id: end for end in _handed_in(row) if end.id in missing}
    ends = missing | found
    jobs = tuple(msgspec.structs.replace(job, end=ends[job.id]) for job in told.jobs)
    return msgspec.structs.replace(told, jobs=jobs)


def _handed_in(row: Row) -> Iterator[JobEnd]:
    """The ends of calls that a program handed in with a call of its own."""
    if row.record.call not in HANDING_IN or not row.intent:
        return
    match decode_call(row.intent):
        case ToolTake(returns=returns):
            yield from returns
        case ToolReturn(id=number, text=text, is_json=is_json, error=error):
            yield JobEnd(number, text, is_json=is_json, error=error)
