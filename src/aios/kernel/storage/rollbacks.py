"""What a rollback does, found in a reader's thread before the writer is asked for: there may be any number of versions to look through."""

from collections.abc import Callable, Collection
from functools import partial

from aios.abi.storage import FileRollback, FileVersion
from aios.disk.db import Database
from aios.kernel.process import Process, Run
from aios.kernel.storage import history
from aios.kernel.storage.changes import ChangeStream
from aios.kernel.storage.family import find_family
from aios.kernel.storage.versions import Transaction

Way = Callable[[Transaction], list[FileVersion]]
"""Goes back, inside a write."""


class Rollbacks:
    """Finds the way back; `boot` is that of the kernel."""

    def __init__(self, db: Database, changes: ChangeStream, boot: int) -> None:
        self._db = db
        self._changes = changes
        self._boot = boot

    async def way(self, run: Run, call: FileRollback, path: str, table: Collection[Process]) -> Way:
        """The way of a call. The caller is told of what it changes, and takes the marks of that.

        Args:
            run: Who asks.
            call: What for.
            path: The path of the call, checked.
            table: The processes that are remembered.

        Raises:
            InvalidCall: As `find_family`.
        """
        if call.version is not None:
            return partial(history.restore_version, path=path, version=call.version)
        if call.unix_s is not None:
            await self._changes.take_first(run, partial(history.tainted_below, path=path))
            look = partial(history.find_past, path=path, unix_s=call.unix_s)
            past = await self._db.read(look)
            return partial(history.rollback_to, path=path, unix_s=call.unix_s, past=past)
        pids = await self._pids_of(call, table)
        look_up = partial(history.changes_of, tx=call.transaction, boot=self._boot, pids=pids)
        found = await self._db.read(look_up)
        await self._changes.take_first(run, partial(history.tainted_acts, changes=found))
        return partial(history.undo_acts, changes=found)

    async def _pids_of(self, call: FileRollback, table: Collection[Process]) -> Collection[int]:
        """Whose acts are rolled back."""
        if call.pid is None or not call.with_children:
            return () if call.pid is None else (call.pid,)
        pid, boots = call.pid, (self._boot, self._boot)
        return await self._db.read(lambda c: find_family(c, pid, boots=boots, table=table))
