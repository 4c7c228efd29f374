"""THE TABLE of system calls, and the one path that every call takes through the kernel.

    begin -> held at the door while stopped -> journal the intent -> access -> commit -> handler -> settle

Whatever happens inside, a call ends in exactly one `Result` or one `AiosError`.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import anyio

from aios.abi import interactions
from aios.abi import memory as notes
from aios.abi import storage as files
from aios.abi.budget import Budget, SetBudget
from aios.abi.call import Answer, Call, Done
from aios.abi.calls import (
    Admit,
    Chat,
    Complete,
    Cont,
    CountTokens,
    Embed,
    Exited,
    ExitSelf,
    GetPid,
    Guest,
    Info,
    KernelInfo,
    Kill,
    Log,
    LogEnd,
    Logs,
    Nice,
    Processes,
    Ps,
    Self,
    Shutdown,
    Signalled,
    Spawn,
    Spawned,
    Stop,
    Tokenize,
    Wait,
)
from aios.abi.contexts import (
    ContextAppend,
    ContextClose,
    ContextCompact,
    ContextFault,
    ContextForget,
    ContextFork,
    ContextList,
    ContextOpen,
    ContextRead,
    ContextRestore,
    ContextSnapshot,
    ContextSnapshots,
    ContextStat,
    ContextUndo,
)
from aios.abi.gate import Line, Progress, Result
from aios.abi.mail import Mailbox, Publish, Receive, Send, Subscribe
from aios.abi.pages import Pages
from aios.abi.sched import Sched, SetSched
from aios.abi.types import Exit, Pid, Right
from aios.errors import (
    AccessDenied,
    AiosError,
    Conflict,
    DeadlineExceeded,
    InvalidCall,
    KernelBug,
    NotFound,
)
from aios.kernel.access.manager import AccessManager
from aios.kernel.budget import Good
from aios.kernel.clock import Clock
from aios.kernel.context.contexts import ContextTable
from aios.kernel.context.manager import ContextManager
from aios.kernel.conversations import Conversations
from aios.kernel.journal import Effect, Journal, Outcome, Record
from aios.kernel.llm import ModelCalls
from aios.kernel.mail.post import PostOffice
from aios.kernel.memory.interactions import ShortTerm
from aios.kernel.memory.manager import MemoryManager
from aios.kernel.process import INIT_PID, Process, ProcessTable, Run
from aios.kernel.scheduler.control import SchedulerControl
from aios.kernel.scheduler.scheduler import Scheduler
from aios.kernel.shelf import Shelf
from aios.kernel.signals import Signals
from aios.kernel.spending import Budgets
from aios.kernel.storage.manager import StorageManager

A = TypeVar("A", bound=Answer)

OWNER_FACTOR = 64
"""All commands of the owner share init, so it may have this many times the calls in flight of others."""


class Services(Protocol):
    """What the handlers use of the kernel."""

    clock: Clock
    table: ProcessTable
    journal: Journal
    access: AccessManager
    models: ModelCalls
    contexts: ContextManager
    scheduler: Scheduler
    context_table: ContextTable
    conversations: Conversations
    scheduling: SchedulerControl
    shelf: Shelf
    budgets: Budgets
    post: PostOffice
    memory: MemoryManager
    short_term: ShortTerm
    signals: Signals
    storage: StorageManager
    max_calls_per_process: int

    async def spawn(self, parent: Process, call: Spawn) -> Process:
        """Start a program folder as a child of `parent`."""
        ...

    def admit(self, name: str, *, parent: Process) -> tuple[Process, str]:
        """Make a guest with a token."""
        ...

    def end_self(self, run: Run, end: Exit) -> None:
        """The process that makes this call ends."""
        ...

    def info(self) -> KernelInfo:
        """What runs here."""
        ...

    def request_shutdown(self) -> None:
        """Begin to end the kernel."""
        ...


Handler = Callable[[Services, Run, Any], Awaitable[Answer]]


@dataclass(frozen=True)
class Entry:
    """What the kernel knows about a call: who does it, what right it takes, on which process, what it does to the world.

    Calls about processes and the kernel itself are handled here; every other row names a method of its manager.
    """

    handler: Handler
    right: Right
    effect: Effect = Effect.PURE
    has_target: bool = False
    """The call names a process in `pid`; the right must reach it."""


async def perform(
    kernel: Services,
    process: Process,
    call: Call[A],
    *,
    emit: Callable[[Progress], None] | None = None,
) -> Result[A]:
    """Carry out one call of a process; progress frames go to `emit`.

    Raises:
        AiosError: The call failed. Cancellation passes through untouched.
    """
    entry = TABLE.get(type(call))
    if entry is None:
        raise InvalidCall(
            f"{type(call).__name__} is no system call", hint="see docs/reference/calls.md"
        )
    tag = str(call.__struct_config__.tag)
    max_calls = kernel.max_calls_per_process
    if process.pid == INIT_PID:
        max_calls *= OWNER_FACTOR
    run = process.begin(tag, max_calls=max_calls, emit=emit)
    try:
        return await _journalled(kernel, run, call, entry)
    except AiosError:
        process.n_faults += 1
        raise
    except (
        Exception
    ) as error:  # the edge: a handler's bug must not end the caller's connection or the kernel
        process.n_faults += 1
        raise KernelBug(
            f"{run.name} failed inside the kernel: {type(error).__name__}: {error}",
            hint="please report it",
        ) from error
    finally:
        process.end(run)
        kernel.signals.settle(process)


async def _journalled(kernel: Services, run: Run, call: Call[A], entry: Entry) -> Result[A]:
    """Write the intent, do it, write the outcome, however it ends."""
    begun_s = kernel.clock.now_s()
    pid = run.process.pid
    record = kernel.journal.begin(pid, run.seq, call=call, effect=entry.effect, now_s=begun_s)
    outcome, code = Outcome.CANCELLED, ""
    try:
        value: Any = await _within_scope(kernel, run, call, entry=entry, record=record)
        outcome = Outcome.DONE
        return Result(value, run.waited_s, run.ran_s, run.n_preemptions)
    except AiosError as error:
        outcome, code = Outcome.FAULT, error.code
        raise
    except Exception:
        outcome, code = Outcome.FAULT, KernelBug.code
        raise
    finally:
        kernel.journal.settle(record, outcome, code=code, now_s=kernel.clock.now_s())


async def _within_scope(
    kernel: Services, run: Run, call: Call[Any], *, entry: Entry, record: Record
) -> Answer:
    """The part of a call that its deadline, and a kill of its process, cut short."""
    with run.scope:
        if call.deadline_s is not None:
            run.scope.deadline = anyio.current_time() + call.deadline_s
            run.deadline_s = kernel.clock.now_s() + call.deadline_s
        await run.runnable()
        target = _target(kernel, call) if entry.has_target else None
        kernel.access.check(run.process, entry.right, target)
        if entry.effect is not Effect.PURE:
            await kernel.journal.commit(record)
        return await entry.handler(kernel, run, call)
    raise _why_cancelled(run, call)


def _why_cancelled(run: Run, call: Call[Any]) -> AiosError:
    process = run.process
    if process.exiting is not None:
        return process.gone()
    return DeadlineExceeded(
        f"{run.name} was not done within {call.deadline_s} s (it waited {run.waited_s:.1f} s for turns)",
        hint="allow more time (`deadline_s`), ask for fewer tokens, or see `aios top` for what is in the way",
    )


def _target(kernel: Services, call: Call[Any]) -> Process | None:
    pid: Pid | None = getattr(call, "pid", None)
    return None if pid is None else kernel.table.get(pid)


# --- processes ---------------------------------------------------------------------------------------------------


async def _spawn(kernel: Services, run: Run, call: Spawn) -> Spawned:
    if call.nice < run.process.nice and run.process.pid != INIT_PID:
        raise AccessDenied(
            "a child cannot be less nice than its parent", hint=f"use nice >= {run.process.nice}"
        )
    one_child = await kernel.budgets.reserve(run, {Good.CHILDREN: 1})
    with ExitStack() as undo:
        undo.callback(one_child.settle, {})
        process = await kernel.spawn(run.process, call)
        kernel.budgets.hold_child(process, one_child)
        undo.pop_all()
    return Spawned(process.pid, process.name)


async def _admit(kernel: Services, run: Run, call: Admit) -> Guest:
    process, token = kernel.admit(call.name, parent=run.process)
    return Guest(process.pid, process.name, token)


async def _wait(kernel: Services, run: Run, call: Wait) -> Exited:
    if call.pid == run.process.pid:
        raise Conflict("a process cannot wait for its own end", hint="wait for a child")
    with run.parked():
        process = (
            kernel.table.get(call.pid)
            if call.pid is not None
            else await _any_child(kernel, run.process)
        )
        end = await process.wait_ended()
    await run.runnable()
    if process.ppid == run.process.pid:
        process.is_waited_for = True
    return Exited(process.pid, end)


async def _any_child(kernel: Services, parent: Process) -> Process:
    """A child that has ended and was not waited for; waits for one."""
    while True:
        children = [kernel.table.get(pid) for pid in sorted(parent.children)]
        candidates = [child for child in children if not child.is_waited_for]
        if not candidates:
            raise NotFound(
                f"process {parent.pid} has no child to wait for", hint="spawn one, or name a pid"
            )
        for child in candidates:
            if not child.is_alive:
                return child
        await _first_end(candidates)


async def _first_end(processes: list[Process]) -> None:
    async def watch(process: Process) -> None:
        await process.wait_ended()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for process in processes:
            tasks.start_soon(watch, process)


async def _kill(kernel: Services, run: Run, call: Kill) -> Signalled:
    reason = call.reason or f"killed by process {run.process.pid} ({run.process.name})"
    return Signalled(
        tuple(await kernel.signals.kill(kernel.table.get(call.pid), reason=reason, by=run))
    )


async def _stop(kernel: Services, run: Run, call: Stop) -> Signalled:
    return Signalled(tuple(await kernel.signals.stop(kernel.table.get(call.pid), by=run)))


async def _cont(kernel: Services, _: Run, call: Cont) -> Signalled:
    return Signalled(tuple(kernel.signals.cont(kernel.table.get(call.pid))))


async def _ps(kernel: Services, run: Run, call: Ps) -> Processes:
    now_s = kernel.clock.now_s()
    held = kernel.contexts.held_pages({p.pid: p.pages for p in kernel.table if p.is_alive})
    standings = kernel.scheduler.standings()
    seen = (
        p
        for p in kernel.table
        if (call.all or p.is_alive) and kernel.access.may_reach(run.process, p)
    )
    return Processes(tuple(p.info(now_s, standings.get(p.pid), held.get(p.pid)) for p in seen))


async def _getpid(_: Services, run: Run, __: GetPid) -> Self:
    return Self(run.process.pid, run.process.ppid, run.process.name)


async def _exit(kernel: Services, run: Run, call: ExitSelf) -> Done:
    kernel.end_self(run, Exit(call.status, "", call.result))
    return Done()


# --- logs and the kernel -----------------------------------------------------------------------------------------


async def _log(kernel: Services, run: Run, call: Log) -> Done:
    run.process.log.write(call.text, stream="log", unix_s=kernel.clock.unix_s())
    return Done()


async def _logs(kernel: Services, run: Run, call: Logs) -> LogEnd:
    log = kernel.table.get(call.pid).log
    number, n_lines, n_dropped = log.tail(call.tail), 0, 0
    while True:
        lines, number, n_missed = log.read(number)
        n_lines, n_dropped = n_lines + len(lines), n_dropped + n_missed
        for line in lines:
            if run.emit is not None:
                run.emit(Line(line, n_missed))
            n_missed = 0
        if not call.follow or (log.is_closed and not lines):
            return LogEnd(n_lines, n_dropped)
        if not lines:
            with run.parked():
                await log.wait_changed()
            await run.runnable()


async def _info(kernel: Services, _: Run, __: Info) -> KernelInfo:
    return kernel.info()


async def _shutdown(kernel: Services, _: Run, __: Shutdown) -> Done:
    kernel.request_shutdown()
    return Done()


TABLE: Mapping[type, Entry] = MappingProxyType({
    Spawn: Entry(_spawn, Right.SPAWN, Effect.COMPENSABLE),
    Admit: Entry(_admit, Right.ADMIT, Effect.COMPENSABLE),
    Wait: Entry(_wait, Right.SEE, has_target=True),
    Kill: Entry(_kill, Right.SIGNAL, Effect.IRREVERSIBLE, has_target=True),
    Stop: Entry(_stop, Right.SIGNAL, Effect.REVERSIBLE, has_target=True),
    Cont: Entry(_cont, Right.SIGNAL, Effect.REVERSIBLE, has_target=True),
    Ps: Entry(_ps, Right.SEE),
    GetPid: Entry(_getpid, Right.SELF),
    ExitSelf: Entry(_exit, Right.SELF, Effect.IRREVERSIBLE),
    Nice: Entry(lambda kernel, run, call: kernel.signals.nice(run, call), Right.SIGNAL, Effect.REVERSIBLE, has_target=True),
    Sched: Entry(lambda kernel, run, call: kernel.scheduling.sched(run, call), Right.INFO),
    SetSched: Entry(lambda kernel, run, call: kernel.scheduling.set_sched(run, call), Right.SCHED, Effect.REVERSIBLE),
    Chat: Entry(lambda kernel, run, call: kernel.conversations.chat(run, call), Right.MODEL),
    Complete: Entry(lambda kernel, run, call: kernel.models.complete(run, call), Right.MODEL),
    Embed: Entry(lambda kernel, run, call: kernel.models.embed(run, call), Right.MODEL),
    Tokenize: Entry(lambda kernel, run, call: kernel.models.tokenize(run, call), Right.MODEL),
    CountTokens: Entry(lambda kernel, run, call: kernel.models.count_tokens(run, call), Right.MODEL),
    Budget: Entry(lambda kernel, run, call: kernel.budgets.budget(run, call), Right.SEE, has_target=True),
    SetBudget: Entry(lambda kernel, run, call: kernel.budgets.set_budget(run, call), Right.BUDGET, Effect.REVERSIBLE, has_target=True),
    Send: Entry(lambda kernel, run, call: kernel.post.send(run, call), Right.MAIL, Effect.COMPENSABLE),
    Receive: Entry(lambda kernel, run, call: kernel.post.receive(run, call), Right.MAIL, Effect.COMPENSABLE),
    Publish: Entry(lambda kernel, run, call: kernel.post.publish(run, call), Right.MAIL, Effect.COMPENSABLE),
    Subscribe: Entry(lambda kernel, run, call: kernel.post.subscribe(run, call), Right.MAIL, Effect.REVERSIBLE),
    Mailbox: Entry(lambda kernel, run, call: kernel.post.mailbox(run, call), Right.MAIL),
    ContextOpen: Entry(lambda kernel, run, call: kernel.context_table.open(run, call), Right.CONTEXT, Effect.REVERSIBLE),
    ContextAppend: Entry(lambda kernel, run, call: kernel.context_table.append(run, call), Right.CONTEXT, Effect.REVERSIBLE),
    ContextFork: Entry(lambda kernel, run, call: kernel.context_table.fork(run, call), Right.CONTEXT, Effect.REVERSIBLE),
    ContextCompact: Entry(lambda kernel, run, call: kernel.conversations.compact(run, call), Right.CONTEXT, Effect.REVERSIBLE),
    ContextUndo: Entry(lambda kernel, run, call: kernel.context_table.undo(run, call), Right.CONTEXT, Effect.REVERSIBLE),
    ContextFault: Entry(lambda kernel, run, call: kernel.context_table.fault(run, call), Right.CONTEXT, Effect.REVERSIBLE),
    ContextSnapshot: Entry(lambda kernel, run, call: kernel.shelf.snapshot(run, call), Right.CONTEXT, Effect.COMPENSABLE),
    ContextRestore: Entry(lambda kernel, run, call: kernel.shelf.restore(run, call), Right.CONTEXT, Effect.REVERSIBLE),
    ContextSnapshots: Entry(lambda kernel, run, call: kernel.shelf.list_all(run, call), Right.CONTEXT),
    ContextForget: Entry(lambda kernel, run, call: kernel.shelf.forget(run, call), Right.CONTEXT, Effect.IRREVERSIBLE),
    ContextClose: Entry(lambda kernel, run, call: kernel.context_table.close(run, call), Right.CONTEXT, Effect.REVERSIBLE),
    ContextStat: Entry(lambda kernel, run, call: kernel.context_table.stat(run, call), Right.CONTEXT),
    ContextList: Entry(lambda kernel, run, call: kernel.context_table.list_all(run, call), Right.CONTEXT),
    ContextRead: Entry(lambda kernel, run, call: kernel.context_table.read(run, call), Right.CONTEXT),
    files.FileEdit: Entry(lambda kernel, run, call: kernel.storage.edit(run, call), Right.FILE_WRITE, Effect.REVERSIBLE),
    files.FileDraft: Entry(lambda kernel, run, call: kernel.storage.draft(run, call), Right.FILE_WRITE, Effect.REVERSIBLE),
    files.FileRollback: Entry(lambda kernel, run, call: kernel.storage.rollback(run, call), Right.FILE_WRITE, Effect.REVERSIBLE, has_target=True),
    files.FilePurge: Entry(lambda kernel, run, call: kernel.storage.purge(run, call), Right.FILE_WRITE, Effect.IRREVERSIBLE),
    files.FileRead: Entry(lambda kernel, run, call: kernel.storage.read(run, call), Right.FILE_READ),
    files.FileList: Entry(lambda kernel, run, call: kernel.storage.list_files(run, call), Right.FILE_READ),
    files.FileStat: Entry(lambda kernel, run, call: kernel.storage.stat(run, call), Right.FILE_READ),
    files.FileVersions: Entry(lambda kernel, run, call: kernel.storage.versions(run, call), Right.FILE_READ),
    files.FileDiff: Entry(lambda kernel, run, call: kernel.storage.diff(run, call), Right.FILE_READ),
    files.FileWatch: Entry(lambda kernel, run, call: kernel.storage.watch(run, call), Right.FILE_READ),
    files.FileShare: Entry(lambda kernel, run, call: kernel.storage.share(run, call), Right.FILE_WRITE, Effect.REVERSIBLE),
    files.FileShares: Entry(lambda kernel, run, call: kernel.storage.shares(run, call), Right.FILE_READ),
    files.FileLock: Entry(lambda kernel, run, call: kernel.storage.lock(run, call), Right.FILE_WRITE, Effect.REVERSIBLE),
    files.FileUnlock: Entry(lambda kernel, run, call: kernel.storage.unlock(run, call), Right.FILE_WRITE, Effect.REVERSIBLE),
    files.FileUsage: Entry(lambda kernel, run, call: kernel.storage.usage(run, call), Right.FILE_READ),
    files.FileCollect: Entry(lambda kernel, run, call: kernel.storage.collect(run, call), Right.FILE_WRITE, Effect.COMPENSABLE),
    files.FileCheck: Entry(lambda kernel, run, call: kernel.storage.check(run, call), Right.FILE_READ),
    notes.Remember: Entry(lambda kernel, run, call: kernel.memory.remember(run, call), Right.MEMORY_WRITE, Effect.REVERSIBLE),
    notes.Recall: Entry(lambda kernel, run, call: kernel.memory.recall(run, call), Right.MEMORY_READ),
    notes.MemoryGet: Entry(lambda kernel, run, call: kernel.memory.get(run, call), Right.MEMORY_READ),
    notes.Update: Entry(lambda kernel, run, call: kernel.memory.update(run, call), Right.MEMORY_WRITE, Effect.REVERSIBLE),
    notes.Forget: Entry(lambda kernel, run, call: kernel.memory.forget(run, call), Right.MEMORY_WRITE, Effect.IRREVERSIBLE),
    notes.LinkNotes: Entry(lambda kernel, run, call: kernel.memory.link(run, call), Right.MEMORY_WRITE, Effect.REVERSIBLE),
    notes.MemoryList: Entry(lambda kernel, run, call: kernel.memory.list_notes(run, call), Right.MEMORY_READ),
    interactions.MemoryLog: Entry(lambda kernel, run, call: kernel.short_term.log(run, call), Right.MEMORY_WRITE, Effect.COMPENSABLE),
    interactions.MemoryRead: Entry(lambda kernel, run, call: kernel.short_term.read(run, call), Right.MEMORY_READ),
    interactions.MemoryStat: Entry(lambda kernel, run, call: kernel.short_term.stat(run, call), Right.MEMORY_READ),
    Pages: Entry(lambda kernel, run, call: kernel.contexts.pages(run, call), Right.INFO),
    Log: Entry(_log, Right.LOG, Effect.COMPENSABLE),
    Logs: Entry(_logs, Right.SEE, has_target=True),
    Info: Entry(_info, Right.INFO),
    Shutdown: Entry(_shutdown, Right.SHUTDOWN, Effect.IRREVERSIBLE),
})  # fmt: skip
