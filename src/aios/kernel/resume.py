"""How a kernel takes up what the last one on its home left: its processes, their tokens and budgets, and what was in the middle."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import anyio.to_thread
import apsw
import msgspec

from aios.abi.recovery import Question, Restart
from aios.abi.tools import ToolRun
from aios.abi.types import Exit, Kind, Pid
from aios.abi.wire import decode_call
from aios.config import Config
from aios.disk.db import Database
from aios.kernel.approvals.approvals import Approvals
from aios.kernel.identity import Tokens
from aios.kernel.journal import tables
from aios.kernel.journal.journal import Journal
from aios.kernel.journal.records import Record
from aios.kernel.leftovers import code_hash, kill_leftover
from aios.kernel.mail.post import PostOffice
from aios.kernel.process import INIT_PID, Process
from aios.kernel.process_table import ProcessTable
from aios.kernel.programs import Programs
from aios.kernel.recovery import LOST_STATUS, Fate, Verdict, fate_of
from aios.kernel.residents import Resident, Residents
from aios.kernel.signals import TERMINATED_STATUS, Signals
from aios.kernel.spending import Budgets

TOLD_CHARS = 200
"""Of the arguments of a tool, where its call is asked about."""


class Groups(Protocol):
    """Branches that ended together under the kernel before."""

    async def load(self) -> None:
        """Take them up."""
        ...

    def find_end(self, process: Process) -> Exit | None:
        """How a process ends with its group, if it does."""
        ...

    async def sweep(self) -> None:
        """Remove what is left of those that have ended."""
        ...


class PutAway(Protocol):
    """Checkpoints of the kernel before."""

    async def load(self) -> None:
        """Take them up."""
        ...


class Resumed(Protocol):
    """What is filled again of a kernel."""

    config: Config
    db: Database
    table: ProcessTable
    tokens: Tokens
    budgets: Budgets
    signals: Signals
    programs: Programs
    post: PostOffice
    journal: Journal
    approvals: Approvals

    @property
    def checkpoints(self) -> PutAway:
        """The processes that were put away."""
        ...

    @property
    def branches(self) -> Groups:
        """The groups of branches."""
        ...

    def name_guest(self, name: str, pid: Pid) -> None:
        """A guest is known by this name in tokens."""
        ...


async def resume(kernel: Resumed, residents: Residents) -> None:
    """Take up all processes, decide what becomes of each, and end those that end.

    Programs that go on are started by `kernel.programs.begin`, once the kernel has an address.
    """
    await kernel.db.open()
    kernel.table.number_after(kernel.db.read_nowait(tables.last_pid))
    rows = await residents.load()
    last_seqs, open_records = await kernel.db.read(
        lambda c: (tables.last_seqs(c), tables.open_records(c))
    )
    by_pid: dict[Pid, list[Record]] = defaultdict(list)
    for record in open_records:
        by_pid[record.pid].append(record)
    for row in rows:
        process = _taken_up(kernel, row)
        first_seq = row.launched.first_seq if row.launched is not None else 1
        process.n_journalled = max(last_seqs.get(row.pid, 0), first_seq - 1)
    await kernel.post.load()
    await kernel.branches.load()
    await kernel.approvals.load(
        {row.pid: row.launched.first_seq for row in rows if row.launched is not None}
    )
    await kernel.checkpoints.load()
    await kernel.journal.take_up(_is_alive(kernel.table))
    for row in rows:
        if row.exit is None and row.pid != INIT_PID:
            await _decide(kernel, row, by_pid[row.pid])
    await kernel.branches.sweep()


def _is_alive(table: ProcessTable) -> Callable[[Pid], bool]:
    return lambda pid: (process := table.find(pid)) is not None and process.is_alive


def _taken_up(kernel: Resumed, row: Resident) -> Process:
    """A process of the kernel before, in all tables again."""
    if row.pid == INIT_PID:
        init = kernel.table.get(INIT_PID)
        init.usage = row.usage
        return init
    process = row.process(kernel.table.open_log(row.pid))
    kernel.table.adopt(process)
    kernel.budgets.open(process)
    if row.budget is not None:
        kernel.budgets.restore(process, row.budget)
    if row.launched is not None:
        kernel.programs.remember(process, row.launched)
    if row.token:
        kernel.tokens.restore(row.pid, row.token)
    if row.guest_name:
        kernel.name_guest(row.guest_name, row.pid)
    return process


async def _decide(kernel: Resumed, row: Resident, open_records: list[Record]) -> None:
    """End a process, leave it, or have it started."""
    process, launched = kernel.table.get(row.pid), row.launched
    is_changed = False
    if launched is not None:
        await anyio.to_thread.run_sync(kill_leftover, launched.os_pid, launched.os_start)
        if launched.restart.policy != "never":
            digest = await anyio.to_thread.run_sync(partial(code_hash, launched.program))
            is_changed = digest != launched.code_hash
    parent = kernel.table.find(row.ppid)
    names = await kernel.db.read(lambda c: {each.seq: _named(c, each) for each in open_records})
    verdict = _verdict(
        row,
        open_records,
        names,
        is_changed=is_changed,
        is_parent_back=parent is not None and parent.is_alive and parent.kind is Kind.PROGRAM,
    )
    end = kernel.branches.find_end(process)
    if end is None and row.is_terminated:
        end = Exit(TERMINATED_STATUS, "terminated")
    if end is not None:
        verdict = Verdict(Fate.END, end.reason)
    match verdict.fate:
        case Fate.STAY:
            pass
        case Fate.END:
            kernel.signals.begin_end(process, end or Exit(LOST_STATUS, verdict.why))
            kernel.signals.settle(process)
        case Fate.START | Fate.ASK:
            assert launched is not None, "only programs are started again"
            question = None
            if verdict.fate is Fate.ASK:
                question = Question(row.pid, row.name, verdict.why, verdict.choices)
            kernel.programs.adopt(process, launched, question)


def _named(connection: apsw.Connection, record: Record) -> str:
    """What a call was for: of a tool, which one and with what."""
    if record.is_doubtful:
        for row in tables.load(connection, record.pid, after=record.seq - 1, limit=1):
            call = decode_call(row.intent) if row.intent else None
            if isinstance(call, ToolRun):
                told = call.arguments
                if not isinstance(told, str):
                    told = msgspec.json.encode(told).decode()
                more = "..." if len(told) > TOLD_CHARS else ""
                return f"{call.name} {told[:TOLD_CHARS]}{more}"
    return record.call


def _verdict(
    row: Resident,
    open_records: list[Record],
    names: Mapping[int, str],
    *,
    is_changed: bool,
    is_parent_back: bool,
) -> Verdict:
    if row.kind is Kind.PROGRAM and row.launched is None:
        return Verdict(Fate.END, "it was never started")
    restart = row.launched.restart if row.launched is not None else Restart()
    return fate_of(
        row.kind,
        restart,
        open_records,
        is_code_changed=is_changed,
        is_parent_back=is_parent_back,
        name=lambda record: names[record.seq],
    )
