"""The calls about processes, logs and the kernel itself, and what all handlers use of the kernel.

Calls of every other area are methods of their manager; `syscall.TABLE` names both kinds.
"""

import secrets
from contextlib import ExitStack
from typing import Protocol

import anyio
from msgspec.structs import replace

from aios.abi.access import Resource
from aios.abi.call import Done
from aios.abi.calls import (
    Admit,
    Cont,
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
    Processes,
    Ps,
    Self,
    SendSignal,
    Shutdown,
    Signalled,
    Spawn,
    Spawned,
    Stop,
    Wait,
)
from aios.abi.deadletters import DeadLetterSend
from aios.abi.gate import Line
from aios.abi.mail import Send
from aios.abi.recovery import DrawBytes, Moment, Now, RandomBytes
from aios.abi.storage import Append, Draft, Edited, FileDraft, FileEdit, FilePurge, Put
from aios.abi.types import Exit, Kind, ProcessInfo
from aios.errors import (
    AccessDenied,
    Conflict,
    KernelStopping,
    NotFound,
)
from aios.kernel.access.manager import AccessManager
from aios.kernel.approvals.approvals import Approvals
from aios.kernel.brake import LoopBrake
from aios.kernel.budget import Good
from aios.kernel.clock import Clock
from aios.kernel.context.contexts import ContextTable
from aios.kernel.context.manager import ContextManager
from aios.kernel.conversations import Conversations
from aios.kernel.forking.branches import Branches
from aios.kernel.forking.checkpoints import Checkpoints
from aios.kernel.forking.forks import Forks
from aios.kernel.inspection import Inspection
from aios.kernel.journal.audit.log import AuditLog
from aios.kernel.journal.journal import Journal
from aios.kernel.llm import ModelCalls
from aios.kernel.logs import LogBuffer
from aios.kernel.mail.post import PostOffice
from aios.kernel.memory.interactions import ShortTerm
from aios.kernel.memory.manager import MemoryManager
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.process_table import ProcessTable
from aios.kernel.programs import Programs
from aios.kernel.retrieval.retriever import Retriever
from aios.kernel.scheduler.control import SchedulerControl
from aios.kernel.scheduler.scheduler import Scheduler
from aios.kernel.shelf import Shelf
from aios.kernel.signals import KERNEL_ENDED, Signals
from aios.kernel.spending import Budgets
from aios.kernel.storage.links import Links
from aios.kernel.storage.manager import StorageManager
from aios.kernel.storage.mounting import Mounting
from aios.kernel.storage.undo import Undoer
from aios.kernel.taint import mark, source_of, take_from, told, without_words
from aios.kernel.timers.timers import Timers
from aios.kernel.tools.manager import ToolManager

LINES_AT_ONCE = 16
"""Of a log: so many are kept while their reader does not read."""
PS_RESULT_CHARS = 1 << 20
"""Of all results in one answer of `ps`: a packet has no room for 17 of the longest."""


class Services(Protocol):
    """What the handlers use of the kernel."""

    clock: Clock
    table: ProcessTable
    journal: Journal
    audit: AuditLog
    inspection: Inspection
    access: AccessManager
    approvals: Approvals
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
    brake: LoopBrake
    storage: StorageManager
    mounting: Mounting
    undoer: Undoer
    links: Links
    tools: ToolManager
    timers: Timers
    retriever: Retriever
    programs: Programs
    forks: Forks
    branches: Branches
    checkpoints: Checkpoints
    max_calls_per_process: int
    is_durable: bool

    def note(self, process: Process, text: str) -> None:
        """Write into its log what the kernel has to say of it."""
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


# --- processes ---------------------------------------------------------------------------------------------------


async def spawn(kernel: Services, run: Run, call: Spawn) -> Spawned:
    """Start a program as a child, within the parent's budget of children."""
    if call.nice and call.nice < run.process.nice and run.process.pid != INIT_PID:
        raise AccessDenied(
            "a child cannot be less nice than its parent", hint=f"use nice >= {run.process.nice}"
        )
    one_child = await kernel.budgets.reserve_child(run)
    with ExitStack() as undo:
        undo.callback(one_child.settle, {})
        process = await kernel.programs.spawn(run, call)
        kernel.budgets.hold_child(process, one_child)
        undo.pop_all()
    return Spawned(process.pid, process.name)


async def edit(kernel: Services, run: Run, call: FileEdit) -> Edited:
    """Change files, within the budget of written bytes."""
    contents = (each.data for each in call.edits if isinstance(each, Put | Append))
    n_bytes = 0 if call.is_trial else sum(map(len, contents))
    async with kernel.budgets.spending(run, {Good.WRITTEN_BYTES: n_bytes}):
        return await kernel.storage.edit(run, call)


async def draft(kernel: Services, run: Run, call: FileDraft) -> Draft:
    """Collect a long content, within the budget of written bytes."""
    async with kernel.budgets.spending(run, {Good.WRITTEN_BYTES: len(call.data)}):
        return await kernel.storage.draft(run, call)


async def purged(kernel: Services, process: Process, call: FilePurge) -> Resource:
    """The path whose versions are to go for good."""
    return Resource("Path", await kernel.storage.purged_path(process, call.path))


async def addressed(kernel: Services, process: Process, call: Send | DeadLetterSend) -> Resource:
    """The process that is written to."""
    to = call.to
    if to is None:
        assert isinstance(call, DeadLetterSend), "only a dead letter has an address of its own"
        to = kernel.post.dead.get(process, call.id).letter.to
    return Resource("Process", kernel.table.get(to).name)


async def admit(kernel: Services, run: Run, call: Admit) -> Guest:
    """Make a guest: a process without a program, known by its token."""
    process, token = kernel.admit(call.name, parent=run.process)
    return await kernel.programs.keep(run, process, Guest(process.pid, process.name, token))


async def admit_again(kernel: Services, _: Run, __: Admit, answer: Guest) -> Guest:
    """The guest that was made before, with a new token: the old one is not in the journal."""
    return kernel.programs.readmit(answer)


async def now(kernel: Services, _: Run, __: Now) -> Moment:
    """What time it is."""
    return Moment(kernel.clock.unix_s())


async def draw_bytes(_: Services, __: Run, call: DrawBytes) -> RandomBytes:
    """Bytes that nobody can foresee."""
    return RandomBytes(secrets.token_bytes(call.n_bytes))


async def wait(kernel: Services, run: Run, call: Wait) -> Exited:
    """Wait until a process, or any child not yet waited for, has ended."""
    if call.pid == run.process.pid:
        raise Conflict("a process cannot wait for its own end", hint="wait for a child")
    with run.parked():
        process = (
            kernel.table.get(call.pid)
            if call.pid is not None
            else await _any_child(kernel, run.process)
        )
        end = await process.wait_ended()
    _check_not_put_away(kernel, process)
    await run.runnable()
    if process.ppid == run.process.pid and not process.is_waited_for:
        process.is_waited_for = True
        if run.process.kind is not Kind.PROGRAM:  # a program knows it by its journal
            kernel.signals.on_change(process)
    if end.result or end.reason:
        take_from(run, process)
    return Exited(process.pid, end)


def _check_not_put_away(kernel: Services, process: Process) -> None:
    """Raises KernelStopping if the process ended with its kernel, and is there again under the next one."""
    if process.exit != KERNEL_ENDED or not kernel.is_durable:
        return
    launched = kernel.programs.launched_of(process.pid)
    is_started_again = launched is not None and launched.restart.policy != "never"
    if is_started_again or process.kind is Kind.GUEST:
        raise KernelStopping(
            f"the kernel has ended, and process {process.pid} ({process.name}) goes on under the next one",
            hint="start it again (`aios serve`) and repeat the call",
        )


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


async def kill(kernel: Services, run: Run, call: Kill) -> Signalled:
    """End a process and all below it."""
    target = kernel.table.get(call.pid)
    reason = call.reason or f"killed by process {run.process.pid} ({run.process.name})"
    if call.reason:
        _mark_reason(kernel, run.process, target)
    return Signalled(tuple(await kernel.signals.kill(target, reason=reason, by=run)))


def _mark_reason(kernel: Services, killer: Process, target: Process) -> None:
    """What the killer writes is told as the end of each that it kills, so they end with its mark."""
    for process in kernel.table.tree(target):
        if process.exiting is None and process is not killer:
            mark(process, source_of(killer), told(killer), seq=process.n_journalled)


async def stop(kernel: Services, run: Run, call: Stop) -> Signalled:
    """Keep a process and all below it from acting, until `cont`."""
    return Signalled(tuple(await kernel.signals.stop(kernel.table.get(call.pid), by=run)))


async def cont(kernel: Services, _: Run, call: Cont) -> Signalled:
    """Let a stopped process and all below it go on."""
    return Signalled(tuple(kernel.signals.cont(kernel.table.get(call.pid))))


async def send_signal(kernel: Services, run: Run, call: SendSignal) -> Signalled:
    """Send one of the signals that a process may send."""
    target = kernel.table.get(call.pid)
    if call.signal == "KILL":
        return await kill(kernel, run, Kill(pid=call.pid))
    if call.signal == "STOP":
        return await stop(kernel, run, Stop(pid=call.pid))
    if call.signal == "CONT":
        return await cont(kernel, run, Cont(pid=call.pid))
    if call.signal == "TERM":
        tree = kernel.signals.find_tree(target, "end")
        told = [process for process in tree if not kernel.signals.terminate(process)]
    else:
        tree = told = kernel.signals.find_tree(target, "signal")[:1]
    answer = Signalled(tuple(process.pid for process in tree))
    await kernel.post.signal(run, told, call.signal, answer)
    return answer


async def ps(kernel: Services, run: Run, call: Ps) -> Processes:
    """The processes that the caller may see."""
    now_s = kernel.clock.now_s()
    held = kernel.contexts.held_pages({p.pid: p.pages for p in kernel.table if p.is_alive})
    standings = kernel.scheduler.standings()
    seen = [
        p
        for p in kernel.table
        if (call.all or p.is_alive) and kernel.access.may_reach(run.process, p)
    ]
    for process in seen:
        if process.exit is not None and (process.exit.result or process.exit.reason):
            take_from(run, process)
    share = _result_share([len(p.exit.result) for p in seen if p.exit is not None])
    rows = (_with_result(p.info(now_s, standings.get(p.pid), held.get(p.pid)), share) for p in seen)
    is_owner = run.process.pid == INIT_PID
    return Processes(tuple(row if is_owner else without_words(row) for row in rows))


def _result_share(lengths: list[int]) -> int:
    """How long a result may be so that all of them, the longer ones cut to this, have room in one answer."""
    left = PS_RESULT_CHARS
    for n_before, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - n_before)
        if length > share:
            return share
        left -= length
    return PS_RESULT_CHARS


def _with_result(row: ProcessInfo, n_chars: int) -> ProcessInfo:
    if row.exit is None or len(row.exit.result) <= n_chars:
        return row
    end = replace(row.exit, result=row.exit.result[:n_chars])
    return replace(row, exit=end)


async def getpid(_: Services, run: Run, __: GetPid) -> Self:
    """Who the caller is."""
    return Self(run.process.pid, run.process.ppid, run.process.name)


async def exit_self(kernel: Services, run: Run, call: ExitSelf) -> Done:
    """End the calling process."""
    kernel.end_self(run, Exit(call.status, "", call.result))
    return Done()


# --- logs and the kernel -----------------------------------------------------------------------------------------


async def log(kernel: Services, run: Run, call: Log) -> Done:
    """Write a line into the caller's own log."""
    run.process.log.write(call.text, stream="log", unix_s=kernel.clock.unix_s())
    return Done()


async def logs(kernel: Services, run: Run, call: Logs) -> LogEnd:
    """Read the log of a process; with `follow` until it ends."""
    process = kernel.table.get(call.pid)
    log, n_lines, n_dropped = process.log, 0, 0
    end = log.tail(0)  # if it is not followed: who writes faster than we are read writes for ever
    lines, number, n_missed = await log.read_earlier(await _first_line(run, log, call.tail))
    while True:
        n_lines, n_dropped = n_lines + len(lines), n_dropped + n_missed
        if lines:
            take_from(run, process)
        for line in lines:
            if run.emit is not None:
                run.emit(Line(line, n_missed))
                await run.room()
            n_missed = 0
        lines, n_missed = [], 0
        if call.follow or number < end:
            lines, number, n_missed = log.read(number, LINES_AT_ONCE)
        if lines or n_missed:
            continue
        if not call.follow or log.is_closed:
            if call.follow:
                _check_not_put_away(kernel, process)
            return LogEnd(n_lines, n_dropped)
        with run.parked():
            await log.wait_changed()
        await run.runnable()


async def _first_line(run: Run, log: LogBuffer, tail: int | None) -> int:
    """The number of the first line that is wanted: of a call that is made again, as it was when that began."""
    if run.again is None or tail is None:
        return log.tail(tail)
    earlier, number, _ = await log.read_earlier(0)
    later, number, _ = log.read(number)
    lines = (*earlier, *later)
    n_then = sum(line.unix_s <= run.again.begun_unix_s for line in lines)
    wanted = lines[max(0, n_then - tail) :]
    return wanted[0].number if wanted else number


async def info(kernel: Services, _: Run, __: Info) -> KernelInfo:
    """What runs here."""
    return kernel.info()


async def shutdown(kernel: Services, _: Run, __: Shutdown) -> Done:
    """Begin to end the kernel."""
    kernel.request_shutdown()
    return Done()
