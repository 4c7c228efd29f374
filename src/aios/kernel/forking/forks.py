"""Branches of processes: a copy of what a process has up to a call, and the same program run again behind it.

Nothing is computed again: the branch's journal shares its texts with that of its source, its files share their contents, and its
contexts the KV pages that are kept by what is in them.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread
import apsw
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from aios.abi.budget import Limits
from aios.abi.call import Answer
from aios.abi.fork import Fork, Forked
from aios.abi.types import Exit, Kind
from aios.config import Config
from aios.errors import Conflict, InvalidCall
from aios.kernel.forking.copies import Copied, Copy, Estate, Past, Store, find_point, make_copies
from aios.kernel.journal.journal import Journal
from aios.kernel.leftovers import code_hash
from aios.kernel.lineage import agent_of, home_of
from aios.kernel.mail.post import PostOffice
from aios.kernel.memory import heirs, interactions
from aios.kernel.process import Confines, Process, Run
from aios.kernel.process_table import ProcessTable
from aios.kernel.programs import ProgramKernel, Programs
from aios.kernel.residents import Launched, Resident
from aios.kernel.sandbox.spawning import check_words
from aios.kernel.sandbox.view import View
from aios.kernel.spending import Budgets
from aios.kernel.storage.branch import is_unused
from aios.kernel.storage.manager import StorageManager
from aios.kernel.taint import at_fork

A = TypeVar("A", bound=Answer)


class ForkKernel(ProgramKernel, Protocol):
    """What forks use of the kernel."""

    config: Config
    table: ProcessTable
    journal: Journal
    budgets: Budgets
    programs: Programs
    storage: StorageManager
    post: PostOffice


class Origin(Struct, frozen=True):
    """What branches are made of."""

    row: Resident
    launched: Launched
    at: int | None = None
    """The last call that they have of it; None: the last that ended."""
    put_away: Estate | None = None
    """Where its things are, if it is a checkpoint of `row`."""
    source: Process | None = None
    """The process, unless it is put away: it may end before its branches are written down."""

    @property
    def estate(self) -> Estate:
        """What its things are known by."""
        row = self.row
        if self.put_away is not None:
            return self.put_away
        return Estate(row.pid, home_of(row.lineage), row.owner, agent_of(row.lineage))

    @property
    def past(self) -> Past:
        """What is copied of it."""
        return Past(self.launched.first_seq, self.row.started_unix_s, self.at, self._is_over)

    def _is_over(self) -> bool:
        return self.source is not None and not self.source.is_alive


class Twig(Struct, frozen=True):
    """What a branch is to be, where it is not as its origin."""

    name: str
    limits: Limits
    is_paid_by_source: bool = False
    """What it spends counts for its origin too, and so for all branches of that together."""
    instruction: str = ""
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    is_branch: bool = False
    """It is held in until it is committed; its folder is beside that of its origin."""
    may_act: bool = False
    """As `Confines.may_act`."""
    is_in_place: bool = False
    """It takes over name, folder and memory of its origin, whom nobody living is called by."""


class Grown(Struct, frozen=True):
    """A branch that is being made."""

    process: Process
    launched: Launched

    @property
    def estate(self) -> Estate:
        """What its things are known by."""
        return estate_of(self.process)


Finish = Callable[[apsw.Connection, Sequence[Grown], Sequence[Copied]], A]
"""Inside the write that makes branches: what else is written, and the answer of the call."""


class Forks:
    """Makes branches; the handler of `fork`."""

    def __init__(self, kernel: ForkKernel) -> None:
        self._kernel = kernel

    async def fork(self, run: Run, call: Fork) -> Forked:
        """Branch a program off."""
        source = self._kernel.table.get(call.pid)
        if source is run.process:
            raise Conflict("a process cannot fork itself", hint="it can branch itself: `branch`")
        check_env(call.env)
        origin = self.origin(source, call.at)
        limits = call.budget if call.budget is not None else self.left(source)
        twig = Twig(
            call.name or f"{source.name}-fork",
            limits,
            is_paid_by_source=call.budget is None,
            instruction=call.instruction,
            env=call.env,
        )

        def finish(_: apsw.Connection, grown: Sequence[Grown], copied: Sequence[Copied]) -> Forked:
            return Forked(grown[0].process.pid, grown[0].process.name, copied[0].at)

        return await self.grow(run, origin, [twig], finish)

    def origin(self, source: Process, at: int | None) -> Origin:
        """A process to be branched off.

        Raises:
            Conflict: It is no program, or the kernel keeps no journal on disk or has no address.
        """
        kernel = self._kernel
        launched = kernel.programs.launched_of(source.pid)
        if launched is None:
            raise Conflict(
                f"process {source.pid} ({source.name}) is no program that was started here",
                hint="only programs are forked: what runs them can be run again",
            )
        residents = kernel.programs.residents
        if residents is None:
            raise Conflict(
                "this kernel keeps no journal on disk", hint="`aios serve`, with `journal.is_on`"
            )
        return Origin(residents.row_of(source), launched, at, source=source)

    async def grow(self, run: Run, origin: Origin, twigs: Sequence[Twig], finish: Finish[A]) -> A:
        """Make branches, all or none, in one transaction; returns when they are on disk and their programs about to start.

        Raises:
            Conflict: The kernel has no address for programs.
            NotFound, TooLarge: As `make_copies`.
        """
        kernel = self._kernel
        if not kernel.urls:
            raise Conflict(
                "this kernel has no address for programs to call", hint="serve it on a socket"
            )
        origin = replace(origin, launched=await self._launched(origin.launched))
        await kernel.storage.open()
        await self._check_point(origin)
        with ExitStack() as undo:
            grown = [await self._sprout(run, origin, twig, undo) for twig in twigs]
            copied = list[Copied]()
            store = self.store()
            copies = [self._copy(origin, each) for each in grown]

            def write(connection: apsw.Connection) -> A:
                copied[:] = make_copies(connection, store, copies)
                return run.sealed(connection, finish(connection, grown, copied))

            pairs = [(each.process, each.launched) for each in grown]
            answer = await kernel.programs.write_down(pairs, write)
            undo.pop_all()
        kernel.storage.changes.publish()
        for each, twig, copy in zip(grown, twigs, copied, strict=True):
            kernel.note(each.process, _whence(origin, twig, copy.at))
            kernel.post.take_over(each.process, copy.mail)
            kernel.programs.start(each.process)
        return answer

    def left(self, source: Process, n_shares: int = 1) -> Limits:
        """What a process has left of its own limits, or an equal share of it."""
        info = self._kernel.budgets.info(source.pid)
        own = msgspec.structs.asdict(info.limits)
        left = msgspec.structs.asdict(info.left)
        return Limits(
            **{good: left[good] // n_shares for good, limit in own.items() if limit is not None}
        )

    async def _sprout(self, run: Run, origin: Origin, twig: Twig, undo: ExitStack) -> Grown:
        """A process for a branch, which is not on disk yet; `undo` ends it."""
        kernel = self._kernel
        if twig.is_paid_by_source:
            kernel.budgets.check_payers(origin.row.pid)
        one_child = await kernel.budgets.reserve_child(run)
        with ExitStack() as giving_back:
            giving_back.callback(one_child.settle, {})
            name = self._unused_name(run.process, origin, twig)
            process = kernel.add_process(
                name, Kind.PROGRAM, run.process, program=origin.launched.program
            )
            giving_back.pop_all()
        kernel.budgets.hold_child(process, one_child)
        undo.callback(self._abandon, process)
        launched = origin.launched
        if twig.is_in_place:
            if process.name != twig.name:  # else two would live in one folder
                raise Conflict(
                    f"somebody named {twig.name} was started meanwhile",
                    hint="restore it again: it begins beside that one",
                )
            process.lineage, process.family = origin.row.lineage, origin.row.family
        if twig.is_branch:
            launched = _held_in(process, origin, may_act=twig.may_act)
        _take_after(process, origin, launched)
        if twig.is_paid_by_source:
            kernel.budgets.place(process, origin.row.pid)
        kernel.budgets.limit(process, twig.limits)
        sealer = kernel.programs.sealer
        mine = msgspec.structs.replace(
            launched,
            env=sealer.seal({**sealer.open(launched.env), **twig.env}),
            instruction=twig.instruction or launched.instruction,
        )
        return Grown(process, mine)

    async def _check_point(self, origin: Origin) -> None:
        """Raise NotFound if there is no such call, before a process is made for it; only what is past can be missing."""
        disk = self._kernel.journal.disk
        if (origin.at or origin.past.is_over()) and disk is not None:
            await disk.flush()
            await disk.read(lambda c: find_point(c, origin.row.pid, origin.past))

    def _unused_name(self, parent: Process, origin: Origin, twig: Twig) -> str:
        """The name of a twig, or it with the first number with which nobody lives, has files or notes, or is remembered."""
        if twig.is_in_place:
            return twig.name
        kernel, number, free = self._kernel, 1, twig.name
        db, *_ = kernel.storage.parts
        above = origin.row.lineage[:-1] if twig.is_branch else parent.lineage
        prefix = f"{parent.confines.name}/" if parent.confines is not None else ""

        def is_taken(connection: apsw.Connection) -> bool:
            lineage = (*above, prefix + free)
            whose = (parent.owner, agent_of(lineage))
            return not (
                is_unused(connection, home_of(lineage))
                and interactions.is_unused(connection, whose)
                and not heirs.notes_of(connection, *whose)
            )

        while kernel.table.find_named(prefix + free) is not None or db.read_nowait(is_taken):
            number += 1
            free = f"{twig.name}-{number}"
        return free

    async def _launched(self, launched: Launched) -> Launched:
        """How a branch is started: the code as it is now, and no process of the operating system yet."""
        digest = launched.code_hash
        if launched.restart.policy != "never":
            digest = await anyio.to_thread.run_sync(code_hash, launched.program)
        return msgspec.structs.replace(
            launched, code_hash=digest, os_pid=0, os_start=0, n_crashes=0
        )

    def store(self) -> Store:
        """What copies write files with."""
        storage = self._kernel.storage
        _, blobs, clock = storage.parts
        return Store(blobs, storage.boot, clock.unix_s(), storage.quota_bytes)

    def _copy(self, origin: Origin, grown: Grown) -> Copy:
        kernel = self._kernel
        return Copy(
            origin.estate,
            grown.estate,
            origin.past,
            kernel.post.number(kernel.config.kernel.max_mailbox_letters),
        )

    def _abandon(self, process: Process) -> None:
        """End a branch that was not written down."""
        process.has_body = False
        self._kernel.end_process(process, Exit(126, "it could not be forked"))


def _whence(origin: Origin, twig: Twig, at: int) -> str:
    """What a branch is, for its log."""
    row, what = origin.row, "branch" if twig.is_branch else "fork"
    if origin.put_away is not None and not twig.is_branch:
        what = "process restored from a checkpoint"
    words = f'; each chat behind it ends with "{twig.instruction}"' if twig.instruction else ""
    return f"is a {what} of {row.name} ({row.pid}), live behind call {at}{words}"


def estate_of(process: Process) -> Estate:
    """What the things of a process are known by."""
    return Estate(process.pid, home_of(process.lineage), process.owner, process.agent)


def check_env(env: Mapping[str, str]) -> None:
    """Raise InvalidCall if an environment has what is the kernel's, ProgramFailed if no program can be told it."""
    if any(name.startswith("AIOS_") for name in env):
        raise InvalidCall("`env` may not set AIOS_ variables", hint="they are the kernel's")
    check_words((*env, *env.values()))


def _held_in(process: Process, origin: Origin, *, may_act: bool) -> Launched:
    """Hold a new branch in. Returns: how it is started, which lets it see the host and change nothing there, unless it may act."""
    row, launched, outer = origin.row, origin.launched, process.confines
    process.lineage, process.family = (*row.lineage[:-1], process.name), row.family
    may_act = may_act and (outer is None or outer.may_act)
    home = home_of(process.lineage)
    process.confines = Confines(process.pid, process.name, home, row.name, may_act=may_act)
    if may_act:
        return launched
    view = View(launched.view.cwd, (*launched.view.readable, *launched.view.writable))
    return msgspec.structs.replace(launched, view=view)


def _take_after(process: Process, origin: Origin, launched: Launched) -> None:
    """Give a branch what its origin has, and never more than its parent gave."""
    row = origin.row
    process.rights &= frozenset(row.rights)
    process.nice = max(row.nice, process.nice)
    process.view, process.fetch_lists = launched.view, row.fetch_lists
    is_held_in = process.confines is not None and not process.confines.may_act
    process.network = None if is_held_in else row.network
    process.bounds = (*row.bounds, *process.bounds)
    process.taint = at_fork(row.taint, process.taint, origin.at)
    process.max_block_bytes = row.max_block_bytes
    process.is_new = process.has_body = True
