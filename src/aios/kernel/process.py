"""Processes and their calls in flight; `process_table.py` holds them.

A process is a record; what runs behind it (an operating-system process, an async function, a client somewhere) is the
loader's, the embedder's or the server's matter. A process that exited makes no more calls. `stop` holds its calls at the
door and at every point where a call waits; a call that waits is *parked* and does nothing until it is let go on.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import anyio
from msgspec import Struct

from aios.abi.access import Principal
from aios.abi.approvals import WAITS_FOR
from aios.abi.call import Answer
from aios.abi.contexts import ContextId
from aios.abi.taint import Taint
from aios.abi.types import Exit, Kind, PagesHeld, Pid, ProcessInfo, Right, State, Usage
from aios.errors import ProcessGone, ResourceExhausted
from aios.kernel.frames import Emit
from aios.kernel.homes import Homes
from aios.kernel.journal.records import Record
from aios.kernel.journal.streams import CallStreams
from aios.kernel.lineage import agent_of
from aios.kernel.logs import LogBuffer
from aios.kernel.replay import Replay
from aios.kernel.sandbox.view import View

if TYPE_CHECKING:
    import apsw

    from aios.kernel.brake import Repeats
    from aios.kernel.journal.tables import Row

INIT_PID = Pid(1)

A = TypeVar("A", bound=Answer)


class Standing(Struct, frozen=True):
    """How far a process is from a turn: the best place of its calls (0 holds one, 1 is next), and that call's level if the policy has levels."""

    place: int
    level: int | None = None


class Confines(Struct, frozen=True):
    """The branch that a process is, or is within: what it does stays in there until the branch is committed."""

    pid: Pid
    name: str
    home: str
    """The folder in which files may be changed."""
    source_name: str
    """Whose notes it may read, too; what is within it may not."""
    may_act: bool = False
    """Its tools may do what cannot be taken back."""


@dataclass(eq=False, slots=True)
class Run:
    """One system call in flight: who makes it, what it has cost so far, and where its frames go."""

    process: "Process"
    seq: int
    name: str
    scope: anyio.CancelScope
    emit: Emit | None = None
    begun_s: float = 0.0
    """When it was made, on the kernel's clock."""
    deadline_s: float | None = None
    """When it must be done, on the same clock."""
    waited_s: float = 0.0
    ran_s: float = 0.0
    n_preemptions: int = 0
    pages: tuple[bytes, ...] = ()
    """The pages of its last generation."""
    context_homes: Homes | None = None
    """Where the context is at home in which it speaks; None: it speaks in none."""
    waiting_since_s: float | None = None
    """Set while it waits for a turn."""
    running_since_s: float | None = None
    """Set while it holds a turn."""
    detail: str = ""
    """What `ps` shows beside the name: which tool it runs, or what that waits for."""
    is_parked: bool = False
    on_hold: Callable[[bool], None] | None = None
    """Freezes (True) or thaws (False) what this call runs outside of the kernel."""
    is_background: bool = False
    """It asks for turns at nice 19, whatever the process's own value is."""
    streams: CallStreams | None = None
    """Journals in pieces what is generated for it."""
    seal: "Callable[[apsw.Connection, Answer], None] | None" = None
    """Writes the outcome into the journal, in the transaction that has the effect."""
    seal_for: "Callable[[apsw.Connection, Answer, Pid], None] | None" = None
    """Writes the same call, with another outcome, into the journal of another process."""
    record: Record | None = None
    """Its record in the journal, once that has begun."""
    within: int = 0
    """The record of the call in the course of which the kernel makes it; 0: the process itself asks."""
    job: int = 0
    """The call of a tool for whose sake the process makes it, by the number of its `ToolJob`; 0: none."""
    undoes: Record | None = None
    """The call that was cut off and that this one undoes."""
    again: Record | None = None
    """The record of this call in an earlier life, if it is made again as it was."""
    told: "list[Row]" = field(default_factory=list)
    """What the kernel was told in the course of it in that life."""
    on_effect: Callable[[], Awaitable[None]] | None = None
    """Writes down that the effect begins; None when there is none, or it has begun."""
    taken: list[int] = field(default_factory=list)
    """The questions whose answers it has taken, each of which was for one call."""
    shown: Callable[[], str] | None = None
    """What a human who is asked about it is shown of its arguments."""

    @property
    def record_seq(self) -> int:
        """The number of its record in the journal; 0: it has none yet."""
        return 0 if self.record is None else self.record.seq

    @property
    def key(self) -> str:
        """What the world outside may know this call by, or the call that it undoes."""
        record = self.undoes or self.record
        return "" if record is None else record.key

    async def begin_effect(self) -> None:
        """Return when the effect may be: all that must be on disk before it is. Nothing is asked after it.

        Raises:
            AiosError: It cannot be written down, so it must not be.
        """
        if self.on_effect is not None:
            begin, self.on_effect = self.on_effect, None
            await begin()

    @contextmanager
    def saying(self, what: str) -> Iterator[None]:
        """While the block runs, the table of processes shows this too of what the call does."""
        before, self.detail = self.detail, f"{self.detail} {what}".strip()
        try:
            yield
        finally:
            self.detail = before

    @contextmanager
    def parked(self) -> Iterator[None]:
        """Mark a wait during which the call does nothing, so that `stop` need not wait for it."""
        self.is_parked = True
        self.process.notice_quiet()
        try:
            yield
        finally:
            self.is_parked = False

    @contextmanager
    def holding(
        self, freeze: Callable[[bool], bool | None], is_still: Callable[[], bool] = lambda: True
    ) -> Iterator[None]:
        """While the block runs, `stop` freezes what it started, and so parks it; `cont` thaws it.

        What cannot be frozen any more, as `freeze` then tells by False, is waited for, and so is what `is_still` says is not frozen yet.
        """

        def hold(is_stopped: bool) -> None:
            is_frozen = freeze(is_stopped)
            self.is_parked = is_stopped and is_frozen is not False
            self.process.notice_quiet()

        self.on_hold = hold
        self.process.stills.append(is_still)
        if self.process.is_stopped:
            hold(True)
        try:
            yield
        finally:
            self.on_hold = None
            self.process.stills.remove(is_still)
            self.is_parked = False

    def sealed(self, connection: "apsw.Connection", answer: A) -> A:
        """Inside the one write of a call: write its answer into the journal, so that effect and outcome are on disk, or neither.

        Returns: the answer.
        """
        if self.seal is not None:
            self.seal(connection, answer)
        return answer

    @property
    def homes(self) -> Homes:
        """Where the conversation is at home that it goes on with."""
        return self.process.homes if self.context_homes is None else self.context_homes

    async def runnable(self) -> None:
        """Wait, parked, while the process is stopped."""
        while self.process.is_stopped:
            with self.parked():
                await self.process.wait_continued()

    async def room(self) -> None:
        """Wait, parked, while a slow reader has too much of its lines and changes unread; nothing if nobody reads."""
        if self.emit is not None and self.emit.is_full:
            with self.parked():
                await self.emit.wait_room()
            await self.runnable()


@dataclass(eq=False, slots=True)
class Process:
    """One process. Its children are those whose `ppid` is its pid."""

    pid: Pid
    ppid: Pid
    name: str
    kind: Kind
    owner: str
    rights: frozenset[Right]
    log: LogBuffer
    program: str = ""
    code: str = ""
    """The digest of its program's folder when this life began; empty if that is too large, or there is none."""
    lineage: tuple[str, ...] = ()
    """The names from the child of init down to itself, as they were when it began; init's own is empty."""
    family: str = ""
    """The child of init that it is or comes from, by name; that of a branch is its source's. Empty for init."""
    fetch_lists: tuple[tuple[str, ...], ...] = ()
    """Hosts to which manifests bound it and those above it: each list holds."""
    network: tuple[tuple[str, ...], ...] | None = None
    """Hosts that its programs may reach: each list holds, beside the owner's; None is no network."""
    bounds: tuple[Principal, ...] = ()
    """Whose policies hold for it: of those that started it, also when they have ended, and its own."""
    taint: Taint | None = None
    """Data from outside has reached it."""
    on_taint: "Callable[[Process], None] | None" = None
    """Told when it is marked so."""
    nice: int = 0
    started_unix_s: float = 0.0
    ended_unix_s: float | None = None
    is_new: bool = False
    is_stopped: bool = False
    is_held: bool = False
    """It is stopped for a moment, and not under the next kernel."""
    n_freezes: int = 0
    """So many hold it whatever anybody says; see `Signals.freeze`."""
    stays_stopped: bool = False
    """Of a frozen one: whether it is stopped when it thaws."""
    exiting: Exit | None = None
    """Set from the moment of `exit` or `kill`: no new calls."""
    exit: Exit | None = None
    """Set when it has ended for good."""
    is_waited_for: bool = False
    """Its parent has taken notice of the exit."""
    has_body: bool = False
    """Something runs behind it (a child process, a task) that has not ended yet."""
    os_pid: int | None = None
    view: View | None = None
    """What it sees of the host; None: all of it, as the owner and what runs in the kernel's own program do."""
    children: set[Pid] = field(default_factory=set)
    runs: dict[int, Run] = field(default_factory=dict)
    n_calls: int = 0
    n_journalled: int = 0
    """The number of its last record in the journal."""
    replay: Replay | None = None
    """What it is told instead of being served, until it is where it was."""
    repeats: "dict[str, Repeats]" = field(default_factory=dict)
    """By the names of calls, what it repeats; for the loop brake."""
    instruction: str = ""
    """What each of its chats ends with, if it is a fork that was given one."""
    context_names: dict[ContextId, ContextId] = field(default_factory=dict)
    """The contexts that it knows by numbers which others have here."""
    waits_for: str = ""
    """What it waits for between two lives, in words."""
    n_faults: int = 0
    n_preemptions: int = 0
    waited_s: float = 0.0
    ran_s: float = 0.0
    usage: Usage = Usage()
    confines: Confines | None = None
    """Set in a branch that is not committed, and in all that it starts."""
    payer: Pid | None = None
    """Whose budget it spends from, where that is not its parent's: a branch that of its source, whose parent has ended still that one's."""
    max_block_bytes: int | None = None
    """The size of its memory block for interactions; None: what the configuration says."""
    block_bytes: int = 0
    n_block_faults: int = 0
    pages: tuple[bytes, ...] = ()
    """The pages of its last conversation with a model."""
    homes: Homes = field(default_factory=dict)
    """Where its last conversation outside contexts is at home."""
    on_kill: Callable[[], None] | None = None
    """Ends what runs behind the process, at once and without waiting."""
    on_terminate: Callable[[], None] | None = None
    """Asks what runs behind the process to end."""
    is_terminated: bool = False
    """It was asked to end, so its end is no crash."""
    on_stop: Callable[[bool], None] | None = None
    """Freezes (True) or thaws (False) what runs behind the process."""
    stills: list[Callable[[], bool]] = field(default_factory=list)
    """Each tells whether nothing of what it started runs any more, once the process is stopped; two calls of a server have the same."""
    on_end_soon: Callable[[], Coroutine[None, None, None]] | None = None
    """Gives what runs behind the process a moment to end by itself, then ends it."""
    _scope: type[anyio.CancelScope] | None = None
    """The scope of the event loop that runs here: to ask which one does costs a call more than all else of its beginning."""
    _ended: anyio.Event | None = None
    _continued: anyio.Event | None = None
    _quiet: anyio.Event | None = None
    _caught_up: anyio.Event | None = None

    @property
    def agent(self) -> str:
        """What its private memory is kept by."""
        return agent_of(self.lineage) or self.name

    @property
    def is_alive(self) -> bool:
        """It has not ended; it may be on its way out."""
        return self.exit is None

    @property
    def is_coming_back(self) -> bool:
        """It is a program that is started, perhaps once more, and not yet where it was."""
        is_program = self.kind is Kind.PROGRAM and self.is_alive
        return is_program and (self.os_pid is None or self.replay is not None)

    @property
    def state(self) -> State:
        """What it is doing now."""
        if self.exit is not None:
            return State.EXITED
        if self.is_stopped:
            return State.STOPPED
        if any(run.running_since_s is not None for run in self.runs.values()):
            return State.RUNNING
        if any(run.waiting_since_s is not None for run in self.runs.values()):
            return State.READY
        return State.NEW if self.is_new else State.WAITING

    def begin(self, name: str, *, max_calls: int, emit: Emit | None = None) -> Run:
        """Register a call.

        Raises:
            ProcessGone: The process has exited or is about to.
            ResourceExhausted: `max_calls` of its calls are in flight.
        """
        if self.exiting is not None or self.exit is not None:
            raise self.gone()
        if len(self.runs) >= max_calls:
            raise ResourceExhausted(
                f"process {self.pid} has {len(self.runs)} calls in flight, the limit is {max_calls}",
                hint="wait for some of them, or raise kernel.max_calls_per_process",
                retry_after_s=1.0,
            )
        self.n_calls += 1
        if self._scope is None:
            self._scope = type(anyio.CancelScope())
        run = Run(self, self.n_calls, name, self._scope(), emit)
        self.runs[run.seq] = run
        return run

    def next_seq(self) -> int:
        """The number of its next record in the journal."""
        self.n_journalled += 1
        return self.n_journalled

    def end(self, run: Run) -> None:
        """Forget a call and add up what it cost."""
        del self.runs[run.seq]
        self.waited_s += run.waited_s
        self.ran_s += run.ran_s
        self.n_preemptions += run.n_preemptions
        self.notice_quiet()

    def end_replay(self) -> None:
        """From now on its calls are made, not told."""
        self.replay = None
        if self._caught_up is not None:
            self._caught_up.set()
            self._caught_up = None

    async def wait_replayed(self) -> None:
        """Wait until its calls are made, or it ends."""
        while self.replay is not None:
            if self._caught_up is None:
                self._caught_up = anyio.Event()
            await self._caught_up.wait()

    def gone(self) -> ProcessGone:
        """The error for a call of a process that has exited."""
        end = self.exiting or self.exit or Exit(0)
        why = f": {end.reason}" if end.reason else ""
        return ProcessGone(
            f"process {self.pid} ({self.name}) has exited with status {end.status}{why}",
            hint="start a new process",
        )

    def is_quiet(self, but: Run | None = None) -> bool:
        """Whether all its calls, `but` one, are parked."""
        return all(run.is_parked for run in self.runs.values() if run is not but)

    def notice_quiet(self) -> None:
        """Wake who waits for the process to get quiet; they look again."""
        if self._quiet is not None:
            self._quiet.set()
            self._quiet = None

    async def wait_quiet(self, but: Run | None = None) -> None:
        """Wait until all its calls, `but` one, are parked or over."""
        while not self.is_quiet(but):
            if self._quiet is None:
                self._quiet = anyio.Event()
            await self._quiet.wait()

    async def wait_drained(self) -> None:
        """Wait until no call of it computes or waits for a turn; those that wait for other things stay."""
        while any(
            not run.is_parked or run.waiting_since_s is not None for run in self.runs.values()
        ):
            if self._quiet is None:
                self._quiet = anyio.Event()
            await self._quiet.wait()

    async def wait_ended(self) -> Exit:
        """Wait until it has ended."""
        while self.exit is None:
            if self._ended is None:
                self._ended = anyio.Event()
            await self._ended.wait()
        return self.exit

    def set_stopped(self, is_stopped: bool) -> None:
        """Hold its calls or let them go on."""
        self.is_stopped = is_stopped
        if not is_stopped and self._continued is not None:
            self._continued.set()
            self._continued = None

    async def wait_continued(self) -> None:
        """Wait until it is no longer stopped."""
        while self.is_stopped:
            if self._continued is None:
                self._continued = anyio.Event()
            await self._continued.wait()

    def mark_ended(self, end: Exit, *, unix_s: float) -> None:
        """Set the end, once, and wake who waits for it."""
        assert self.exit is None, f"process {self.pid} ended twice"
        self.exit = self.exiting = end
        self.ended_unix_s = unix_s
        self.log.close()
        if self._ended is not None:
            self._ended.set()
            self._ended = None

    def info(
        self, now_s: float, standing: Standing | None = None, held: PagesHeld | None = None
    ) -> ProcessInfo:
        """The row of `ps`, with the costs of calls in flight added."""
        runs = self.runs.values()
        return ProcessInfo(
            pid=self.pid,
            ppid=self.ppid,
            name=self.name,
            program=self.program,
            owner=self.owner,
            kind=self.kind,
            state=self.state,
            nice=self.nice,
            activity=self._activity(),
            started_unix_s=self.started_unix_s,
            ended_unix_s=self.ended_unix_s,
            exit=self.exit,
            n_calls=self.n_calls,
            n_faults=self.n_faults,
            n_preemptions=self.n_preemptions + sum(run.n_preemptions for run in runs),
            waited_s=self.waited_s
            + sum(_spent(run.waited_s, run.waiting_since_s, now_s) for run in runs),
            ran_s=self.ran_s + sum(_spent(run.ran_s, run.running_since_s, now_s) for run in runs),
            usage=self.usage,
            os_pid=self.os_pid,
            place=standing.place if standing is not None else None,
            level=standing.level if standing is not None else None,
            pages=held,
            block_bytes=self.block_bytes,
            n_block_faults=self.n_block_faults,
            taint=self.taint,
        )

    def _activity(self) -> str:
        """What its newest call does, but before that one that waits for a human: nobody else can let that go on."""
        told = [f"{run.name} {run.detail}".rstrip() for run in reversed(self.runs.values())]
        newest = told[0] if told else self.waits_for
        return next((each for each in told if WAITS_FOR in each), newest)


def _spent(settled_s: float, since_s: float | None, now_s: float) -> float:
    return settled_s + (now_s - since_s if since_s is not None else 0.0)
