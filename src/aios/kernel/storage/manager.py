"""The storage manager: the handlers of the calls about files.

Paths are parsed and checked here, on the event loop; contents are cut and hashed in a worker thread; one write of the database does
the rest. Small files are read on the loop, for that is faster than a thread.
"""

from collections.abc import Callable, Sequence
from functools import partial

import anyio
import anyio.to_thread
import apsw

from aios.abi.call import Done
from aios.abi.gate import Advance, Change
from aios.abi.storage import (
    Append,
    Changes,
    Checked,
    Content,
    Copy,
    Delete,
    Difference,
    Draft,
    Edit,
    Edited,
    FileCheck,
    FileCollect,
    FileDiff,
    FileDraft,
    FileEdit,
    FileInfo,
    FileList,
    FileLock,
    FilePurge,
    FileRead,
    FileRollback,
    Files,
    FileShare,
    FileShares,
    FileStat,
    FileUnlock,
    FileUsage,
    FileVersion,
    FileVersions,
    FileWatch,
    Move,
    Purged,
    Put,
    Share,
    Shares,
    SpaceUsed,
    Usages,
    Versions,
)
from aios.config import StorageConfig
from aios.disk.blobs import BlobStore, Piece
from aios.disk.chunks import FINE
from aios.disk.db import Database
from aios.disk.writequeue import Queueing
from aios.errors import AccessDenied, InvalidCall
from aios.kernel.access.manager import AccessManager
from aios.kernel.clock import Clock
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.process_table import ProcessTable
from aios.kernel.storage import history, reading, tables
from aios.kernel.storage.advances import reporter
from aios.kernel.storage.changes import ChangeStream
from aios.kernel.storage.check import check_all
from aios.kernel.storage.comparing import compare
from aios.kernel.storage.content import stage_all
from aios.kernel.storage.drafts import Drafts
from aios.kernel.storage.locks import Locks
from aios.kernel.storage.mounts import Mounts
from aios.kernel.storage.paths import FOLDERS, ROOTS, WORKSPACES, Reach, file_path, is_within, parse
from aios.kernel.storage.purging import purge
from aios.kernel.storage.quotas import Quotas
from aios.kernel.storage.reach import Reaches
from aios.kernel.storage.rollbacks import Rollbacks
from aios.kernel.storage.versions import (
    MAX_CALL_CHANGES,
    AppendAt,
    Author,
    CopyTo,
    DeleteAt,
    PutAt,
    Step,
    Transaction,
    is_large,
    paths_of,
    sources_of,
)
from aios.kernel.storage.workspaces import Workspaces
from aios.kernel.taint import source_of, take
from aios.kernel.turns import Turns

INLINE_READ_BYTES = 64 << 10
"""Up to here a read is done on the event loop: 15 us against 70 us for a thread."""
SMALL_WRITE_BYTES = 1 << 10
"""Up to here a content is one chunk, and hashing it is cheaper than a thread."""


class StorageManager:
    """The files of all agents."""

    def __init__(self, db: Database, blobs: BlobStore, clock: Clock, config: StorageConfig) -> None:
        self.parts = self._db, self._blobs, self._clock = db, blobs, clock
        self._config = config
        self.quota_bytes = config.quota_bytes
        self.boot = self._boot = int(clock.unix_s() * 1e6)
        self._reaches = Reaches()
        self._table: ProcessTable | None = None
        self.drafts = Drafts(db, blobs, clock, config)
        self._locks = Locks(clock)
        self._opening, self._comparing, self._writing = anyio.Lock(), Turns(), Turns()
        self.changes = ChangeStream(db, blobs)
        self._rollbacks = Rollbacks(db, self.changes, self._boot)
        self.mounts = Mounts(db, blobs, clock, config, boot=self._boot, changes=self.changes)
        self.workspaces = Workspaces(db, blobs, clock, config, boot=self._boot)
        self.quotas = Quotas(db, self.mounts)

    def obey(self, access: AccessManager, table: ProcessTable) -> None:
        """Judge each path by its policies, too, from now on; these are the processes."""
        self._reaches.access, self._table = access, table

    # --- changing ------------------------------------------------------------------------------------------------

    async def edit(self, run: Run, call: FileEdit) -> Edited:
        """Change files, all or none."""
        await self._open()
        staged: list[Piece] = []
        try:
            steps = [await self._step(run.process, edit, staged) for edit in call.edits]
            if call.is_trial:
                return Edited(0, ())
            paths = paths_of(steps)
            await self.changes.take_below(run, sources_of(steps))  # the answer names all that goes
            many = self._db.read_nowait(partial(is_large, steps=steps))
            async with self._writing.queueing(run, is_large=many) as queueing:
                return await self._transact(
                    *(run, call.message, lambda tx: tx.run(steps)),
                    staged=staged,
                    paths=paths,
                    queueing=queueing,
                )
        finally:
            self._blobs.settle(*staged)

    async def draft(self, run: Run, call: FileDraft) -> Draft:
        """Collect a long content piece by piece."""
        return await self.drafts.add(run.process.pid, call)

    async def rollback(self, run: Run, call: FileRollback) -> Edited:
        """Bring files back to what they were."""
        history.check_rollback(call)
        await self._open()
        path = ""
        if call.version is not None or call.unix_s is not None:
            path = self._path(run.process, call.path, is_write=True)
        async with self._writing.queueing(run, is_large=call.version is None) as queueing:
            back = await self._rollbacks.way(run, call, path, list(self._table or ()))
            paths = [path] if path else None
            return await self._transact(run, call.message, back, paths=paths, queueing=queueing)

    async def purge(self, run: Run, call: FilePurge) -> Purged:
        """Forget old versions."""
        path = await self.purged_path(run.process, call.path)
        reach = self._reaches.of(run.process)
        purged = await purge(run, self._db, self._blobs, path, keep=call.keep, reach=reach)
        self.changes.note_purge()
        self.mounts.note_room(path)
        return purged

    async def _step(self, process: Process, edit: Edit, staged: list[Piece]) -> Step:
        """An edit with its paths checked and its content staged."""
        match edit:
            case Put():
                path = file_path(self._path(process, edit.path, is_write=True))
                pieces = await self._stage(process, edit)
                staged += pieces
                return PutAt(path, tuple(pieces), edit.if_version)
            case Append():
                path = file_path(self._path(process, edit.path, is_write=True))
                if len(edit.data) <= FINE.longest:
                    return AppendAt(path, edit.data)
                pieces = await anyio.to_thread.run_sync(stage_all, self._blobs, edit.data)
                staged += pieces
                return AppendAt(path, pieces=tuple(pieces))
            case Copy() | Move():
                is_move = isinstance(edit, Move)
                source = file_path(self._path(process, edit.source, is_write=is_move))
                target = file_path(self._path(process, edit.target, is_write=True))
                return CopyTo(source, target, is_move)
            case Delete():
                return DeleteAt(file_path(self._path(process, edit.path, is_write=True)))

    async def _stage(self, process: Process, edit: Put) -> list[Piece]:
        if edit.draft:
            if edit.data:
                raise InvalidCall(
                    "give `data` or a `draft`, not both", hint="add the data to the draft"
                )
            return await self.drafts.finish(process.pid, edit.draft)
        if len(edit.data) <= SMALL_WRITE_BYTES:
            return stage_all(self._blobs, edit.data)
        return await anyio.to_thread.run_sync(stage_all, self._blobs, edit.data)

    async def _transact(
        self,
        run: Run,
        message: str,
        change: Callable[[Transaction], list[FileVersion]],
        *,
        queueing: Queueing,
        staged: list[Piece] | None = None,
        paths: Sequence[str] | None = None,
    ) -> Edited:
        reach, taint = self._reaches.of(run.process), source_of(run.process)
        author = Author(
            run.process.pid, self._boot, reach.home, self._clock.unix_s(), message, taint
        )

        def write(connection: apsw.Connection) -> Edited:
            kept = [] if staged is None else staged
            tx = Transaction(connection, self._blobs, author, self._config.quota_bytes, kept)
            tx.is_closed, tx.reach, tx.n_left = self.mounts.is_closed, reach, MAX_CALL_CHANGES
            return run.sealed(connection, Edited(tx.number, tuple(change(tx)), tuple(tx.left)))

        try:
            return await self.mounts.write(paths, write, queueing=queueing)
        finally:
            self.changes.publish()

    # --- looking -------------------------------------------------------------------------------------------------

    async def read(self, run: Run, call: FileRead) -> Content:
        """Read a piece of a file."""
        await self._open()
        path = file_path(self._path(run.process, call.path))
        await self.mounts.refresh(path)
        look = partial(
            reading.find_small_piece,
            blobs=self._blobs,
            path=path,
            version=call.version,
            span=range(call.offset, call.offset + call.length),
        )
        look_here = partial(look, limit_bytes=INLINE_READ_BYTES)
        found = self.mounts.look_up(path, look_here, run.process)
        found = found or await self._db.read(partial(look, limit_bytes=None))
        assert found is not None, "a read without a limit found nothing"
        take(run, found.taint, f"file {path}")
        return found

    async def list_files(self, run: Run, call: FileList) -> Files:
        """List a folder."""
        await self._open()
        reach = self._reaches.of(run.process)
        path = parse(call.path, reach.home)
        after = parse(call.after, path) if call.after else ""
        if not reach.may_read(path) and not call.is_deep and (ways := reach.ways_from(path)):
            shares = self._reaches.shares_of(run.process)
            reading.take_shares(run, (each for each in shares if is_within(each.path, path)))
            return Files(tuple(FileInfo(way, is_folder=True) for way in ways if way > after))
        self.check_root(reach.check(path, is_write=False))
        await self.mounts.refresh(path)
        listing = tables.list_deep if call.is_deep else tables.list_folder
        found = await self._db.read(lambda c: listing(c, path, after, call.limit))
        await self.changes.take_names(run, found, reach.may_read)
        seen = tuple(each for each in found if reach.may_read(each.path))
        return Files(seen, found[-1].path if len(found) == call.limit else "")

    async def stat(self, run: Run, call: FileStat) -> Files:
        """Look at one file or folder."""
        await self._open()
        path = self._path(run.process, call.path)
        await self.mounts.refresh(path)
        look = partial(tables.get_info, path=path)
        return Files((self.mounts.look_up(path, look, run.process),))

    async def versions(self, run: Run, call: FileVersions) -> Versions:
        """The versions of a file."""
        await self._open()
        path = self._path(run.process, call.path)
        await self.mounts.refresh(path)
        found = await self._db.read(lambda c: tables.get_versions(c, path, call.limit))
        reading.take_versions(run, found)
        return Versions(tuple(found))

    async def diff(self, run: Run, call: FileDiff) -> Difference:
        """Compare two versions of a text."""
        await self._open()
        path = self._path(run.process, call.path)
        await self.mounts.refresh(path)
        pair = (call.old, call.new)
        async with self._comparing.turn(
            run
        ):  # it takes the memory of both and a thread, for some seconds
            sides = await self._db.read(lambda c: reading.get_sides(c, self._blobs, path, pair))
            text = await anyio.to_thread.run_sync(compare, *sides)
        take(run, self._db.read_nowait(partial(tables.taint_of, path=path)), f"file {path}")
        return Difference(text)

    async def watch(self, run: Run, call: FileWatch) -> Changes:
        """Wait for changes."""
        await self._open()
        path = self._path(run.process, call.path)
        since = call.since
        if since is None and run.again is not None:  # where it began before
            at = run.again.begun_unix_s
            since = await self._db.read(partial(tables.last_change_by, unix_s=at))
        elif since is None:
            since = self._db.read_nowait(tables.last_change)
        if not call.follow:
            return await self._next_changes(run, path, since, is_waiting=call.is_waiting)
        if run.emit is not None:  # at once: the reader misses nothing from here on
            run.emit(Advance("changes", since))
        while True:  # what is not read yet is not kept here either, but read again
            since = await self._show_changes(run, path, since)
            await run.room()

    async def _show_changes(self, run: Run, path: str, since: int) -> int:
        """Emit the next changes, as far as there is room for them. Returns: where to go on."""
        changes = await self._next_changes(run, path, since, is_waiting=True)
        if run.emit is not None:
            for version in changes.versions:
                run.emit(Change(version))
                if run.emit.is_full:
                    return version.change
        return changes.next

    async def _next_changes(self, run: Run, path: str, since: int, *, is_waiting: bool) -> Changes:
        found, since = await self.changes.watch(run, path, since, is_waiting=is_waiting)
        if found:
            self._path(run.process, path)  # a share may have ended meanwhile
        reach = self._reaches.of(run.process)
        seen = tuple(each for each in found if reach.may_read(each.path))
        reading.take_versions(run, seen)
        return Changes(seen, since)

    # --- sharing and locks ---------------------------------------------------------------------------------------

    async def share(self, run: Run, call: FileShare) -> Done:
        """Let others at a path."""
        await self._open()
        path = self.own_path(run.process, call.path)
        if not self.mounts.is_mount(path):
            file_path(path)
        grantee = file_path(parse(call.grantee, "/agents"))

        taint = source_of(run.process)

        def write(connection: apsw.Connection) -> Done:
            tables.end_share(connection, path, grantee)
            if call.access != "none":
                tables.add_share(connection, Share(path, grantee, call.access, taint))
            return run.sealed(connection, Done())

        done = await self._db.write(write)
        # Read anew: what was true in one write may be over before its caller is told.
        self._reaches.load(self._db.read_nowait(tables.all_shares))
        return done

    async def shares(self, run: Run, _: FileShares) -> Shares:
        """What is shared by the caller and with it."""
        await self._open()
        found = self._reaches.shares_of(run.process)
        reading.take_shares(run, found)
        return Shares(tuple(found))

    async def lock(self, run: Run, call: FileLock) -> Done:
        """Take an advisory lock."""
        await self._open()
        path = file_path(self._path(run.process, call.path))
        await self._locks.acquire(run, path, call)
        return Done()

    async def unlock(self, run: Run, call: FileUnlock) -> Done:
        """Give an advisory lock back."""
        await self._open()
        self._locks.release(run.process.pid, self._path(run.process, call.path))
        return Done()

    # --- the whole -----------------------------------------------------------------------------------------------

    async def usage(self, run: Run, _: FileUsage) -> Usages:
        """What takes how much space."""
        await self._open()
        quota = self._config.quota_bytes
        reach = self._reaches.of(run.process)

        def look(connection: apsw.Connection) -> tuple[list[SpaceUsed], int]:
            spaces = tables.spaces_used(connection, quota)
            found = [each for each in spaces if reach.may_read(each.path)]
            # The whole would tell a process what the others write.
            is_owner = run.process.pid == INIT_PID
            return found, tables.disk_bytes(connection) if is_owner else 0

        found, disk_bytes = await self._db.read(look)
        return Usages(tuple(found), disk_bytes)

    async def collect(self, run: Run, _: FileCollect) -> Purged:
        """Remove what no version needs."""
        self._check_owner(run)
        draft_bytes = self.drafts.close_idle()
        report = partial(reporter(run, self._clock), "contents")
        collected = await self._blobs.collect(self._db, report)
        return Purged(collected.n_blobs, collected.size_bytes + draft_bytes)

    async def check(self, run: Run, _: FileCheck) -> Checked:
        """Read and compare everything."""
        self._check_owner(run)
        report = reporter(run, self._clock)
        return await self._db.read(lambda c: check_all(c, self._blobs, report))

    def may_read(self, process: Process, path: str) -> bool:
        """Whether a process may see a path; the shares must have been read (`open`)."""
        return self._reaches.of(process).may_read(path)

    async def reach_of(self, process: Process) -> Reach:
        """What a process may read and write at this moment."""
        await self._open()
        return self._reaches.of(process)

    def home_of(self, process: Process) -> str:
        """The folder of a process."""
        return self._reaches.of(process).home

    def own_path(self, process: Process, text: str) -> str:
        """The canonical form of a path that is a process's own: only that may be given away.

        Raises:
            AccessDenied: It is not its own.
        """
        home = self.home_of(process)
        path = parse(text, home)
        if not is_within(path, home):
            raise AccessDenied(
                f"{home} may share only what is its own, not {path}", hint="copy it first"
            )
        return self.check_root(self._reaches.of(process).check(path, is_write=False))

    def close(self, process: Process) -> None:
        """A process has ended: its drafts and locks go."""
        self.drafts.close(process.pid)
        self._locks.close(process.pid)
        self._reaches.forget(process)

    def _check_owner(self, run: Run) -> None:
        if run.process.pid != INIT_PID:
            raise AccessDenied("only the owner may do that", hint="use `aios fs`")

    def _path(self, process: Process, text: str, *, is_write: bool = False) -> str:
        reach = self._reaches.of(process)
        path = reach.check(parse(text, reach.home), is_write=is_write)
        return self.check_root(path, is_write=is_write, is_owner=process.pid == INIT_PID)

    async def purged_path(self, process: Process, text: str) -> str:
        """The path whose versions a process may purge."""
        await self._open()
        path, is_owner = parse(text, self.home_of(process)), process.pid == INIT_PID
        is_workspace = is_within(path, f"/{WORKSPACES}")
        self._reaches.of(process).check(path, is_write=not is_workspace)
        return file_path(self.check_root(path, is_owner=is_owner), is_whole=is_owner)

    def check_root(self, path: str, *, is_write: bool = False, is_owner: bool = False) -> str:
        """Refuse what is in none of the folders that hold everything; only the owner gets so far."""
        root = path.split("/", 2)[1]
        known = ROOTS if is_write else FOLDERS
        if not root or root in known or self.mounts.find(path) is not None:
            return path
        look = partial(tables.has_versions, path=f"/{root}")  # of what was mounted before
        if not (is_owner and not is_write and self._db.read_nowait(look)):
            raise InvalidCall(
                f"no folder /{root}",
                hint="the paths of the owner begin with /agents, /groups, /shared or a mount",
            )
        return path

    async def _open(self) -> None:
        if not self._reaches.is_loaded:
            await self.open()
        self.changes.used.set()

    async def open(self) -> None:
        """Read what is held in memory; once is enough."""
        await self._db.open()
        async with self._opening:
            if not self._reaches.is_loaded:
                await self.mounts.load()
                self._reaches.load(self._db.read_nowait(tables.all_shares))
