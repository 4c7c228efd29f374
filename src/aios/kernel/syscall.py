"""THE TABLE of system calls, and the one path that every call takes through the kernel.

    begin -> held at the door while stopped -> journal the intent -> access -> audit -> commit -> handler -> settle

An intent is on disk only when nobody need be asked any more, so one that a crash leaves there may have been carried out. Whatever happens inside, a call ends in exactly one `Result` or one `AiosError`.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
from msgspec import Struct

from aios.abi import approvals as human
from aios.abi import (
    branches,
    checkpoints,
    contexts,
    interactions,
    links,
    mail,
    mcp,
    mounts,
    retrieval,
    timers,
    tools,
)
from aios.abi import memory as notes
from aios.abi import storage as files
from aios.abi.access import Resource
from aios.abi.budget import Budget, SetBudget
from aios.abi.call import Answer, Call
from aios.abi.calls import (
    Admit,
    Chat,
    Complete,
    Cont,
    CountTokens,
    Embed,
    ExitSelf,
    GetPid,
    Info,
    Kill,
    Log,
    Logs,
    Nice,
    Ps,
    SendSignal,
    Shutdown,
    Spawn,
    Stop,
    Tokenize,
    Wait,
)
from aios.abi.deadletters import DeadLetterDrop, DeadLetters, DeadLetterSend
from aios.abi.fork import Fork
from aios.abi.gate import Fault, Result, fault_of
from aios.abi.journal import Events, JournalRead
from aios.abi.pages import Pages
from aios.abi.recovery import AnswerQuestion, DrawBytes, Now, Questions
from aios.abi.sched import Sched, SetSched
from aios.abi.tools import ToolRun
from aios.abi.trace import SchedTrace
from aios.abi.types import Kind, Pid, Right
from aios.abi.undo import Undo
from aios.errors import (
    AccessDenied,
    AiosError,
    DeadlineExceeded,
    InvalidCall,
    KernelBug,
    ProcessGone,
    edge,
)
from aios.kernel import handlers, looks, redo
from aios.kernel.access.manager import Act
from aios.kernel.frames import Emit
from aios.kernel.handlers import Services
from aios.kernel.journal.records import AGAIN, Effect, Outcome, Record, Where
from aios.kernel.loader import by_folder
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.replay import is_long
from aios.kernel.replaying import Redo, replayed, retold

A = TypeVar("A", bound=Answer)

OWNER_FACTOR = 64
"""All commands of the owner share init, so it may have this many times the calls in flight of others."""


BRAKED = frozenset({Chat, Complete, Embed, ToolRun})
"""Calls that cost something, and bring nothing new when they are repeated and answered alike."""

Handler = Callable[[Services, Run, Any], Awaitable[Answer]]
EffectOf = Callable[[Services, Process, Any], Effect]
CureOf = Callable[[Services, Process, Any], str]
ResourceOf = Callable[[Services, Process, Any], Awaitable[Resource]]
Look = Callable[[Services, Run, Any], Awaitable[None]]


class Entry(Struct, frozen=True):
    """What the kernel knows about a call: who does it, what right it takes, on which process, what it does to the world.

    Calls about processes and the kernel itself are in `handlers.py`; every other row names a method of its manager.
    """

    handler: Handler
    right: Right
    effect: Effect = Effect.PURE
    where: Where = Where.WORLD
    """Where the effect is to be found, if there is one."""
    has_target: bool = False
    """The call names a process in `pid`; the right must reach it."""
    redo: Redo | None = None
    """Does again what the call did to the kernel's memory, for a program that is replayed."""
    effect_of: EffectOf | None = None
    """Where the effect depends on what is asked for; `effect` is then the worst."""
    cure_of: CureOf | None = None
    """What is done about it if it is cut off (`Record.cure`); None: nothing."""
    resource_of: ResourceOf | None = None
    """What the policies are asked about; None: the target, the kernel, or each path where it has become canonical."""
    look: Look | None = None
    """Before a human is asked: raises if there is nothing to be done."""
    is_kept_first: bool = False
    """The answer waits until it is on disk, with the rows of the processes that the call changed: a kernel that is killed behind it must not
    bring back whom it was told to kill, nor a program, asking again, be told that there is nobody to kill."""
    judges_itself: bool = False
    """The handler asks the branch and the policies about the effect, and says when it begins (`Run.begin_effect`)."""


async def perform(
    kernel: Services,
    process: Process,
    call: Call[A],
    *,
    emit: Emit | None = None,
    within: Run | None = None,
    job: int = 0,
    undoes: Record | None = None,
) -> Result[A]:
    """Carry out one call of a process.

    Args:
        kernel: All of it.
        process: Whose call it is.
        call: What is asked.
        emit: Takes progress frames.
        within: The kernel itself asks, in the course of that call of the process.
        job: The call of a tool for which the process asks, by the number of its `ToolJob`; 0: none.
        undoes: It asks in order to undo that call, which was cut off.

    Raises:
        AiosError: The call failed. Cancellation passes through untouched.
    """
    entry = TABLE.get(type(call))
    if entry is None:
        raise InvalidCall(
            f"{type(call).__name__} is no system call", hint="see docs/reference/calls.md"
        )
    call = by_folder(call)
    tag = str(call.__struct_config__.tag)
    max_calls = kernel.max_calls_per_process
    if process.pid == INIT_PID:
        max_calls *= OWNER_FACTOR
    run = process.begin(tag, max_calls=max_calls, emit=emit)
    run.undoes, run.job = undoes, job
    run.within = undoes.seq if undoes is not None else within.record_seq if within else 0
    try:
        with edge(run.name):
            told = await _told_before(kernel, run, call, entry=entry, within=within)
            return await _journalled(kernel, run, call, entry) if told is None else told
    except AiosError:
        process.n_faults += 1
        raise
    finally:
        process.end(run)
        kernel.signals.settle(process)


async def _told_before(
    kernel: Services, run: Run, call: Call[A], *, entry: Entry, within: Run | None
) -> Result[A] | None:
    """What a call that is made again was told before, if it was."""
    run.begun_s = kernel.clock.now_s()
    if run.within:
        if within is None:
            return None
        return await retold(kernel, run, call, redo=entry.redo, outer=within)
    if run.process.replay is None:
        return None
    return await replayed(kernel, run, call, redo=entry.redo, undo=_undo)


async def _undo(kernel: Services, run: Run, undoing: ToolRun, record: Record) -> None:
    """Make the call that undoes one which was cut off."""
    await perform(kernel, run.process, undoing, undoes=record)


async def _journalled(kernel: Services, run: Run, call: Call[A], entry: Entry) -> Result[A]:
    """Write the intent, do it, write the outcome, however it ends."""
    process, journal, again = run.process, kernel.journal, run.again
    effect = entry.effect_of(kernel, process, call) if entry.effect_of else entry.effect
    record = journal.begin(
        process.pid,
        again.seq if again is not None else process.next_seq(),
        call=call,
        effect=effect,
        where=entry.where,
        within=run.within,
        job=run.job,
        family=process.family,
        cure=entry.cure_of(kernel, process, call) if entry.cure_of else "",
        begun_unix_s=again.begun_unix_s if again is not None else None,
    )
    run.seal, run.seal_for = journal.seal_of(record), partial(journal.seal_for, record)
    run.record, run.streams = record, journal.streams.of_call(process.pid)
    if process.kind is Kind.PROGRAM and is_long(call):
        journal.note_begun(record)
    outcome: Outcome = Outcome.CANCELLED
    end: Result[A] | Fault | None = None
    try:
        value: Any = await _within_scope(kernel, run, call, entry=entry, record=record)
        n_urgent = kernel.post.count_urgent(process)
        result: Result[A] = Result(value, run.waited_s, run.ran_s, run.n_preemptions, n_urgent)
        outcome, end = Outcome.DONE, result
    except ProcessGone:
        raise  # it was cut short: nobody is there to be told
    except AiosError as error:
        if isinstance(error, AccessDenied):  # wherever it was decided: of a call, a path or a tool
            kernel.audit.deny(record, call)
        if isinstance(error, DeadlineExceeded) and record.is_sealed:
            record.where = Where.WORLD  # it is there, or not: nothing makes it again
        outcome, end = Outcome.FAULT, fault_of(error)
        raise
    except Exception as error:
        outcome, end = Outcome.FAULT, Fault(KernelBug.code, str(error))
        raise
    finally:
        if outcome is Outcome.CANCELLED and run.on_effect is not None:
            record.effect = Effect.PURE  # it was cut off before that had begun
            kernel.approvals.give_back(run)
        is_behind = journal.settle(record, outcome, end)
        journal.settle_streams(run.streams, outcome)
        is_awaited = entry.is_kept_first or is_behind or _is_at_stake(record)
        if outcome is not Outcome.CANCELLED and is_awaited:
            # who gives up now is told how it ended all the same: so would its next life be
            with anyio.CancelScope(shield=True):
                await journal.flush(is_urgent=entry.is_kept_first)
    return result


def _is_at_stake(record: Record) -> bool:
    """Whether a crash behind its answer would leave nobody to know that it has happened."""
    return record.is_doubtful and record.cure != AGAIN


async def _within_scope(
    kernel: Services, run: Run, call: Call[Any], *, entry: Entry, record: Record
) -> Answer:
    """The part of a call that its deadline, and a kill of its process, cut short."""
    with run.scope:
        if call.deadline_s is not None:
            run.scope.deadline = anyio.current_time() + call.deadline_s
            run.deadline_s = kernel.clock.now_s() + call.deadline_s
        if record.effect is not Effect.PURE or entry.judges_itself:
            run.on_effect = partial(_announce, kernel, run, call, entry=entry, record=record)
        await run.runnable()
        if run.scope.cancel_called:  # its process was killed while it waited to be told by a replay
            await anyio.lowlevel.checkpoint()
        await _admit(kernel, run, call, entry=entry, record=record)
        if not entry.judges_itself:
            await run.begin_effect()
        if type(call) in BRAKED and kernel.brake.is_on(run):
            return await _braked(kernel, run, call, entry=entry, digest=record.digest)
        return await entry.handler(kernel, run, call)
    raise _why_cancelled(run, call)


async def _admit(
    kernel: Services, run: Run, call: Call[Any], *, entry: Entry, record: Record
) -> None:
    """Return if the policies let the process make the call, or a human does."""
    target = _target(kernel, call) if entry.has_target else None
    if not entry.judges_itself:
        kernel.branches.check(run.process, call, record.effect)
    resource = None
    if entry.resource_of is not None:
        resource = await entry.resource_of(kernel, run.process, call)
    effect = Effect.PURE if entry.judges_itself else record.effect
    look = partial(entry.look, kernel, run, call) if entry.look is not None else None
    act = Act(call, effect.value, resource, look)
    await kernel.access.admit(run, entry.right, target, act=act)


async def _announce(
    kernel: Services, run: Run, call: Call[Any], *, entry: Entry, record: Record
) -> None:
    """Return when the effect may be: it is in the audit log, and in the journal as far as that is needed before it."""
    if record.effect is Effect.PURE:
        return
    noted = kernel.audit.enter(record, call, entry.right)
    await kernel.journal.commit(record)
    if noted is None:
        return
    if run.seal is None:
        await kernel.audit.admit(noted)
    else:
        run.seal = kernel.audit.guarded(run.seal, noted)


async def _braked(
    kernel: Services, run: Run, call: Call[Any], *, entry: Entry, digest: bytes
) -> Answer:
    """A call that a process may not repeat for ever."""
    kernel.brake.check(run, digest)
    await run.runnable()
    try:
        answer = await entry.handler(kernel, run, call)
    except AiosError as error:
        kernel.brake.note(run, digest, error)
        raise
    kernel.brake.note(run, digest, answer)
    return answer


def _why_cancelled(run: Run, call: Call[Any]) -> AiosError:
    process = run.process
    if process.exiting is not None:
        return process.gone()
    return DeadlineExceeded(
        f"{run.name} was not done within {call.deadline_s:.6g} s (it waited {run.waited_s:.1f} s for turns)",
        hint="allow more time (`deadline_s`), ask for fewer tokens, or see `aios top` for what is in the way",
    )


def _target(kernel: Services, call: Call[Any]) -> Process | None:
    pid: Pid | None = getattr(call, "pid", None)
    return None if pid is None else kernel.table.get(pid)


TABLE: Mapping[type, Entry] = MappingProxyType({
    Spawn: Entry(handlers.spawn, Right.SPAWN, Effect.COMPENSABLE, Where.DISK),
    Fork: Entry(lambda kernel, run, call: kernel.forks.fork(run, call), Right.SPAWN, Effect.COMPENSABLE, Where.DISK, has_target=True),
    checkpoints.Checkpoint: Entry(lambda kernel, run, call: kernel.checkpoints.checkpoint(run, call), Right.SPAWN, Effect.COMPENSABLE, Where.DISK, has_target=True),
    checkpoints.CheckpointRestore: Entry(lambda kernel, run, call: kernel.checkpoints.restore(run, call), Right.SPAWN, Effect.COMPENSABLE, Where.DISK),
    checkpoints.CheckpointList: Entry(lambda kernel, run, call: kernel.checkpoints.list_all(run, call), Right.SEE),
    checkpoints.CheckpointRemove: Entry(lambda kernel, run, call: kernel.checkpoints.remove(run, call), Right.SPAWN, Effect.IRREVERSIBLE, Where.DISK, look=looks.checkpoint),
    branches.Branch: Entry(lambda kernel, run, call: kernel.branches.branch(run, call), Right.SPAWN, Effect.COMPENSABLE, Where.DISK, has_target=True),
    branches.BranchCommit: Entry(lambda kernel, run, call: kernel.branches.commit(run, call), Right.SPAWN, Effect.IRREVERSIBLE, Where.DISK, look=looks.branches),
    branches.BranchDiscard: Entry(lambda kernel, run, call: kernel.branches.discard(run, call), Right.SPAWN, Effect.IRREVERSIBLE, Where.DISK, look=looks.branches),
    branches.BranchJoin: Entry(lambda kernel, run, call: kernel.branches.join(run, call), Right.SEE),
    branches.BranchList: Entry(lambda kernel, run, call: kernel.branches.list_all(run, call), Right.SEE),
    Admit: Entry(handlers.admit, Right.ADMIT, Effect.COMPENSABLE, Where.DISK, redo=handlers.admit_again),
    Wait: Entry(handlers.wait, Right.SEE, has_target=True, redo=redo.wait),
    Kill: Entry(handlers.kill, Right.SIGNAL, Effect.IRREVERSIBLE, Where.KERNEL, has_target=True, is_kept_first=True),
    Stop: Entry(handlers.stop, Right.SIGNAL, Effect.REVERSIBLE, Where.KERNEL, has_target=True, is_kept_first=True),
    Cont: Entry(handlers.cont, Right.SIGNAL, Effect.REVERSIBLE, Where.KERNEL, has_target=True, is_kept_first=True),
    SendSignal: Entry(handlers.send_signal, Right.SIGNAL, Effect.IRREVERSIBLE, Where.DISK, has_target=True, is_kept_first=True),
    Ps: Entry(handlers.ps, Right.SEE),
    GetPid: Entry(handlers.getpid, Right.SELF),
    Now: Entry(handlers.now, Right.SELF),
    DrawBytes: Entry(handlers.draw_bytes, Right.SELF),
    Questions: Entry(lambda kernel, run, call: kernel.programs.questions(run, call), Right.SEE),
    AnswerQuestion: Entry(lambda kernel, run, call: kernel.programs.answer(run, call), Right.SIGNAL, Effect.IRREVERSIBLE, Where.KERNEL, has_target=True, look=looks.question, is_kept_first=True),
    ExitSelf: Entry(handlers.exit_self, Right.SELF, Effect.IRREVERSIBLE, Where.KERNEL, redo=redo.exit_self),
    Nice: Entry(lambda kernel, run, call: kernel.signals.nice(run, call), Right.SIGNAL, Effect.REVERSIBLE, Where.KERNEL, has_target=True, is_kept_first=True),
    Sched: Entry(lambda kernel, run, call: kernel.scheduling.sched(run, call), Right.INFO),
    SetSched: Entry(lambda kernel, run, call: kernel.scheduling.set_sched(run, call), Right.SCHED, Effect.REVERSIBLE, Where.KERNEL),
    SchedTrace: Entry(lambda kernel, run, call: kernel.scheduling.sched_trace(run, call), Right.SCHED),
    Chat: Entry(lambda kernel, run, call: kernel.conversations.chat(run, call), Right.MODEL, redo=redo.chat),
    Complete: Entry(lambda kernel, run, call: kernel.models.complete(run, call), Right.MODEL),
    Embed: Entry(lambda kernel, run, call: kernel.models.embed(run, call), Right.MODEL),
    Tokenize: Entry(lambda kernel, run, call: kernel.models.tokenize(run, call), Right.MODEL),
    CountTokens: Entry(lambda kernel, run, call: kernel.models.count_tokens(run, call), Right.MODEL),
    Budget: Entry(lambda kernel, run, call: kernel.budgets.budget(run, call), Right.SEE, has_target=True),
    SetBudget: Entry(lambda kernel, run, call: kernel.budgets.set_budget(run, call), Right.BUDGET, Effect.REVERSIBLE, Where.KERNEL, has_target=True, is_kept_first=True),
    mail.Send: Entry(lambda kernel, run, call: kernel.post.send(run, call), Right.MAIL, Effect.COMPENSABLE, Where.DISK, resource_of=handlers.addressed),
    mail.Receive: Entry(lambda kernel, run, call: kernel.post.receive(run, call), Right.MAIL, Effect.COMPENSABLE, Where.DISK),
    mail.Publish: Entry(lambda kernel, run, call: kernel.post.publish(run, call), Right.MAIL, Effect.COMPENSABLE, Where.DISK),
    mail.Broadcast: Entry(lambda kernel, run, call: kernel.post.broadcast(run, call), Right.MAIL, Effect.COMPENSABLE, Where.DISK),
    DeadLetters: Entry(lambda kernel, run, call: kernel.post.dead.list_all(run, call), Right.MAIL),
    DeadLetterSend: Entry(lambda kernel, run, call: kernel.post.send_dead(run, call), Right.MAIL, Effect.COMPENSABLE, Where.DISK, resource_of=handlers.addressed),
    DeadLetterDrop: Entry(lambda kernel, run, call: kernel.post.dead.drop(run, call), Right.MAIL, Effect.IRREVERSIBLE, Where.DISK, look=looks.dead_letter),
    mail.Subscribe: Entry(lambda kernel, run, call: kernel.post.subscribe(run, call), Right.MAIL, Effect.REVERSIBLE, Where.DISK),
    mail.Mailbox: Entry(lambda kernel, run, call: kernel.post.mailbox(run, call), Right.MAIL),
    contexts.ContextOpen: Entry(lambda kernel, run, call: kernel.context_table.open(run, call), Right.CONTEXT, Effect.REVERSIBLE, Where.KERNEL, redo=redo.open_context),
    contexts.ContextAppend: Entry(lambda kernel, run, call: kernel.context_table.append(run, call), Right.CONTEXT, Effect.REVERSIBLE, Where.KERNEL, redo=redo.append),
    contexts.ContextFork: Entry(lambda kernel, run, call: kernel.context_table.fork(run, call), Right.CONTEXT, Effect.REVERSIBLE, Where.KERNEL, redo=redo.fork),
    contexts.ContextCompact: Entry(lambda kernel, run, call: kernel.conversations.compact(run, call), Right.CONTEXT, Effect.REVERSIBLE, Where.KERNEL, redo=redo.compact),
    contexts.ContextUndo: Entry(lambda kernel, run, call: kernel.context_table.undo(run, call), Right.CONTEXT, Effect.REVERSIBLE, Where.KERNEL, redo=redo.undo),
    contexts.ContextFault: Entry(lambda kernel, run, call: kernel.context_table.fault(run, call), Right.CONTEXT, Effect.REVERSIBLE, Where.KERNEL, redo=redo.fault),
    contexts.ContextSnapshot: Entry(lambda kernel, run, call: kernel.shelf.snapshot(run, call), Right.CONTEXT, Effect.COMPENSABLE, Where.KERNEL, redo=redo.snapshot),
    contexts.ContextRestore: Entry(lambda kernel, run, call: kernel.shelf.restore(run, call), Right.CONTEXT, Effect.REVERSIBLE, Where.KERNEL, redo=redo.restore),
    contexts.ContextSnapshots: Entry(lambda kernel, run, call: kernel.shelf.list_all(run, call), Right.CONTEXT),
    contexts.ContextForget: Entry(lambda kernel, run, call: kernel.shelf.forget(run, call), Right.CONTEXT, Effect.IRREVERSIBLE, Where.KERNEL, look=looks.snapshot, is_kept_first=True),
    contexts.ContextClose: Entry(lambda kernel, run, call: kernel.context_table.close(run, call), Right.CONTEXT, Effect.REVERSIBLE, Where.KERNEL, redo=redo.close_context),
    contexts.ContextStat: Entry(lambda kernel, run, call: kernel.context_table.stat(run, call), Right.CONTEXT),
    contexts.ContextList: Entry(lambda kernel, run, call: kernel.context_table.list_all(run, call), Right.CONTEXT),
    contexts.ContextRead: Entry(lambda kernel, run, call: kernel.context_table.read(run, call), Right.CONTEXT),
    files.FileEdit: Entry(handlers.edit, Right.FILE_WRITE, Effect.REVERSIBLE, Where.DISK, redo=redo.edit),
    files.FileDraft: Entry(handlers.draft, Right.FILE_WRITE, Effect.REVERSIBLE, Where.KERNEL, redo=redo.draft),
    files.FileRollback: Entry(lambda kernel, run, call: kernel.storage.rollback(run, call), Right.FILE_WRITE, Effect.REVERSIBLE, Where.DISK, has_target=True),
    Undo: Entry(lambda kernel, run, call: kernel.undoer.undo(run, call), Right.FILE_WRITE, Effect.REVERSIBLE, Where.WORLD),
    files.FilePurge: Entry(
        lambda kernel, run, call: kernel.storage.purge(run, call), Right.FILE_WRITE, Effect.IRREVERSIBLE, Where.DISK,
        resource_of=handlers.purged, look=looks.file,
    ),
    files.FileRead: Entry(lambda kernel, run, call: kernel.storage.read(run, call), Right.FILE_READ),
    files.FileList: Entry(lambda kernel, run, call: kernel.storage.list_files(run, call), Right.FILE_READ),
    files.FileStat: Entry(lambda kernel, run, call: kernel.storage.stat(run, call), Right.FILE_READ),
    files.FileVersions: Entry(lambda kernel, run, call: kernel.storage.versions(run, call), Right.FILE_READ),
    files.FileDiff: Entry(lambda kernel, run, call: kernel.storage.diff(run, call), Right.FILE_READ),
    files.FileWatch: Entry(lambda kernel, run, call: kernel.storage.watch(run, call), Right.FILE_READ),
    files.FileShare: Entry(lambda kernel, run, call: kernel.storage.share(run, call), Right.FILE_WRITE, Effect.REVERSIBLE, Where.DISK),
    files.FileShares: Entry(lambda kernel, run, call: kernel.storage.shares(run, call), Right.FILE_READ),
    files.FileLock: Entry(lambda kernel, run, call: kernel.storage.lock(run, call), Right.FILE_WRITE, Effect.REVERSIBLE, Where.KERNEL),
    files.FileUnlock: Entry(lambda kernel, run, call: kernel.storage.unlock(run, call), Right.FILE_WRITE, Effect.REVERSIBLE, Where.KERNEL),
    files.FileUsage: Entry(lambda kernel, run, call: kernel.storage.usage(run, call), Right.FILE_READ),
    files.FileQuota: Entry(lambda kernel, run, call: kernel.storage.quotas.set(run, call), Right.FILE_WRITE, Effect.REVERSIBLE, Where.DISK),
    files.FileCollect: Entry(lambda kernel, run, call: kernel.storage.collect(run, call), Right.FILE_WRITE, Effect.COMPENSABLE, Where.KERNEL),
    files.FileCheck: Entry(lambda kernel, run, call: kernel.storage.check(run, call), Right.FILE_READ),
    mounts.FileMount: Entry(lambda kernel, run, call: kernel.mounting.mount(run, call), Right.MOUNT, Effect.COMPENSABLE, Where.WORLD),
    mounts.FileUmount: Entry(lambda kernel, run, call: kernel.mounting.umount(run, call), Right.MOUNT, Effect.COMPENSABLE, Where.WORLD),
    mounts.FileMounts: Entry(lambda kernel, run, call: kernel.mounting.list_all(run, call), Right.FILE_READ),
    retrieval.FileRetrieve: Entry(lambda kernel, run, call: kernel.retriever.retrieve(run, call), Right.FILE_READ),
    retrieval.FileGroupBy: Entry(lambda kernel, run, call: kernel.retriever.group_by(run, call), Right.FILE_READ),
    retrieval.FileJoin: Entry(lambda kernel, run, call: kernel.retriever.join(run, call), Right.FILE_READ),
    retrieval.FileIndex: Entry(lambda kernel, run, call: kernel.retriever.index(run, call), Right.FILE_READ),
    retrieval.FileReindex: Entry(lambda kernel, run, call: kernel.retriever.reindex(run, call), Right.FILE_WRITE, Effect.COMPENSABLE, Where.KERNEL),
    links.FileLink: Entry(lambda kernel, run, call: kernel.links.link(run, call), Right.FILE_WRITE, Effect.COMPENSABLE, Where.WORLD),
    links.FileUnlink: Entry(lambda kernel, run, call: kernel.links.unlink(run, call), Right.FILE_WRITE, Effect.COMPENSABLE, Where.WORLD),
    links.FileLinks: Entry(lambda kernel, run, call: kernel.links.list_all(run, call), Right.FILE_READ),
    notes.Remember: Entry(lambda kernel, run, call: kernel.memory.remember(run, call), Right.MEMORY_WRITE, Effect.REVERSIBLE, Where.DISK),
    notes.Recall: Entry(lambda kernel, run, call: kernel.memory.recall(run, call), Right.MEMORY_READ),
    notes.MemoryGet: Entry(lambda kernel, run, call: kernel.memory.get(run, call), Right.MEMORY_READ),
    notes.Update: Entry(lambda kernel, run, call: kernel.memory.update(run, call), Right.MEMORY_WRITE, Effect.REVERSIBLE, Where.DISK, look=looks.note),
    notes.Forget: Entry(lambda kernel, run, call: kernel.memory.forget(run, call), Right.MEMORY_WRITE, Effect.IRREVERSIBLE, Where.DISK, look=looks.note),
    notes.LinkNotes: Entry(lambda kernel, run, call: kernel.memory.link(run, call), Right.MEMORY_WRITE, Effect.REVERSIBLE, Where.DISK),
    notes.TagNote: Entry(lambda kernel, run, call: kernel.memory.tag(run, call), Right.MEMORY_WRITE, Effect.REVERSIBLE, Where.DISK),
    notes.MemoryUsage: Entry(lambda kernel, run, call: kernel.memory.usage(run, call), Right.MEMORY_READ),
    notes.MemoryCheck: Entry(lambda kernel, run, call: kernel.memory.check(run, call), Right.MEMORY_READ),
    notes.MemoryList: Entry(lambda kernel, run, call: kernel.memory.list_notes(run, call), Right.MEMORY_READ),
    interactions.MemoryLog: Entry(lambda kernel, run, call: kernel.short_term.log(run, call), Right.MEMORY_WRITE, Effect.COMPENSABLE, Where.DISK),
    interactions.MemoryRead: Entry(lambda kernel, run, call: kernel.short_term.read(run, call, _target(kernel, call)), Right.MEMORY_READ, has_target=True),
    interactions.MemoryStat: Entry(lambda kernel, run, call: kernel.short_term.stat(run, call, _target(kernel, call)), Right.MEMORY_READ, has_target=True),
    tools.ToolRegister: Entry(lambda kernel, run, call: kernel.tools.register(run, call), Right.TOOL_OFFER, Effect.REVERSIBLE, Where.KERNEL, redo=redo.register),
    tools.ToolUnregister: Entry(lambda kernel, run, call: kernel.tools.unregister(run, call), Right.TOOL_OFFER, Effect.REVERSIBLE, Where.KERNEL, redo=redo.unregister),
    tools.ToolList: Entry(lambda kernel, run, call: kernel.tools.list_tools(run, call), Right.TOOL_USE),
    tools.ToolDescribe: Entry(lambda kernel, run, call: kernel.tools.describe(run, call), Right.TOOL_USE),
    tools.ToolRun: Entry(
        lambda kernel, run, call: kernel.tools.run(run, call), Right.TOOL_USE, Effect.IRREVERSIBLE,
        effect_of=lambda kernel, process, call: kernel.tools.effect(process, call), judges_itself=True,
        cure_of=lambda kernel, process, call: kernel.tools.cure(process, call),
    ),
    tools.ToolTake: Entry(lambda kernel, run, call: kernel.tools.take(run, call), Right.TOOL_OFFER, Effect.COMPENSABLE, Where.KERNEL),
    tools.ToolReturn: Entry(lambda kernel, run, call: kernel.tools.bring_back(run, call), Right.TOOL_OFFER, Effect.COMPENSABLE, Where.KERNEL),
    mcp.McpList: Entry(lambda kernel, run, call: kernel.tools.servers.list_servers(run, call), Right.TOOL_USE),
    mcp.McpCheck: Entry(lambda kernel, run, call: kernel.tools.servers.check(run, call), Right.TOOL_INSTALL, Effect.COMPENSABLE),
    mcp.McpTools: Entry(lambda kernel, run, call: kernel.tools.servers.list_tools(run, call), Right.TOOL_USE),
    mcp.McpTrust: Entry(lambda kernel, run, call: kernel.tools.servers.trust(run, call), Right.TOOL_INSTALL, Effect.COMPENSABLE, Where.DISK),
    human.ApprovalList: Entry(lambda kernel, run, call: kernel.approvals.list_all(run, call), Right.APPROVE),
    human.ApprovalAnswer: Entry(lambda kernel, run, call: kernel.approvals.answer(run, call), Right.APPROVE, Effect.COMPENSABLE, Where.DISK),
    human.ApprovalRevoke: Entry(lambda kernel, run, call: kernel.approvals.revoke(run, call), Right.APPROVE, Effect.COMPENSABLE, Where.DISK),
    human.AskHuman: Entry(lambda kernel, run, call: kernel.approvals.ask_human(run, call), Right.ASK, Effect.COMPENSABLE, Where.DISK),
    JournalRead: Entry(lambda kernel, run, call: kernel.inspection.read(run, call), Right.SEE, has_target=True),
    Events: Entry(lambda kernel, run, call: kernel.inspection.events(run, call), Right.SEE, has_target=True),
    Pages: Entry(lambda kernel, run, call: kernel.contexts.pages(run, call), Right.INFO),
    timers.SleepUntil: Entry(lambda kernel, run, call: kernel.timers.sleep_until(run, call), Right.SELF, cure_of=lambda *_: AGAIN),
    timers.TimerAdd: Entry(lambda kernel, run, call: kernel.timers.add(run, call), Right.TIMER, Effect.REVERSIBLE, Where.DISK),
    timers.TimerList: Entry(lambda kernel, run, call: kernel.timers.list_all(run, call), Right.TIMER),
    timers.TimerRemove: Entry(lambda kernel, run, call: kernel.timers.remove(run, call), Right.TIMER, Effect.REVERSIBLE, Where.DISK),
    timers.TimerRun: Entry(lambda kernel, run, call: kernel.timers.run(run, call), Right.TIMER, Effect.COMPENSABLE, Where.DISK),
    Log: Entry(handlers.log, Right.LOG, Effect.COMPENSABLE, Where.KERNEL),
    Logs: Entry(handlers.logs, Right.SEE, has_target=True),
    Info: Entry(handlers.info, Right.INFO),
    Shutdown: Entry(handlers.shutdown, Right.SHUTDOWN, Effect.IRREVERSIBLE, Where.KERNEL),
})  # fmt: skip
