"""Checkpoints: branches that are not started. What is copied is what any branch has; a restored process is a branch of the copy.

checkpoint -> copy under a pid of its own, which no process has -> pin pages
restore    -> branch off that copy, and start it
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

import anyio.to_thread
import apsw

from aios.abi.call import Done
from aios.abi.checkpoints import (
    Checkpoint,
    CheckpointInfo,
    CheckpointInfos,
    CheckpointList,
    CheckpointRemove,
    CheckpointRestore,
    Restored,
)
from aios.abi.types import Pid
from aios.errors import Conflict, NotFound, ResourceExhausted
from aios.kernel.access.manager import AccessManager
from aios.kernel.context.contexts import ContextTable
from aios.kernel.context.manager import ContextManager
from aios.kernel.forking import checkpoint_tables as tables
from aios.kernel.forking import merging
from aios.kernel.forking.checkpoint_tables import Kept
from aios.kernel.forking.copies import Copied, Copy, make_copies
from aios.kernel.forking.forks import ForkKernel, Forks, Grown, Origin, Twig
from aios.kernel.leftovers import code_hash
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.taint import source_of, take

MAX_CHECKPOINTS = 1_000


class CheckpointKernel(ForkKernel, Protocol):
    """What checkpoints use of the kernel."""

    access: AccessManager
    forks: Forks
    contexts: ContextManager
    context_table: ContextTable


class Checkpoints:
    """The handlers of the calls about checkpoints."""

    def __init__(self, kernel: CheckpointKernel) -> None:
        self._kernel = kernel
        self._kept: dict[Pid, Kept] = {}

    async def checkpoint(self, run: Run, call: Checkpoint) -> CheckpointInfo:
        """Put a process away."""
        kernel = self._kernel
        source = run.process if call.pid is None else kernel.table.get(call.pid)
        origin = kernel.forks.origin(source, None)
        self._check_room(call.name)
        digest = origin.launched.code_hash  # of what it runs; none if it is never started again
        if not digest:
            digest = await anyio.to_thread.run_sync(code_hash, origin.launched.program)
        await kernel.storage.open()
        kept = Kept(
            id=kernel.table.take_pid(),
            name=call.name or "",
            row=origin.row,
            launched=origin.launched,
            code_hash=digest,
            made_unix_s=kernel.clock.unix_s(),
            taint=source_of(run.process),
        )
        self._kept[kept.id] = kept  # its name is taken from here on
        try:
            kept = await self._write_down(run, source, kept, origin)
        except BaseException:
            del self._kept[kept.id]
            raise
        self._kept[kept.id] = kept
        return kept.info()

    async def restore(self, run: Run, call: CheckpointRestore) -> Restored:
        """Start a process from a checkpoint."""
        kernel, kept = self._kernel, self._get(run, call.which)
        launched = kept.launched
        digest = await anyio.to_thread.run_sync(code_hash, launched.program)
        if digest != kept.code_hash and not call.may_differ:
            raise Conflict(
                f"the code of {launched.program} has changed since the process of checkpoint {kept.label} began",
                hint="bring the code back, or set `may_differ` (`--may-differ`): it diverges where it asks otherwise",
            )
        old_name, was_branch = kept.row.name, kept.row.confines is not None
        # The folder of a branch goes with its group.
        name = call.name or (f"{old_name}-restored" if was_branch else old_name)
        is_free = kernel.table.find_named(old_name) is None
        is_in_place = is_free and call.name is None and not was_branch
        own = call.budget if call.budget is not None else kept.left
        is_paid = call.budget is None
        twig = Twig(name, own, is_paid_by_source=is_paid, is_in_place=is_in_place)

        def finish(
            connection: apsw.Connection, grown: Sequence[Grown], _: Sequence[Copied]
        ) -> Restored:
            tables.check_there(connection, kept)  # else what was copied is nothing
            acts = merging.lasting(connection, [(kept.row.pid, kept.at)])
            process = grown[0].process
            return Restored(process.pid, process.name, kept.at, is_in_place, tuple(acts))

        origin = Origin(kept.row, launched, None, kept.estate)
        return await kernel.forks.grow(run, origin, [twig], finish)

    async def list_all(self, run: Run, _: CheckpointList) -> CheckpointInfos:
        """The checkpoints that the caller may restore."""
        found = sorted(self._kept.values(), key=lambda kept: -kept.id)
        mine = [kept for kept in found if self._may_use(run.process, kept)]
        for kept in mine:
            take(run, kept.taint, f"checkpoint {kept.label}")
        return CheckpointInfos(tuple(kept.info() for kept in mine))

    def look(self, run: Run, which: str) -> None:
        """Return if there is such a checkpoint for the caller.

        Raises:
            NotFound: There is none.
        """
        self._get(run, which)

    async def remove(self, run: Run, call: CheckpointRemove) -> Done:
        """Remove a checkpoint."""
        kernel, kept = self._kernel, self._get(run, call.which)
        await kernel.storage.open()
        _, blobs, _ = kernel.storage.parts
        for pin in kept.pins:  # a pin leaves before what it is for, so that none is without
            await anyio.to_thread.run_sync(kernel.contexts.unpin, pin)

        def write(connection: apsw.Connection) -> Done:
            merging.erase_files(connection, blobs, kept.estate.home, heir=kept.heir)
            tables.remove(connection, kept)
            return run.sealed(connection, Done())

        disk = kernel.journal.disk
        assert disk is not None, "a kernel without a journal has no checkpoints"
        done = await disk.write(write)
        self._kept.pop(kept.id, None)
        return done

    async def load(self) -> None:
        """Take up the checkpoints of the kernel before."""
        disk = self._kernel.journal.disk
        assert disk is not None, "a kernel without a journal takes up nothing"
        self._kept = {kept.id: kept for kept in await disk.read(tables.load)}
        for pid in self._kept:
            self._kernel.table.number_after(pid)

    def journals(self) -> Mapping[Pid, int]:
        """The journals that checkpoints need, by their first record."""
        return {kept.id: kept.launched.first_seq for kept in self._kept.values()}

    async def _write_down(self, run: Run, source: Process, kept: Kept, origin: Origin) -> Kept:
        """Copy, then pin what the contexts of the source have of pages."""
        kernel = self._kernel
        numbers = kernel.post.number(kernel.config.kernel.max_mailbox_letters)
        copy = Copy(origin.estate, kept.estate, origin.past, numbers)
        pages = self._pages_of(source)
        pins = {kept.pin(number): chain for number, chain in enumerate(pages)}
        store = kernel.forks.store()

        def write(connection: apsw.Connection) -> Kept:
            (copied,) = make_copies(connection, store, [copy])
            made = tables.completed(connection, kept, copied, pins)
            info = made.info()
            if source is run.process and run.seal_for is not None:
                run.seal_for(connection, info, kept.id)
            run.sealed(connection, info)
            return made

        disk = kernel.journal.disk
        assert disk is not None, "checked by `origin`"
        made = await disk.write(write)
        with anyio.CancelScope(shield=True):  # it is there, whoever waits for it
            for pin, (fingerprint, keys) in pins.items():
                await anyio.to_thread.run_sync(partial(kernel.contexts.pin, fingerprint, pin, keys))
        return made

    def _pages_of(self, source: Process) -> list[tuple[str, tuple[bytes, ...]]]:
        """What is kept of the contexts of a process, with the model that it is of."""
        found = list[tuple[str, tuple[bytes, ...]]]()
        for context in self._kernel.context_table.of(source):
            fingerprints = {each.pages for each in context.homes.values() if each.pages}
            found += [(each, context.pages) for each in sorted(fingerprints) if context.pages]
        return found

    def _check_room(self, name: str | None) -> None:
        if len(self._kept) >= MAX_CHECKPOINTS:
            raise ResourceExhausted(
                f"there are {len(self._kept)} checkpoints, which is the limit",
                hint="`aios checkpoint rm`",
            )
        if name is not None and any(kept.name == name for kept in self._kept.values()):
            raise Conflict(
                f"there is a checkpoint {name!r}", hint="remove it, or choose another name"
            )

    def _get(self, run: Run, which: str) -> Kept:
        """A checkpoint that the caller may use, by its id or else its name."""
        by_id = self._kept.get(Pid(int(which))) if which.isdecimal() else None
        named = [kept for kept in self._kept.values() if kept.name == which]
        for kept in (by_id, *named):
            if kept is not None and self._may_use(run.process, kept):
                return kept
        raise NotFound(
            f"there is no checkpoint {which!r} for process {run.process.pid} ({run.process.name})",
            hint="`aios checkpoint ls` lists them; the owner may use all, others those of what they started",
        )

    def _may_use(self, process: Process, kept: Kept) -> bool:
        source = self._kernel.table.find(kept.row.pid)
        if process.pid == INIT_PID:
            return True
        return source is not None and self._kernel.access.may_reach(process, source)
