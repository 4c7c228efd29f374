"""A call that was cut off in the middle, when its program asks for it again: what may have come of it, and whether it is made again.

    nothing of it can be there                        -> made again
    it may be made twice, or acts by calls of its own -> made again as it was, told what those calls brought
    a tool undoes it                                  -> undone, then made again as a new call
    else, or the undo failed                          -> nobody knows: the program is told so, in every later life too

An undo is a call of the same process, by the path that all calls take, and leaves its record `within` the one that it undoes. The record
of that is `undone` only when the undo has ended; a crash before leads to the undo again, and the call is not made before.
"""

from collections.abc import Awaitable, Callable, Sequence

from aios.abi.call import Answer, Call
from aios.abi.gate import fault_of
from aios.abi.tools import ToolRun
from aios.errors import AiosError, KernelStopping, OutcomeUnknown, ProcessGone
from aios.kernel.handlers import Services
from aios.kernel.journal import tables
from aios.kernel.journal.records import AGAIN, Outcome, Record
from aios.kernel.journal.tables import Row
from aios.kernel.process import Run

MakeUndo = Callable[[Services, Run, ToolRun, Record], Awaitable[object]]
"""Carries out the call that undoes a record, as the process whose call that was."""


async def cure(
    kernel: Services,
    run: Run,
    call: Call[Answer],
    row: Row,
    *,
    within: Sequence[Row],
    undo: MakeUndo,
) -> None:
    """Return when the call may be made. The process is served again, and nothing else of it is told.

    Args:
        kernel: All of it.
        run: The call, as it is asked for again.
        call: The same.
        row: Its record.
        within: What the kernel asked in the course of it.
        undo: Makes the call that undoes it.

    Raises:
        OutcomeUnknown: It may have happened, and is not made again.
        AiosError: The process or the kernel ends.
    """
    record, disk = row.record, kernel.journal.disk
    if record.cure == AGAIN:
        run.again, run.told = record, list(within)
        return
    if not record.is_doubtful:
        if disk is not None:
            disk.add(lambda connection: tables.drop_one(connection, record))
        return
    why = await _undone(kernel, run, call, record=record, undo=undo)
    told = f"call {record.seq} ({record.call}) was cut off"
    if not why:
        kernel.journal.settle_later(record, Outcome.UNDONE)
        kernel.note(run.process, f"{told}; {record.undo} has undone it, and it is made again")
        return
    unknown = OutcomeUnknown(
        f"{record.call} (call {record.seq}) was cut off in the middle; it may have happened, and is not done again: {why}",
        hint="look whether it happened before asking again",
    )
    kernel.journal.settle_later(record, Outcome.FAULT, fault_of(unknown))
    raise unknown


async def _undone(
    kernel: Services, run: Run, call: Call[Answer], *, record: Record, undo: MakeUndo
) -> str:
    """Undo a call. Returns: why it could not be; empty if it was."""
    if not record.undo or not isinstance(call, ToolRun):
        return "nothing undoes it"
    try:
        undoing = await kernel.tools.undoing(run, call, record.undo)
        with run.parked():
            await undo(kernel, run, undoing, record)
    except (ProcessGone, KernelStopping):
        raise
    except AiosError as error:
        return f"its undo {record.undo} failed: {error.message}"
    await run.runnable()
    return ""
