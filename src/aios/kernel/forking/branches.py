"""Branches that are tried side by side: begun together, held in, and ended together when one is committed.

    branch -> each runs, held in -> commit: hold all, then one transaction (merge, erase, outcome), then end them
                                  | discard: the same without the merge

The transaction decides. Before it nothing has changed and all is let go again; behind it the next kernel ends what a crash
left alive. After "Fork, Explore, Commit" (arXiv 2602.08199).
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Protocol

import anyio
import apsw
import msgspec

from aios.abi.branches import (
    Branch,
    BranchCommit,
    BranchDiscard,
    Branched,
    BranchEnd,
    BranchGroups,
    BranchJoin,
    BranchList,
)
from aios.abi.fork import Forked
from aios.abi.types import Exit, Pid, Right
from aios.errors import (
    AccessDenied,
    Conflict,
    DiskFailed,
    InvalidCall,
    NotFound,
    ResourceExhausted,
)
from aios.kernel.access.manager import AccessManager
from aios.kernel.forking import confines, merging, tables
from aios.kernel.forking.copies import Copied
from aios.kernel.forking.endings import Ending, ended, homes_since, losers_of
from aios.kernel.forking.forks import ForkKernel, Forks, Grown, Twig, estate_of
from aios.kernel.forking.tables import Group, Limb
from aios.kernel.journal.records import Effect
from aios.kernel.memory import interactions
from aios.kernel.memory.manager import MemoryManager
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.signals import KILLED_STATUS, is_leaving
from aios.kernel.storage.versions import Author, Transaction
from aios.kernel.taint import source_of, take
from aios.kernel.waitqueue import WaitQueue


class BranchKernel(ForkKernel, Protocol):
    """What branches use of the kernel."""

    access: AccessManager
    forks: Forks
    memory: MemoryManager

    def end_self(self, run: Run, end: Exit) -> None:
        """The process that makes this call ends."""
        ...


class Branches:
    """The groups of branches, and the handlers of the calls about them."""

    def __init__(self, kernel: BranchKernel) -> None:
        self._kernel = kernel
        self._groups: dict[int, Group] = {}
        self._by_pid: dict[Pid, int] = {}
        self._last_id = 0
        self._turn = anyio.Lock()
        """One commit or discard at a time."""
        self._changed = WaitQueue()

    def check(self, process: Process, call: object, effect: Effect) -> None:
        """Return if a process may make a call, as far as it is held in.

        Raises:
            AccessDenied: It is a branch, or within one, and the call could be seen outside or stay.
        """
        held_in, table = process.confines, self._kernel.table
        if held_in is None:
            return

        def may_write_to(pid: Pid) -> bool:
            target, branch = table.get(pid), table.find(held_in.pid) or process
            return table.is_within(target, branch) or table.is_within(branch, target)

        why = confines.objection(call, effect, may_act=held_in.may_act, may_write_to=may_write_to)
        if why:
            raise AccessDenied(
                f"process {process.pid} ({process.name}) is in branch {held_in.name}, which {why} until it is committed",
                hint="leave that to who commits it, or start the branches with `may_act`",
            )

    # --- calls ---------------------------------------------------------------------------------------------------

    async def branch(self, run: Run, call: Branch) -> Branched:
        """Start branches from one point."""
        kernel = self._kernel
        source = run.process if call.pid is None else kernel.table.get(call.pid)
        if call.instructions and len(call.instructions) != call.n:
            raise InvalidCall(
                f"{len(call.instructions)} instructions for {call.n} branches", hint="give one each"
            )
        if source is run.process and call.at is not None:
            raise InvalidCall("a process branches itself where it is", hint="leave `at` out")
        limits = call.budget if call.budget is not None else kernel.forks.left(source, call.n)
        twigs = [
            Twig(
                f"{source.name}-branch-{number}",
                limits,
                is_paid_by_source=True,
                instruction=call.instructions[number - 1] if call.instructions else "",
                is_branch=True,
                may_act=call.may_act,
            )
            for number in range(1, call.n + 1)
        ]
        self._last_id += 1
        group_id, estate = self._last_id, estate_of(source)

        def finish(
            connection: apsw.Connection, grown: Sequence[Grown], copied: Sequence[Copied]
        ) -> Branched:
            limbs = tuple(map(partial(_limb, connection), grown, copied))
            home, unix_s = estate.home, kernel.clock.unix_s()
            group = Group(group_id, source.pid, estate.owner, source.name, home, unix_s, limbs)
            told = self._put(connection, group)
            if source is run.process and run.seal_for is not None:
                for index, limb in enumerate(limbs, 1):
                    mine = msgspec.structs.replace(told, index=index)
                    run.seal_for(connection, mine, limb.fork.pid)
            return told

        try:
            return await kernel.forks.grow(run, kernel.forks.origin(source, call.at), twigs, finish)
        except BaseException:
            self._forget(group_id)
            raise

    async def commit(self, run: Run, call: BranchCommit) -> BranchEnd:
        """Give the source what a branch changed, and end its group."""
        pid = run.process.pid if call.pid is None else call.pid
        group_id = self._group_of(pid)
        self._check_reach(run, self._groups[group_id], pid)
        async with self._in_turn(run):
            group = self._open_group(group_id)
            winner = next(limb for limb in group.limbs if limb.fork.pid == pid)
            return await self._end(run, Ending(group, winner, call.result))

    def look(self, run: Run, call: BranchCommit | BranchDiscard) -> None:
        """Return if there is something to commit or to discard.

        Raises:
            AccessDenied: It is not the caller's.
            Conflict: It has ended.
            NotFound: There is no such branch or group.
        """
        if isinstance(call, BranchDiscard):
            self._check_reach(run, self._get(call.group))
            self._open_group(call.group)
            return
        pid = run.process.pid if call.pid is None else call.pid
        self._check_reach(run, self._open_group(self._group_of(pid)), pid)

    async def discard(self, run: Run, call: BranchDiscard) -> BranchEnd:
        """End a group and remove what its branches made."""
        self._check_reach(run, self._get(call.group))
        async with self._in_turn(run):
            group = self._open_group(call.group)
            if run.process.pid in group.pids:
                raise Conflict("a branch cannot discard itself", hint="it can exit")
            return await self._end(run, Ending(group, None))

    async def join(self, run: Run, call: BranchJoin) -> BranchEnd:
        """Wait until a group has ended."""
        self._check_reach(run, self._get(call.group))
        table = self._kernel.table
        while True:
            group = self._get(call.group)
            if group.end is not None:
                take(run, group.end.taint, f"branch group {group.id}")
                return group.end
            found = (table.find(pid) for pid in group.pids)
            alive = [process for process in found if process is not None and process.is_alive]
            if not alive:
                return BranchEnd(group.id, None, "", 0, (), ())
            with run.parked():
                await self._wait_for_end(alive)
            await run.runnable()

    async def list_all(self, run: Run, _: BranchList) -> BranchGroups:
        """The groups that the caller reaches."""
        groups = sorted(self._groups.values(), key=lambda group: -group.id)
        mine = (group for group in groups if self._is_reached(run.process, group))
        return BranchGroups(tuple(group.info() for group in mine))

    # --- the kernel before ---------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Take up the groups of the kernel before."""
        disk = self._kernel.journal.disk
        assert disk is not None, "a kernel without a journal takes up nothing"
        groups, self._last_id = await disk.read(tables.load)
        if old := tables.old_of(groups):
            with self._left_to_the_next():
                await disk.write(lambda connection: tables.forget(connection, old))
        for group in groups:
            if group.id not in old:
                self._know(group)

    def find_end(self, process: Process) -> Exit | None:
        """How a process of the kernel before ends with the group of its branch, if that has ended."""
        held_in = process.confines
        group = self._groups.get(self._by_pid.get(held_in.pid, 0)) if held_in is not None else None
        if held_in is None or group is None or group.end is None:
            return None
        if group.end.winner == held_in.pid:
            return Exit(0, "committed", group.end.result)
        return Exit(KILLED_STATUS, "discarded with its branch")

    async def sweep(self) -> None:
        """Remove what branches wrote between the end of their group and their own, which the kernel before did not come to."""
        for group in list(self._groups.values()):
            if group.end is not None and not group.is_swept:
                losers = self._pids_of(losers_of(group))
                self._kernel.post.withdraw(losers)
                with self._left_to_the_next():
                    spared = homes_since(group, self._groups.values(), self._kernel.table)
                    await self._erase(Ending(group, None, is_erased=group.is_erased, spared=spared))
                    await self._sweep([group], losers)

    # --- ends ----------------------------------------------------------------------------------------------------

    async def _end(self, run: Run, ending: Ending) -> BranchEnd:
        """Hold all, decide in one transaction, and end them."""
        kernel = self._kernel
        await kernel.storage.open()
        held = list[Process]()
        try:
            await self._hold(run, ending, held)
            end = await self._decide(run, ending)
        except BaseException:
            for process in held:
                kernel.signals.thaw(process)
            raise
        with anyio.CancelScope(shield=True):  # it is decided: it is carried out, whoever asked
            kernel.storage.changes.note_purge()
            with self._left_to_the_next():
                await kernel.memory.reindex(ending.notes)
                await self._erase(ending)
            kernel.storage.changes.note_purge()  # also of what went in parts
            await self._bury(run, ending, end)
        self._changed.wake_all()
        return end

    async def _hold(self, run: Run, ending: Ending, held: list[Process]) -> None:
        """Return when no branch acts any more, but for the call that ends them, nor what they were about to start. Adds them to `held`."""
        quiet = set[Pid]()
        while True:
            ending.nested = self._nested(ending.group)  # those that are nested in it by now
            moving = [each for each in self._alive(ending.groups) if each.pid not in quiet]
            if not moving:
                return
            for process in moving:
                if process.exiting is None or is_leaving(process):
                    held.append(process)
                    self._kernel.signals.freeze(process)
            for process in moving:
                await process.wait_quiet(run)
                quiet.add(process.pid)

    def _alive(self, groups: Sequence[Group]) -> list[Process]:
        """The processes that end with these groups."""
        pids = self._pids_of(pid for group in groups for pid in group.pids)
        found = (self._kernel.table.find(pid) for pid in pids)
        return [process for process in found if process is not None and process.is_alive]

    async def _decide(self, run: Run, ending: Ending) -> BranchEnd:
        """The one transaction."""
        kernel, group, winner = self._kernel, ending.group, ending.winner
        _, blobs, clock = kernel.storage.parts
        author = Author(run.process.pid, kernel.storage.boot, group.home, clock.unix_s())
        starts = {limb.fork.pid: limb.fork.at for each in ending.groups for limb in each.limbs}
        losers = self._pids_of(limb.fork.pid for _, limb in ending.losers)
        decided = list[Group]()
        winning = kernel.table.find(winner.fork.pid) if winner is not None else None
        taint = source_of(winning or run.process) or source_of(run.process)

        def write(connection: apsw.Connection) -> BranchEnd:
            transaction = Transaction(connection, blobs, author, kernel.storage.quota_bytes)
            n_changed = merging.merge(transaction, group, winner) if winner is not None else 0
            acts = merging.lasting(connection, [(pid, starts.get(pid, 0)) for pid in losers])
            pid = winner.fork.pid if winner is not None else None
            end = BranchEnd(
                *(group.id, pid, ending.result, n_changed, tuple(losers), tuple(acts), taint)
            )
            merging.hand_and_erase(connection, blobs, ending)
            merging.erase_traces(connection, losers)
            decided[:] = [ended(each, end, is_erased=ending.is_erased) for each in ending.groups]
            for each in decided:
                tables.save(connection, each)
            return run.sealed(connection, end)

        disk = kernel.journal.disk
        assert disk is not None, "a kernel without a journal has no branches"
        end = await disk.write(write)
        for each in decided:
            self._know(each)
        return end

    async def _erase(self, ending: Ending) -> None:
        """Remove what the decision left of files: in parts, and before anybody else can have a name of a branch."""
        _, blobs, _ = self._kernel.storage.parts
        disk = self._kernel.journal.disk
        assert disk is not None, "a kernel without a journal has no branches"
        while not ending.is_erased:
            part = partial(merging.erase_folders, blobs=blobs, folders=ending.folders)
            ending.is_erased = await disk.write(part)

    async def _bury(self, run: Run, ending: Ending, end: BranchEnd) -> None:
        """End the processes, and remove what they wrote since."""
        kernel, winner = self._kernel, ending.winner
        why = "discarded" if winner is None else f"discarded: {winner.fork.name} was committed"
        kernel.post.withdraw(end.discarded)
        for pid in end.discarded:  # also those that outlive who started them
            await self._end_tree(run, pid, Exit(KILLED_STATUS, why))
        if winner is not None:
            last = Exit(0, "committed", ending.result)
            is_own = winner.fork.pid == run.process.pid
            within = {*self._pids_of([winner.fork.pid]), *(run.process.children if is_own else ())}
            for pid in sorted(within - {run.process.pid}):
                await self._end_tree(run, pid, last)
            if is_own:
                kernel.end_self(run, last)
        if ending.is_erased:
            await self._sweep([self._groups[each.id] for each in ending.groups], end.discarded)

    async def _end_tree(self, run: Run, pid: Pid, end: Exit) -> None:
        """End a process and its descendants, unless they have."""
        kernel = self._kernel
        target = kernel.table.find(pid)
        if target is None or not target.is_alive:
            return
        tree = kernel.table.tree(target)
        for process in tree:
            if process.on_kill is not None:  # first, as `Signals.kill` has it
                process.on_kill()
            kernel.signals.begin_end(process, end, but=run)
        for process in reversed(tree):
            kernel.signals.settle(process)
            await process.wait_ended()

    async def _sweep(self, groups: Sequence[Group], pids: Iterable[Pid]) -> None:
        """Remove journals and mail that came behind the decision, and remember that this was done."""
        disk = self._kernel.journal.disk
        assert disk is not None, "a kernel without a journal has no branches"
        swept = [msgspec.structs.replace(group, is_swept=True) for group in groups]
        old = tables.old_of([*self._groups.values(), *swept])

        def write(connection: apsw.Connection) -> None:
            merging.erase_traces(connection, pids)
            for group in swept:
                tables.save(connection, group)
            tables.forget(connection, old)

        with self._left_to_the_next():
            await disk.write(write)
            for group in swept:
                self._know(group)
            for group_id in old:
                self._forget(group_id)

    @contextmanager
    def _left_to_the_next(self) -> Iterator[None]:
        """What the disk does not take of what is decided is no fault of who decided: another kernel does it, as it begins."""
        try:
            yield
        except (DiskFailed, ResourceExhausted) as error:
            told = f"what is left of branches that ended is removed by the next kernel: {error.message}"
            self._kernel.note(self._kernel.table.get(INIT_PID), told)

    # --- what is known -------------------------------------------------------------------------------------------

    def _put(self, connection: apsw.Connection, group: Group) -> Branched:
        """Inside the write that makes branches: write down that they belong together. Returns: what the caller is told."""
        tables.save(connection, group)
        self._know(group)
        return Branched(group.id, 0, tuple(limb.fork for limb in group.limbs))

    def _know(self, group: Group) -> None:
        self._groups.pop(group.id, None)  # what has changed last comes last
        self._groups[group.id] = group
        for pid in group.pids:
            self._by_pid[pid] = group.id

    def _forget(self, group_id: int) -> None:
        group = self._groups.pop(group_id, None)
        for pid in group.pids if group is not None else ():
            del self._by_pid[pid]

    def _group_of(self, pid: Pid) -> int:
        group_id = self._by_pid.get(pid)
        if group_id is None:
            raise NotFound(f"process {pid} is no branch", hint="`aios branch ls` lists them")
        return group_id

    def _get(self, group_id: int) -> Group:
        group = self._groups.get(group_id)
        if group is None:
            raise NotFound(f"no group of branches {group_id}", hint="`aios branch ls` lists them")
        return group

    def _open_group(self, group_id: int) -> Group:
        group = self._get(group_id)
        if group.end is not None:
            how = "was discarded"
            if group.end.winner is not None:
                how = f"has ended: branch {group.end.winner} was committed first"
            raise Conflict(f"group {group_id} {how}", hint="`aios branch ls --all` shows how")
        return group

    def _nested(self, group: Group) -> list[Group]:
        """The open groups whose sources end with this group, and so on."""
        found, pids = list[Group](), set(self._pids_of(group.pids))
        for each in sorted(self._groups.values(), key=lambda one: one.id):
            if each.id != group.id and each.end is None and each.source in pids:
                found.append(each)
                pids.update(self._pids_of(each.pids))
        return found

    def _pids_of(self, branches: Iterable[Pid]) -> list[Pid]:
        """Branches and all that was started within them, as far as it is remembered."""
        wanted = set(branches)
        within = (
            process.pid
            for process in self._kernel.table
            if process.confines is not None and process.confines.pid in wanted
        )
        return sorted({*wanted, *within})

    def _is_reached(self, process: Process, group: Group) -> bool:
        source = self._kernel.table.find(group.source)
        if source is None:
            return process.pid == INIT_PID
        return self._kernel.access.may_reach(process, source)

    def _check_reach(self, run: Run, group: Group, branch: Pid | None = None) -> None:
        """Raise AccessDenied unless the caller is the branch, or reaches what the group was branched off or all branches."""
        process, table = run.process, self._kernel.table
        if process.pid == branch or self._is_reached(process, group):
            return
        found = [table.find(pid) for pid in group.pids]
        if all(each is not None and self._kernel.access.may_reach(process, each) for each in found):
            return
        raise AccessDenied(
            f"process {process.pid} ({process.name}) may not use `{Right.SPAWN.value}` on group {group.id}",
            hint="its branches and who started them may",
        )

    @asynccontextmanager
    async def _in_turn(self, run: Run) -> AsyncIterator[None]:
        """Be the only one who ends groups; waits parked, for who has the turn may wait for this process to be quiet."""
        while True:
            with run.parked():
                await self._turn.acquire()
            if not run.process.is_stopped:
                break
            self._turn.release()  # it was stopped meanwhile: others end groups until it goes on
            await run.runnable()
        try:
            yield
        finally:
            self._turn.release()

    async def _wait_for_end(self, processes: Sequence[Process]) -> None:
        """Return when a group or one of these processes has ended."""

        async def watch(process: Process) -> None:
            await process.wait_ended()
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for process in processes:
                tasks.start_soon(watch, process)
            await self._changed.wait()
            tasks.cancel_scope.cancel()


def _limb(connection: apsw.Connection, grown: Grown, copied: Copied) -> Limb:
    """A branch as it begins."""
    fork = Forked(grown.process.pid, grown.process.name, copied.at)
    last = interactions.last_id(connection, grown.estate.whose)
    return Limb(fork, grown.estate.home, copied.last_change, last)
