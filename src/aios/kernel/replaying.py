"""Calls of a program that runs again: answered from the journal until that is used up.

What a call did to the database or the world is done. What it did to the kernel's memory is gone, so its entry in the table says how
it is done again from the answer (`redo`), without what it cost the first time.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import anyio
import apsw
import msgspec

from aios.abi.call import Answer, Call
from aios.abi.calls import Chat, ChatAnswer, CompleteAnswer, LogEnd, Logs
from aios.abi.contexts import (
    ContextAppend,
    ContextClose,
    ContextCompact,
    ContextFault,
    ContextFork,
    ContextOpen,
    ContextRestore,
    ContextSnapshot,
    ContextUndo,
)
from aios.abi.gate import Result, Token, error_of
from aios.abi.tools import ToolJobs
from aios.abi.wire import decode_answer, decode_call, decode_fault
from aios.errors import AiosError, DiskFailed, KernelStopping, ProcessGone, ReplayDivergence
from aios.kernel import redo as redoing
from aios.kernel.cures import MakeUndo, cure
from aios.kernel.handlers import Services
from aios.kernel.jobwork import Work
from aios.kernel.journal import tables
from aios.kernel.journal.records import Outcome, Record
from aios.kernel.journal.tables import HANDING_IN, Row
from aios.kernel.journal.texts import write_call
from aios.kernel.process import Process, Run
from aios.kernel.replay import Replay, is_followed
from aios.kernel.retaking import with_ends

A = TypeVar("A", bound=Answer)
T = TypeVar("T")
Redo = Callable[[Services, Run, Any, Any], Awaitable[Answer]]
Note = Callable[[Process, str], None]
"""Writes into the log of a process."""

CONTEXT_REDOS: Mapping[type, Redo] = MappingProxyType(
    {
        Chat: redoing.chat,
        ContextAppend: redoing.append,
        ContextClose: redoing.close_context,
        ContextCompact: redoing.compact,
        ContextFault: redoing.fault,
        ContextFork: redoing.fork,
        ContextOpen: redoing.open_context,
        ContextRestore: redoing.restore,
        ContextSnapshot: redoing.snapshot,
        ContextUndo: redoing.undo,
    }
)
"""What functions did to contexts, by the class of the call: the functions do not run again (`jobwork.py`)."""
PATIENCE_S, MAX_PATIENCE_S = 10.0, 7_200.0
"""A call that is not in the journal waits so long after the last one that another task of its program has made and that is; longer if
the next one came later in the life before."""
SLOWNESS = 2.0
"""Times as long as until then: the program waits for no answers now, but as long as before for what it does itself."""
DISK_PAUSE_S = 1.0
"""Between two tries at a disk that cannot be read now."""
SHOWN_CHARS = 300
"""Of each call in a divergence."""


async def replayed(
    kernel: Services, run: Run, call: Call[A], *, redo: Redo | None, undo: MakeUndo
) -> Result[Any] | None:
    """The answer that a call got before; None: it is new, or was cut off, and is to be made.

    Raises:
        AiosError: What it raised before.
        ReplayDivergence: The program asks otherwise than before.
    """
    await run.runnable()
    replay = run.process.replay
    if replay is None:
        return None
    row = replay.take(write_call(call).digest)
    try:
        if row is not None and row.record.outcome is not Outcome.CANCELLED:
            return await _told_again(kernel, run, call, row=row, redo=redo)
    finally:
        if replay.is_over:
            await _catch_up(kernel, run, replay)
    if is_followed(call):
        run.again = None if row is None else row.record
        return None
    await _wait_for_others(run, replay, row, kernel.note)
    while replay.is_over and run.process.replay is replay:
        await _catch_up(kernel, run, replay)
        await _wait_for_others(run, replay, row, kernel.note)
    if run.process.replay is None:
        if row is not None:
            within = replay.within(row.record.seq)
            await cure(kernel, run, call, row, within=within, undo=undo)
        return None
    error = await _divergence(kernel, run, call, replay)
    if kernel.programs.diverge(run, error):
        await _done_again(kernel, run, replay.job_work.take)
        return None
    raise error


async def retold(
    kernel: Services, run: Run, call: Call[A], *, redo: Redo | None, outer: Run
) -> Result[Any] | None:
    """The answer that the kernel got before in the course of a call which is made again; None: it is new."""
    if not outer.told:
        return None
    digest = write_call(call).digest
    row = next((row for row in outer.told if row.record.digest == digest), None)
    if row is None:
        return None
    outer.told.remove(row)
    return await _told(kernel, run, call, row=row, redo=redo)


async def _told_again(
    kernel: Services, run: Run, call: Call[A], *, row: Row, redo: Redo | None
) -> Result[Any]:
    """The answer to a call, whose context is what it was when it got that."""
    replay = run.process.replay
    assert replay is not None, "it is told by its replay"
    seq, context = row.record.seq, getattr(call, "context", None)
    if redo is not None and context is not None:
        await _done_again(kernel, run, partial(replay.job_work.take, context, seq))
    told = await _told(kernel, run, call, row=row, redo=redo)
    if isinstance(told.value, ToolJobs):
        find = partial(_with_ends, replay, told.value, seq)
        told = msgspec.structs.replace(told, value=await _read(kernel, run, find))
    return told


def _with_ends(replay: Replay, taken: ToolJobs, seq: int, connection: apsw.Connection) -> ToolJobs:
    """What a program took with that call, with what it handed in behind it."""
    records = (row.record for row in replay.behind(seq) if row.record.call in HANDING_IN)
    return with_ends(taken, (Row(each, tables.asked(connection, each)) for each in records))


async def _catch_up(kernel: Services, run: Run, replay: Replay) -> None:
    """Everything was asked for: do again what functions did to contexts, and serve the process."""
    if replay.is_ending or run.process.replay is not replay:
        return
    replay.is_ending = True
    try:
        await _done_again(kernel, run, replay.job_work.take)
        if run.process.replay is replay:
            kernel.programs.catch_up(run.process, replay.n_replayed)
    finally:
        replay.is_ending = False


async def _done_again(kernel: Services, run: Run, next_one: Callable[[], Work | None]) -> None:
    """Do again what functions did to contexts. What is not possible any more is left out, and the log says so."""
    while (work := next_one()) is not None:
        record = work.record
        try:
            call, answer = await _read(kernel, run, partial(_asked_and_told, record))
            await CONTEXT_REDOS[type(call)](kernel, run, call, answer)
        except (ProcessGone, KernelStopping):
            raise
        except AiosError as error:
            what = f"call {record.seq} ({record.call}, for tool call {record.job})"
            kernel.note(run.process, f"what {what} did is not there again: {error.message}")


async def _wait_for_others(run: Run, replay: Replay, row: Row | None, note: Note) -> None:
    """Wait, parked, until the other tasks of the program have caught up, or it has ended.

    A call that was cancelled waits to be cancelled again; if all else is done, it was the end of its program that cut it off.
    """
    process, is_new, silent_s = run.process, row is None, 0.0
    with run.parked(), run.saying("waits for other tasks of its program"):
        while process.replay is not None:
            n_replayed, patience_s = replay.n_replayed, _patience_s(replay, is_new=is_new)
            pause_s = min(PATIENCE_S, patience_s - silent_s) if is_new else PATIENCE_S
            with anyio.move_on_after(pause_s):
                await process.wait_replayed()
            if process.exiting is not None:
                raise process.gone()
            silent_s = silent_s + pause_s if replay.n_replayed == n_replayed else 0.0
            if process.is_stopped:
                await process.wait_continued()
                silent_s = 0.0
            elif replay.is_over or (silent_s >= patience_s and is_new):
                return
            elif silent_s == PATIENCE_S and is_new:
                told = f"asks {run.name}, which its journal has not; other tasks of it have {patience_s:.0f} s to ask the {replay.n_left} calls that it has"
                note(process, told)


def _patience_s(replay: Replay, *, is_new: bool) -> float:
    """How long to wait for another call that is in the journal. Which task makes it is not known, nor since when that does something else."""
    if is_new and not (replay.has_overlaps or replay.is_over):
        return 0.0
    return min(max(PATIENCE_S, SLOWNESS * replay.lag_s), MAX_PATIENCE_S)


async def _told(
    kernel: Services, run: Run, call: Call[A], *, row: Row, redo: Redo | None
) -> Result[Any]:
    record = row.record
    told = row.answer or await _read(kernel, run, partial(_told_then, record))
    if record.outcome is Outcome.FAULT:
        raise error_of(decode_fault(told))
    answer: Answer = decode_answer(told)
    if redo is not None:
        answer = await _redone(kernel, run, call, answer, row=row, redo=redo)
    if run.emit is not None:
        if isinstance(call, Logs) and isinstance(answer, LogEnd):
            await redoing.lines(kernel, run, call, answer, by_unix_s=record.ended_unix_s)
        elif isinstance(answer, ChatAnswer):
            n_tokens = answer.usage.completion_tokens
            message = answer.message
            run.emit(Token(message.text(), n_tokens, answer.logprobs, message.tool_calls))
        elif isinstance(answer, CompleteAnswer):
            run.emit(Token(answer.text, answer.usage.completion_tokens, answer.logprobs))
    return Result(answer, record.waited_s, record.ran_s, record.n_preemptions, record.n_urgent)


async def _redone(
    kernel: Services, run: Run, call: Call[A], answer: Answer, *, row: Row, redo: Redo
) -> Answer:
    """The answer to a call that was done again. A context that cannot be what it was is no reason to be told otherwise than before."""
    try:
        return await redo(kernel, run, call, answer)
    except (ProcessGone, KernelStopping):
        raise
    except AiosError as error:
        if type(call) not in CONTEXT_REDOS:
            raise
        what = f"call {row.record.seq} ({row.record.call})"
        kernel.note(run.process, f"what {what} did is not there again: {error.message}")
        return answer


async def _read(kernel: Services, run: Run, read: Callable[[apsw.Connection], T]) -> T:
    """What the journal has of a call, at once, so that calls stay in their order; a disk that cannot be read now is asked again."""
    disk = kernel.journal.disk
    assert disk is not None, "there is a journal to answer from"
    while True:
        try:
            return disk.read_nowait(read)
        except DiskFailed:
            with run.parked(), run.saying("waits for the disk"):
                await anyio.sleep(DISK_PAUSE_S)
            if run.process.exiting is not None:
                raise run.process.gone() from None


def _told_then(record: Record, connection: apsw.Connection) -> bytes:
    return tables.told(connection, record)


def _asked_and_told(record: Record, connection: apsw.Connection) -> tuple[Call[Answer], Answer]:
    told = tables.told(connection, record)
    return decode_call(tables.asked(connection, record)), decode_answer(told)


async def _divergence(
    kernel: Services, run: Run, call: Call[Any], replay: Replay
) -> ReplayDivergence:
    expected = replay.expected().record
    then = await _read(kernel, run, partial(_shown, expected))
    return ReplayDivergence(
        f"process {run.process.pid} ({run.process.name}) asks {run.name} where it asked {expected.call} before "
        f"(call {expected.seq}, {replay.n_left} calls before it was where it ended): "
        f"now {repr(call)[:SHOWN_CHARS]}, then {then[:SHOWN_CHARS]}",
        hint="take times, random numbers and ids from the client; see docs/guides/recovery.md",
    )


def _shown(record: Record, connection: apsw.Connection) -> str:
    asked = tables.asked(connection, record)
    try:
        return repr(decode_call(asked))
    except AiosError:
        return record.call
