"""Branches of processes: the journal up to a call, the files as they were then, and the same program run again behind both.

Nothing is computed again: the branch's journal shares its texts with that of its source, its files share their contents, and its
contexts the KV pages that are kept by what is in them.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

import anyio.to_thread
import apsw
import msgspec

from aios.abi.budget import Limits
from aios.abi.fork import Fork, Forked
from aios.abi.types import Exit, Kind
from aios.errors import Conflict, InvalidCall, NotFound
from aios.kernel.budget import Good
from aios.kernel.journal import tables
from aios.kernel.journal.disk import JournalDisk
from aios.kernel.journal.journal import Journal
from aios.kernel.leftovers import code_hash
from aios.kernel.process import Process, Run
from aios.kernel.process_table import ProcessTable
from aios.kernel.programs import ProgramKernel, Programs
from aios.kernel.residents import Launched
from aios.kernel.spending import Budgets
from aios.kernel.storage.branch import branch
from aios.kernel.storage.manager import StorageManager
from aios.kernel.storage.paths import home_of
from aios.kernel.storage.versions import Author, Transaction


class ForkKernel(ProgramKernel, Protocol):
    """What forks use of the kernel."""

    table: ProcessTable
    journal: Journal
    budgets: Budgets
    programs: Programs
    storage: StorageManager


class Forks:
    """The handler of `fork`."""

    def __init__(self, kernel: ForkKernel) -> None:
        self._kernel = kernel

    async def fork(self, run: Run, call: Fork) -> Forked:
        """Branch a program off."""
        kernel = self._kernel
        source, launched, disk = self._checked(run, call)
        at, unix_s = await _point(disk, source, launched, call.at)
        if launched.restart.policy != "never":
            digest = await anyio.to_thread.run_sync(code_hash, launched.program)
            launched = msgspec.structs.replace(launched, code_hash=digest)
        launched = msgspec.structs.replace(
            launched,
            env={**launched.env, **call.env},
            instruction=call.instruction or launched.instruction,
            os_pid=0,
            os_start=0,
        )
        one_child = await kernel.budgets.reserve(run, {Good.CHILDREN: 1})
        with ExitStack() as undo:
            undo.callback(one_child.settle, {})
            name = call.name or f"{source.name}-fork"
            process = kernel.add_process(name, Kind.PROGRAM, run.process, program=launched.program)
            with ExitStack() as ending:
                ending.callback(self._abandon, process)
                self._take_after(source, process, call)
                answer = Forked(process.pid, process.name, at)
                also = await self._branching(source, process, at, unix_s)
                await kernel.programs.branch(run, process, launched, answer=answer, also=also)
                ending.pop_all()
            kernel.storage.changes.publish()
            kernel.budgets.hold_child(process, one_child)
            undo.pop_all()
        return answer

    def _checked(self, run: Run, call: Fork) -> tuple[Process, Launched, JournalDisk]:
        """What is forked, how it was started, and where its journal is."""
        kernel, source = self._kernel, self._kernel.table.get(call.pid)
        launched = kernel.programs.launched_of(call.pid)
        disk = kernel.journal.disk
        if source is run.process:
            raise Conflict("a process cannot fork itself", hint="its parent or the owner can")
        if launched is None:
            raise Conflict(
                f"process {call.pid} ({source.name}) is no program that was started here",
                hint="only programs are forked: what runs them can be run again",
            )
        if disk is None:
            raise Conflict("this kernel keeps no journal on disk", hint="use `aios serve`")
        if not kernel.urls:
            raise Conflict(
                "this kernel has no address for programs to call", hint="serve it on a socket"
            )
        if any(name.startswith("AIOS_") for name in call.env):
            raise InvalidCall("`env` may not set AIOS_ variables", hint="they are the kernel's")
        return source, launched, disk

    def _abandon(self, process: Process) -> None:
        """End a branch that was not written down."""
        process.has_body = False
        self._kernel.end_process(process, Exit(126, "it could not be forked"))

    async def _branching(
        self, source: Process, process: Process, at: int, unix_s: float
    ) -> Callable[[apsw.Connection], None]:
        """What gives a process the journal of another up to a call, and its files as they were then."""
        kernel, homes = self._kernel, (home_of(source.lineage), home_of(process.lineage))
        _, blobs, clock = kernel.storage.parts
        author = Author(process.pid, kernel.storage.boot, homes[1], clock.unix_s())
        await kernel.storage.open()

        def write(connection: apsw.Connection) -> None:
            tables.branch(connection, source.pid, process.pid, up_to=at)
            tx = Transaction(connection, blobs, author, kernel.storage.quota_bytes)
            branch(tx, *homes, unix_s)

        return write

    def _take_after(self, source: Process, process: Process, call: Fork) -> None:
        """Give a branch what its source has, and never more than its parent gave."""
        process.rights &= source.rights
        process.nice = max(source.nice, process.nice)
        process.view, process.fetch_lists = source.view, source.fetch_lists
        process.network = source.network
        process.bounds = (*source.bounds, *process.bounds)
        process.max_block_bytes = source.max_block_bytes
        process.is_new = process.has_body = True
        self._kernel.budgets.limit(process, call.budget or self._left(source))

    def _left(self, source: Process) -> Limits:
        """What a process has left of its own limits."""
        info = self._kernel.budgets.info(source.pid)
        own = msgspec.structs.asdict(info.limits)
        left = msgspec.structs.asdict(info.left)
        return Limits(**{good: left[good] for good, limit in own.items() if limit is not None})


async def _point(
    disk: JournalDisk, source: Process, launched: Launched, at: int | None
) -> tuple[int, float]:
    """The last call that a branch has in common with its source, and when that was done.

    Raises:
        NotFound: There is no such call, or the journal no longer has what was before it.
    """
    await disk.flush()
    first = launched.first_seq
    found = await disk.read(lambda c: tables.point(c, source.pid, first=first, at=at))
    if found.at is not None:
        return found.at, found.ended_unix_s or source.started_unix_s
    if not at:
        return 0, source.started_unix_s
    kept = f"{found.lowest} to {found.highest}" if found.lowest else "none"
    raise NotFound(
        f"process {source.pid} has no call {at}; its journal has {kept}",
        hint=f"`aios journal {source.pid}` lists them; 0 is before the first",
    )
