"""What calls did to the kernel's memory, done again from their answers, for programs that are replayed. No model is asked for it."""

from contextlib import suppress

import msgspec

from aios.abi.call import Done
from aios.abi.calls import Chat, ChatAnswer, Exited, ExitSelf, LogEnd, Logs, Wait
from aios.abi.contexts import (
    Compacted,
    ContextAppend,
    ContextClose,
    ContextCompact,
    ContextFault,
    ContextFork,
    ContextInfo,
    ContextMessages,
    ContextOpen,
    ContextRestore,
    ContextSnapshot,
    ContextUndo,
    SnapshotInfo,
)
from aios.abi.gate import Line
from aios.abi.storage import Draft, Edited, FileDraft, FileEdit, Put
from aios.abi.tools import ToolNames, ToolRegister, ToolUnregister
from aios.abi.types import Exit
from aios.errors import NotFound
from aios.kernel.handlers import Services
from aios.kernel.process import Run


async def exit_self(kernel: Services, run: Run, call: ExitSelf, told: Done) -> Done:
    """The end that a process asked for, if the kernel ended before it had."""
    kernel.end_self(run, Exit(call.status, "", call.result))
    return told


async def wait(kernel: Services, run: Run, _: Wait, told: Exited) -> Exited:
    """The child of whose end it was told is none for which it may wait any more."""
    child = kernel.table.find(told.pid)
    if child is not None and child.ppid == run.process.pid:
        child.is_waited_for = True
    return told


async def lines(kernel: Services, run: Run, call: Logs, told: LogEnd, *, by_unix_s: float) -> None:
    """The lines of a log that were read by that time, as far as they are still there."""
    process = kernel.table.find(call.pid)
    if process is None or run.emit is None:
        return
    earlier, number, _ = await process.log.read_earlier(0)
    later, _, _ = process.log.read(number)
    read = [line for line in (*earlier, *later) if line.unix_s <= by_unix_s]
    for line in read[max(0, len(read) - told.n_lines) :]:
        run.emit(Line(line))
        await run.room()


async def open_context(
    kernel: Services, run: Run, call: ContextOpen, told: ContextInfo
) -> ContextInfo:
    """A context under the number that it had."""
    with kernel.context_table.numbering(run.process, told.id):
        await kernel.context_table.open(run, call)
    return told


async def fork(kernel: Services, run: Run, call: ContextFork, told: ContextInfo) -> ContextInfo:
    """A fork under the number that it had."""
    with kernel.context_table.numbering(run.process, told.id):
        await kernel.context_table.fork(run, call)
    return told


async def restore(
    kernel: Services, run: Run, call: ContextRestore, told: ContextInfo
) -> ContextInfo:
    """A context from a snapshot as that was, under the number that it had."""
    context = await kernel.shelf.restore_again(run, call, told)
    kernel.context_table.renumber(context.id, told.id)
    return told


async def snapshot(
    kernel: Services, run: Run, call: ContextSnapshot, told: SnapshotInfo
) -> SnapshotInfo:
    """What a snapshot held, for as long as the program is replayed."""
    kernel.shelf.snapshot_again(run, call, told)
    return told


async def append(kernel: Services, run: Run, call: ContextAppend, told: ContextInfo) -> ContextInfo:
    """The messages that were added."""
    await kernel.context_table.append(run, call)
    return told


async def undo(kernel: Services, run: Run, call: ContextUndo, told: ContextInfo) -> ContextInfo:
    """A compaction that was undone."""
    await kernel.context_table.undo(run, call)
    return told


async def fault(
    kernel: Services, run: Run, call: ContextFault, told: ContextMessages
) -> ContextMessages:
    """A page that was read back."""
    await kernel.context_table.fault(run, call)
    return told


async def compact(kernel: Services, run: Run, call: ContextCompact, told: Compacted) -> Compacted:
    """A compaction."""
    await kernel.conversations.compact_again(run, call, told)
    return told


async def close_context(kernel: Services, run: Run, call: ContextClose, told: Done) -> Done:
    """A context that was closed."""
    await kernel.context_table.close(run, call)
    return told


async def chat(kernel: Services, run: Run, call: Chat, told: ChatAnswer) -> ChatAnswer:
    """What a chat added to its context."""
    kernel.conversations.keep(run, call, told)
    return told


async def register(kernel: Services, run: Run, call: ToolRegister, told: ToolNames) -> ToolNames:
    """The functions that it offered; manifests are the owner's, and are installed by whoever may."""
    if call.tools:
        await kernel.tools.register(run, msgspec.structs.replace(call, manifests=()))
    return told


async def unregister(kernel: Services, run: Run, call: ToolUnregister, told: Done) -> Done:
    """What it took back, as far as that is there again."""
    with suppress(NotFound):
        await kernel.tools.unregister(run, call)
    return told


async def draft(kernel: Services, run: Run, call: FileDraft, told: Draft) -> Draft:
    """A piece of a long content, under the number that it had."""
    await kernel.storage.drafts.add_again(run.process.pid, call, told.draft)
    return told


async def edit(kernel: Services, run: Run, call: FileEdit, told: Edited) -> Edited:
    """The drafts that went into files are no more; the files are there."""
    for each in call.edits:
        if isinstance(each, Put) and each.draft:
            kernel.storage.drafts.drop(run.process.pid, each.draft)
    return told
