"""The kernel: boots the managers in order, owns the root task group, makes processes.

async with open_kernel(config, home) as kernel:
    client = Client(kernel.init_gate())
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial

import anyio
import anyio.abc
import anyio.to_thread

from aios import __version__
from aios.abi.calls import Embed, Embeddings, KernelInfo
from aios.abi.types import Exit, Kind, Pid, Right
from aios.config import Config, Home
from aios.disk.blobs import BlobStore
from aios.disk.db import Database
from aios.engine.base import Engine
from aios.errors import AiosError, Conflict, InvalidCall, Unauthenticated
from aios.kernel.access.grants import Grants
from aios.kernel.access.manager import AccessManager, bounds_of
from aios.kernel.access.policy import Policies
from aios.kernel.access.policyfiles import load_sources
from aios.kernel.access.rights import granted
from aios.kernel.asking import open_approvals
from aios.kernel.brake import LoopBrake
from aios.kernel.clock import Clock, SystemClock
from aios.kernel.compaction import Compactor
from aios.kernel.context.contexts import ContextTable
from aios.kernel.context.manager import ContextManager
from aios.kernel.context.snapshots import Snapshots
from aios.kernel.conversations import Conversations
from aios.kernel.cores import Core, Cores
from aios.kernel.egress.egress import open_egress
from aios.kernel.engines import configured_cores, given_cores, thread_warnings
from aios.kernel.forking.branches import Branches
from aios.kernel.forking.checkpoints import Checkpoints
from aios.kernel.forking.forks import Forks
from aios.kernel.gate import LocalGate
from aios.kernel.handlers import spawn
from aios.kernel.identity import Tokens, split_guest
from aios.kernel.inspection import Inspection
from aios.kernel.journal.audit.chain import Kind as AuditKind
from aios.kernel.journal.audit.log import AuditLog
from aios.kernel.journal.disk import JournalDisk
from aios.kernel.journal.journal import Journal
from aios.kernel.journal.retention import Kept
from aios.kernel.llm import ModelCalls
from aios.kernel.logkeeping import keep_logs
from aios.kernel.mail.post import PostOffice
from aios.kernel.memory.interactions import ShortTerm
from aios.kernel.memory.manager import MemoryManager
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.process_table import ProcessTable
from aios.kernel.programs import Programs
from aios.kernel.residents import Resident, Residents, resident_of
from aios.kernel.resume import resume
from aios.kernel.retrieval.retriever import open_retriever
from aios.kernel.sandbox.launch import Launcher
from aios.kernel.scheduler.control import SchedulerControl
from aios.kernel.scheduler.policies import make_policy
from aios.kernel.scheduler.recorder import Recorder
from aios.kernel.scheduler.scheduler import Scheduler
from aios.kernel.schemas import PREPARE, SCHEMAS
from aios.kernel.shelf import Shelf
from aios.kernel.signals import Signals
from aios.kernel.spending import Budgets
from aios.kernel.storage.links import Links
from aios.kernel.storage.manager import StorageManager
from aios.kernel.storage.mounting import Mounting
from aios.kernel.storage.undo import Undoer
from aios.kernel.timers.timers import Timers
from aios.kernel.toolgaps import ToolGaps
from aios.kernel.tooling import make_tools

Body = Callable[[LocalGate], Awaitable[str | None]]
"""What an in-process process runs; what it returns is its result."""


class Kernel:
    """One running kernel. Made by `open_kernel`."""

    def __init__(
        self,
        config: Config,
        home: Home,
        *,
        clock: Clock,
        policies: Policies,
        tasks: anyio.abc.TaskGroup,
        embedded: bool,
        is_durable: bool,
    ) -> None:
        self.config = config
        self.home = home
        self.clock = clock
        self.tasks = tasks
        self.embedded = embedded
        self.is_durable = is_durable and config.journal.is_on
        self.urls: list[str] = []
        self.warnings: list[str] = []
        self.stopping = anyio.Event()
        self.is_stopping = False
        self.max_calls_per_process = config.kernel.max_calls_per_process
        self._started_unix_s, self._started_s = clock.unix_s(), clock.now_s()
        self.tokens = Tokens(lambda pid: self.audit.note(pid, AuditKind.TOKEN))
        self.grants = Grants(home.grants)
        self._named_guests: dict[str, Pid] = {}
        self._guest_names: dict[Pid, str] = {}
        self.launcher = Launcher(config.sandbox, home.root)
        self._boot(config, policies)
        self.table.is_needed = self.budgets.binds_others
        self.forks, self.branches, self.checkpoints = Forks(self), Branches(self), Checkpoints(self)
        self.approvals = open_approvals(self)
        disk = self.journal.disk
        start, sealer = partial(spawn, self), self.programs.sealer
        self.timers = Timers(clock, config.kernel, disk=disk, spawn=start, sealer=sealer)
        self.storage.obey(self.access, self.table)
        self.init = self.table.add(
            "init", kind=Kind.INIT, parent=None, rights=frozenset(Right), owner="owner"
        )
        self.budgets.open(self.init)
        self.owner_token = self.tokens.issue(INIT_PID)
        tasks.start_soon(self.gaps.run)

    def _boot(self, config: Config, policies: Policies) -> None:
        """Build the managers, lower floors first."""
        limits = config.kernel
        self.db = Database(self.home.database, SCHEMAS, prepare=PREPARE)
        self.blobs = BlobStore(self.home.blobs)
        disk = JournalDisk(self.db, limits.max_journal_records) if self.is_durable else None
        self.journal = Journal(self.clock, max_records=limits.max_journal_records, disk=disk)
        audited = self.db if self.is_durable else None
        self.audit = AuditLog(audited, self.home.audit_key, self.clock, config.audit)
        self.table = ProcessTable(
            clock=self.clock,
            max_alive=limits.max_processes,
            max_exited=limits.max_exited,
            max_log_bytes=limits.max_log_bytes,
            on_end=self._close,
            on_forget=self._forget,
            on_taint=lambda process: self.inspection.note_taint(process, self._changed),
        )
        self.scheduler = Scheduler(make_policy(config.scheduler), self.clock, limits.max_queue)
        recorder = Recorder(config.scheduler.trace_calls)
        self.scheduling = SchedulerControl(self.scheduler, recorder)
        self.access = AccessManager(self.table, policies)
        self.inspection = Inspection(self.journal, self.table, self.access)
        snapshots = Snapshots(self.home.contexts, config.context.max_snapshots)
        snapshots.sweep()
        self.contexts = ContextManager(config.context, self.home.pages, snapshots.is_wanted)
        self.cores = Cores(self.scheduler, self.contexts.find_room_tokens, recorder)
        self.budgets = Budgets(self.clock, self._pause, limits, self._changed)
        self.gaps = ToolGaps(self.contexts, self.clock, is_on=config.context.tool_gaps)
        self.models = ModelCalls(self.scheduler, self.cores, self.budgets, self.gaps)
        self.post = PostOffice(self.table, self.access, self.clock, limits, disk=disk)
        self.memory = MemoryManager(
            self.db, self.clock, config.memory, tasks=self.tasks, ask=self._embed
        )
        self.short_term = ShortTerm(self.db, self.clock, config.memory, access=self.access)
        self.context_table = ContextTable(self.access, config.context, self.clock)
        compactor = Compactor(self.models, self.cores, self.clock, config.context)
        self.conversations = Conversations(self.models, self.context_table, compactor)
        self.shelf = Shelf(
            self.context_table, self.cores, self.clock, snapshots=snapshots, pages=self.contexts
        )
        self.storage = StorageManager(self.db, self.blobs, self.clock, config.storage)
        self.mounting = Mounting(self.storage, self.db, config.storage, self.tasks)
        self.links = Links(self.storage, self.db, self.clock, config.storage, home=self.home)
        self.undoer = Undoer(self.storage, self.access, self.table, self.journal)
        self.egress = open_egress(self)
        self.tools = make_tools(self)
        self.retriever = open_retriever(self)
        self.signals = Signals(self.table, self.scheduler, self._changed)
        self.brake = LoopBrake(limits, self._pause, self.journal.tell)
        self.programs: Programs = Programs(self, self.tokens, self.launcher, self.egress)

    def set_owner_token(self, token: str) -> None:
        """Make this the token of init; the one before it is void."""
        self.owner_token = self.tokens.issue(INIT_PID, token)

    def authenticate(self, token: str) -> Pid:
        """The process that a token stands for.

        The owner's token followed by `.NAME` stands for the guest of that name, which is made when it is not there.

        Raises:
            Unauthenticated: No process has that token.
        """
        pid = self.tokens.find(token)
        if pid is not None:
            return pid
        owner, name = split_guest(token)
        if name and self.tokens.find(owner) == INIT_PID:
            return self._named_guest(name)
        hint = "the owner's token is in the file `token` of AIOS_HOME"
        raise Unauthenticated("the token is not valid", hint=hint)

    def gate(self, pid: Pid) -> LocalGate:
        """The door for a process."""
        return LocalGate(self, self.table.get(pid))

    def init_gate(self) -> LocalGate:
        """The door for the owner."""
        return LocalGate(self, self.init)

    def admit(self, name: str, *, parent: Process | None = None) -> tuple[Process, str]:
        """Make a guest and its token."""
        process = self.add_process(name, Kind.GUEST, parent or self.init)
        return process, self.tokens.issue(process.pid)

    def spawn_task(self, name: str, body: Body, *, ppid: Pid = INIT_PID) -> Pid:
        """Run an async function of this program as a process. It is trusted: only its calls can be held or refused."""
        process = self.add_process(name, Kind.TASK, self.table.get(ppid))
        process.has_body = True
        scope = anyio.CancelScope()
        process.on_kill = scope.cancel
        self.tasks.start_soon(self._attend_task, process, body, scope)
        return process.pid

    def end_self(self, run: Run, end: Exit) -> None:
        """The process that makes this call ends when the call does, and its program soon after."""
        process = run.process
        if process.pid == INIT_PID:
            raise Conflict("init cannot exit", hint="`aios shutdown` ends the kernel")
        self.signals.begin_end(process, end, but=run)
        self._revoke(process)
        if process.on_end_soon is not None:
            self.tasks.start_soon(process.on_end_soon)

    def add_process(self, name: str, kind: Kind, parent: Process, *, program: str = "") -> Process:
        """A process; a guest is an owner of its own, whose name no other living process has and nobody can take."""
        if kind is Kind.GUEST and name == self.init.owner:
            hint = "use another name"
            raise InvalidCall(f"no guest is named {name!r}: that one owns the kernel", hint=hint)
        rights = granted(kind, parent.rights)
        process = self.table.add(
            name, kind=kind, parent=parent, rights=rights, owner=parent.owner, program=program
        )
        if kind is Kind.GUEST:
            process.owner = process.name
        process.bounds = bounds_of(process, parent)
        self.budgets.open(process)
        if kind is not Kind.PROGRAM:  # a program's is written when all of it is known
            self._changed(process)
        return process

    def _named_guest(self, name: str) -> Pid:
        """The guest of that name. One that was killed stays so: its name is not given to a new one while it is remembered."""
        pid = self._named_guests.get(name)
        if pid is None:
            if name == self.init.owner or self.table.find_named(name) is not None:
                hint = "use another name in the token"
                raise Unauthenticated(f"the name {name!r} belongs to another process", hint=hint)
            process = self.add_process(name, Kind.GUEST, self.init)
            pid = process.pid
            self.name_guest(name, pid)
            self._changed(process)
        return pid

    def _close(self, process: Process) -> None:
        """A process has ended: what the managers hold for it goes."""
        assert process.exit is not None, "it has ended"
        self.post.close(process, is_over=not self.is_stopping)
        told = self.post.tell_exit(process, process.exit)
        how = f"{process.exit.status} {process.exit.reason}".rstrip()
        self.journal.tell(process.pid, "exited", how)
        for pid in sorted(process.children):
            if self.table.get(pid).is_alive:
                self.journal.tell(pid, "adopted", "by init")
        self.short_term.close(process)
        self.tools.close(process)
        if not self.is_stopping:
            self.approvals.close(process)
        self.storage.close(process)
        self.context_table.close_all(process)
        self.gaps.forget(process.pid)
        self.budgets.end(process)
        self.programs.forget(process.pid)
        process.pages = ()
        process.homes.clear()
        if self.programs.residents is not None and not self.is_stopping:
            self.programs.residents.note(process, told)

    def _forget(self, pid: Pid) -> None:
        """An ended process was dropped from the table."""
        self.tokens.revoke(pid)
        self.budgets.forget(pid)
        self.programs.drop(pid)
        self._named_guests.pop(self._guest_names.pop(pid, ""), None)
        if self.programs.residents is not None:
            self.programs.residents.forget(pid)

    async def _attend_task(self, process: Process, body: Body, scope: anyio.CancelScope) -> None:
        end = Exit(0)
        try:
            with scope:
                end = Exit(0, "", await body(LocalGate(self, process)) or "")
        except AiosError as error:
            end = Exit(1, f"{error.code}: {error.message}")
        except Exception as error:  # noqa: BLE001 - the edge to embedded agents: a bug ends that agent only
            end = Exit(1, f"{type(error).__name__}: {error}")
        finally:
            process.has_body = False
            if end.status:
                self.note(process, end.reason)
            self.end_process(process, end)

    def end_process(self, process: Process, end: Exit) -> None:
        self._revoke(process)
        self.signals.begin_end(process, end)
        self.signals.settle(process)

    def _revoke(self, process: Process) -> None:
        """The token of an ended program is void; a guest's is kept, so that it is told that it has exited."""
        if process.kind is Kind.PROGRAM:
            self.tokens.revoke(process.pid)

    async def _embed(self, texts: tuple[str, ...]) -> Embeddings:
        """Vectors of notes, by a call of init's like any other: it waits for its turn, and is accounted for."""
        call = Embed(texts=texts, model=self.config.memory.embedder_model)
        return (await self.init_gate().call(call)).value

    def _pause(self, process: Process, why: str) -> None:
        """Stop a process in the middle of a call of its own, and write down why."""
        self.note(process, why)
        self.signals.hold(process)

    def note(self, process: Process, text: str) -> None:
        process.log.write(text, stream="kernel", unix_s=self.clock.unix_s())

    def add_engine(self, core: Core) -> None:
        """Start an engine in the background; calls for it wait until it is ready."""
        self.cores.add(core)
        self.tasks.start_soon(self.cores.run, core)

    def info(self) -> KernelInfo:
        return KernelInfo(
            version=__version__,
            os_pid=os.getpid(),
            home=str(self.home.root),
            started_unix_s=self._started_unix_s,
            uptime_s=self.clock.now_s() - self._started_s,
            n_processes=self.table.n_alive,
            n_calls=sum(process.n_calls for process in self.table),
            n_in_flight=sum(len(process.runs) for process in self.table),
            n_journal_records=self.journal.statistics().n_records,
            engines=self.cores.infos(),
            urls=tuple(self.urls),
            warnings=tuple(self.warnings),
            embedded=self.embedded,
        )

    async def resume(self) -> None:
        """Go on where the last kernel on this home ended, and keep a journal from now on.

        Raises:
            Conflict: Another kernel has the database open.
            DiskFailed: It cannot be used.
        """
        disk = self.journal.disk
        assert disk is not None, "a kernel without a journal cannot resume"
        self.programs.residents = residents = Residents(disk, self._describe, await keep_logs(self))
        self.tasks.start_soon(disk.run)
        self.context_table.number_after(int(1000 * self._started_unix_s))
        await resume(self, residents)
        await self.timers.load()
        residents.note(self.init)
        self.tasks.start_soon(disk.run_sweeper, self._kept)

    def begin(self) -> None:
        """Start what was taken up, and what is due. Call it when the kernel has an address for programs."""
        self.programs.begin()
        self.tasks.start_soon(self.timers.attend, self.init_gate())

    def name_guest(self, name: str, pid: Pid) -> None:
        """The owner's token followed by `.NAME` stands for this guest."""
        self._named_guests[name], self._guest_names[pid] = pid, name

    def _describe(self, process: Process) -> Resident:
        """A process's row on disk."""
        pid = process.pid
        return resident_of(
            process,
            token=self.tokens.digest_of(pid) if process.kind is Kind.GUEST else b"",
            guest_name=self._guest_names.get(pid, ""),
            launched=self.programs.launched_of(pid),
            budget=self.budgets.info(pid),
        )

    def _changed(self, process: Process) -> None:
        """Something of a process is other than its row on disk says."""
        self.budgets.note(process)
        if self.programs.residents is not None and not self.is_stopping:
            self.programs.residents.note(process)

    def _kept(self) -> Kept:
        """What the journal must keep now."""
        config = self.config.journal
        found = ((p.pid, self.programs.first_needed(p)) for p in self.table if p.is_alive)
        alive = {pid: first for pid, first in found if first is not None}
        alive |= self.checkpoints.journals()
        ended = {p.pid: p.ended_unix_s for p in self.table if p.ended_unix_s is not None}
        since_unix_s = self.clock.unix_s() - config.keep_s
        return Kept(alive, since_unix_s, config.max_bytes, self.table.last_pid, ended)

    def request_shutdown(self) -> None:
        """Ask whoever serves this kernel to drain and end it."""
        self.stopping.set()

    async def drain(self, grace_s: float) -> None:
        """Take no new calls, give those in flight `grace_s` to end, then kill every process."""
        self.is_stopping = self.journal.is_closing = True
        self.stopping.set()
        with anyio.move_on_after(grace_s):
            for process in self.table:
                await process.wait_drained()
        for pid in sorted(self.init.children):
            child = self.table.find(pid)  # an ended one may be forgotten while others are awaited
            if child is not None and child.is_alive:
                with anyio.move_on_after(self.config.kernel.stop_grace_s):
                    await self.signals.put_away(child)

    def check_invariants(self) -> None:
        """Raise AssertionError if the kernel's state contradicts itself."""
        self.table.check_invariants()
        self.scheduler.check_invariants()
        self.post.check_invariants()
        self.short_term.check_invariants()
        self.context_table.check_invariants()
        self.budgets.check_invariants()
        self.tools.check_invariants()
        self.approvals.check_invariants()


@asynccontextmanager
async def open_kernel(
    config: Config,
    home: Home,
    *,
    engines: Mapping[str, Engine] | None = None,
    clock: Clock | None = None,
    embedded: bool = False,
    is_durable: bool = False,
) -> AsyncIterator[Kernel]:
    """Boot a kernel; on leaving, every process is killed and every engine closed.

    Args:
        config: Every knob.
        home: Where models are.
        engines: Engines by name, not yet started; None makes those that the configuration asks for.
        clock: The operating system's when None.
        embedded: It lives inside a command and ends with it.
        is_durable: It goes on where the last one on this home ended, and keeps a journal on disk if the configuration lets it.
    """
    policies = Policies(load_sources(config.access.profile, home.policies))
    async with anyio.create_task_group() as tasks:
        kernel = Kernel(
            config,
            home,
            policies=policies,
            clock=clock or SystemClock(),
            tasks=tasks,
            embedded=embedded,
            is_durable=is_durable,
        )
        if kernel.is_durable:
            await kernel.resume()
        await kernel.tools.servers.see_files()
        tasks.start_soon(kernel.budgets.run)  # it asks, and the questions of before must be known
        if engines is None:
            cores = configured_cores(config, home, kernel.contexts.find_opener)
            kernel.warnings.extend(thread_warnings(config))
        else:
            cores = given_cores(engines)
        for core in cores:
            kernel.add_engine(core)
        tasks.start_soon(kernel.mounting.begin)
        tasks.start_soon(partial(kernel.retriever.run, waits_for_a_call=embedded))
        try:
            yield kernel
        finally:
            with anyio.CancelScope(shield=True):
                await kernel.drain(0)
                await kernel.tools.servers.aclose()
                await kernel.retriever.aclose()
                await kernel.cores.aclose()
                await anyio.to_thread.run_sync(kernel.contexts.flush)
                with suppress(AiosError):  # how often notes were used is not worth a failed end
                    await kernel.memory.aclose()
                await kernel.mounting.aclose()
                if kernel.journal.disk is not None:
                    with suppress(AiosError):
                        await kernel.journal.disk.flush()
                await kernel.db.aclose()
            tasks.cancel_scope.cancel()
