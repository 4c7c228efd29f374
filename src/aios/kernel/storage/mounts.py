"""Mounts: real folders under a name, kept the same as their versions in both directions.

    a call writes     look at the real files it touches -> commit the versions -> write the real files -> the call returns
    somebody else     a notice of the operating system -> read the file -> a version by `outside`

The database is the journal of the real files: a version is committed together with the note that its file is still to be written, so the kernel after
one that was killed carries it out before anybody looks. A real file that is no longer the one that was known is never written over: what another program
wrote becomes a version first, or the call fails and is undone.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
import apsw

from aios.abi.storage import Edited
from aios.abi.types import Pid
from aios.config import StorageConfig
from aios.disk.blobs import BlobStore
from aios.disk.db import Database
from aios.disk.folder import Item, Kind, Stamp
from aios.disk.writequeue import Queueing
from aios.errors import AccessDenied, AiosError, Conflict, DiskFailed, NotFound, ResourceExhausted
from aios.kernel.clock import Clock
from aios.kernel.process import INIT_PID, Process
from aios.kernel.storage import history, mount_tables
from aios.kernel.storage.authors import KERNEL, OUTSIDE, OWNER_HOME
from aios.kernel.storage.changes import ChangeStream
from aios.kernel.storage.mount_folders import check_writable, open_real
from aios.kernel.storage.mount_tables import Mount
from aios.kernel.storage.notices import Notices
from aios.kernel.storage.outside import (
    Differences,
    Found,
    Seen,
    examine_all,
    find_differences,
    record,
    record_names,
    still_gone,
)
from aios.kernel.storage.tables import files_below
from aios.kernel.storage.versions import Author, Transaction
from aios.kernel.storage.working_copy import carry_out, carry_out_if_possible

T = TypeVar("T")

BATCH_FILES = 200
BATCH_BYTES = 32 << 20
"""Of files that are recorded together; what is staged of small ones is in memory until then."""
READ_FILES = 20
"""Of files that are read in one thread."""
ROOT = Item(b"", Kind.FOLDER)


class Mounts:
    """The mounts of one kernel. One at a time writes to them or records what was changed outside: `_turn`."""

    def __init__(
        self,
        db: Database,
        blobs: BlobStore,
        clock: Clock,
        config: StorageConfig,
        *,
        boot: int,
        changes: ChangeStream,
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._clock = clock
        self._config = config
        self._boot = boot
        self._changes = changes
        self._ignored = frozenset(name.casefold() for name in config.mount_ignore)
        self._mounts: dict[str, Mount] = {}
        self._turn = anyio.Lock()
        self._recording = WeakValueDictionary[str, anyio.Lock]()  # by folder; taken before the turn
        self._wanted: list[Mount] = []
        self._want = anyio.Event()
        self.notices = Notices(self.want_settled)

    # --- which there are -----------------------------------------------------------------------------------------

    def all(self) -> list[Mount]:
        """Every mount, in the order of their paths."""
        return [self._mounts[path] for path in sorted(self._mounts)]

    def find(self, path: str) -> Mount | None:
        """The mount that a path is in."""
        return self._mounts.get(f"/{path.split('/', 2)[1]}") if self._mounts else None

    def is_closed(self, path: str) -> bool:
        """Whether something is there that is neither shown nor written: a link, or a file with several names."""
        mount = self.find(path)
        return mount is not None and mount.is_closed(path)

    def is_mount(self, path: str) -> bool:
        """Whether a path is that of a mount, and not only in one."""
        return path in self._mounts

    def add(self, mount: Mount) -> None:
        """It is there from now on; `settle` looks at what is in it."""
        self._mounts[mount.path] = mount

    def want_settled(self, mount: Mount) -> None:
        """Have a mount compared as a whole with its folder, in the background."""
        self._wanted.append(mount)
        self._want.set()

    async def next_wanted(self) -> Mount:
        """Wait for a mount that is to be compared as a whole."""
        while not self._wanted:
            self._want = anyio.Event()
            await self._want.wait()
        return self._wanted.pop(0)

    def note_room(self, path: str) -> None:
        """The quota of a mount has grown, or versions were purged: what did not fit may fit now."""
        mount = self.find(path)
        if mount is not None and mount.n_skipped:
            self.want_settled(mount)

    def look_up(self, path: str, look: Callable[[apsw.Connection], T], process: Process) -> T:
        """Look at a path at once; where nothing is shown the owner is told why, if something is in the folder."""
        try:
            return self._db.read_nowait(look)
        except NotFound:
            mount = self.find(path) if process.pid == INIT_PID else None
            why = mount.why_skipped(path) if mount is not None else ""
            if why:
                hint = "`file_mounts` lists what is not shown, and why"
                raise NotFound(f"{path} is not shown: {why}", hint=hint) from None
            raise

    async def load(self) -> None:
        """The mounts that the database remembers, their folders opened."""
        for mount in await self._db.read(mount_tables.all_mounts):
            await anyio.to_thread.run_sync(open_real, mount)
            self.add(mount)

    def close(self) -> None:
        """Let go of all folders."""
        for mount in self._mounts.values():
            if mount.real is not None:
                mount.real.close()
        self.notices.close()

    # --- writing through -----------------------------------------------------------------------------------------

    async def write(
        self,
        paths: Sequence[str] | None,
        write: Callable[[apsw.Connection], Edited],
        *,
        queueing: Queueing,
    ) -> Edited:
        """Run a write of files; what it changes in mounts is in the real files when this returns, or all of it is undone.

        Args:
            paths: What it will change; None if that is known only inside.
            write: Run in the writer's thread.
            queueing: As for `Database.write`; a write of real files is not held back.

        Raises:
            Conflict: A real file was changed by another program just now.
            AccessDenied: The mount is read-only, or the path is one that is never written to.
            ResourceExhausted, DiskFailed: The real folder's disk is full, fails, or is not there.
        """
        if not self._mounts or (paths is not None and not any(map(self.find, paths))):
            return await self._db.write(write, queueing=queueing)
        async with self._turn:
            touched = self.all() if paths is None else [self.find(path) for path in paths]
            for mount in {each.path: each for each in touched if each is not None}.values():
                await self._check_place(mount)
            await self._take_notices()
            await self._look(*((path, False) for path in paths or ()))
            with anyio.CancelScope(shield=True):  # versions and real files go together
                edited = await self._db.write(lambda c: self._noted(c, write(c)))
                await self._carry_out(edited)
        return edited

    def _noted(self, connection: apsw.Connection, edited: Edited) -> Edited:
        """Inside the write: check what may be written, and note it as still to be carried out."""
        paths = [each.path for each in edited.versions]
        touched = [(mount, path) for path in paths if (mount := self.find(path)) is not None]
        for mount, path in touched:
            check_writable(mount, path, self._ignored)
        mount_tables.set_pending(connection, (path for _, path in touched), is_pending=True)
        return edited

    async def _carry_out(self, edited: Edited) -> None:
        paths = sorted({each.path for each in edited.versions if self.find(each.path)})
        done: dict[str, Stamp | None] = {}
        try:
            await self._write_real(paths, done)
        except AiosError as error:
            await self._undo(edited, done, error)
            raise
        await self._db.write(lambda c: mount_tables.set_done(c, paths, done))

    async def _write_real(self, paths: Iterable[str], done: dict[str, Stamp | None]) -> None:
        work = [(mount, path) for path in paths if (mount := self.find(path)) is not None]
        await self._db.read(partial(carry_out, blobs=self._blobs, work=work, done=done))

    async def _undo(self, edited: Edited, done: dict[str, Stamp | None], why: AiosError) -> None:
        """The real folder refused one of the files: the whole call is undone, by versions that say so."""
        paths = sorted({each.path for each in edited.versions if self.find(each.path)})
        first = edited.versions[0]
        author = Author(
            first.pid,
            self._boot,
            OWNER_HOME if first.pid == INIT_PID else first.author,
            self._clock.unix_s(),
            f"undone: {why.message}"[:1000],
        )

        def undo(connection: apsw.Connection) -> None:
            for path, stamp in done.items():
                mount_tables.set_stamp(connection, path, stamp)
            tx = Transaction(connection, self._blobs, author, self._config.quota_bytes)
            history.undo(tx, history.changes_of(connection, tx=edited.transaction))

        await self._db.write(undo)
        restored: dict[str, Stamp | None] = {}
        for path in reversed(done):
            with suppress(AiosError):  # what is in the folder then becomes a version below
                await self._write_real([path], restored)
        await self._db.write(lambda c: mount_tables.set_done(c, paths, restored))
        for path in (path for path in paths if path not in restored):
            await self._look((path, True))

    # --- looking at what others did ------------------------------------------------------------------------------

    async def refresh(self, path: str) -> None:
        """What other programs have done to a path until now is in its versions when this returns."""
        mount = self.find(path)
        if mount is None:
            return
        seen = Seen()
        async with self._turn:
            await self._take_notices(within=path)
            if not self._is_ignored(path):
                await self._look_at(mount, path, seen, is_forced=False, is_deep=False)
        await self._record_by_turns(mount, seen)
        if seen.is_behind:
            await self._catch_up(mount, path)

    async def take_notices(self) -> None:
        """Record everything that was noticed, some at a time, so that calls which want a few of the paths come between."""
        for _ in range(0, max(1, self.notices.count()), BATCH_FILES):
            async with self._turn:
                await self._take_notices(limit=BATCH_FILES)

    async def _take_notices(self, *, within: str = "/", limit: int | None = None) -> None:
        await self._finish_left()
        with self.notices.taken(within, limit=limit) as noticed:
            await self._look(*noticed)

    async def find_again(self, mount: Mount) -> bool:
        """Look whether the folder of a mount is where it was; one that is not is let go of. Returns: whether another one, or the one that was missing, is there now."""
        async with self._turn:
            await self._check_place(mount)
            if mount.is_leaving or mount.real is not None:
                return False
            await anyio.to_thread.run_sync(open_real, mount)
            if mount.real is None:
                return False
            mount.note, mount.is_watched, mount.inode = "", True, mount.real.inode
            await self._db.write(lambda c: mount_tables.set_inode(c, mount))
            return True

    async def _check_place(self, mount: Mount) -> None:
        """Let go of a folder that was removed, moved away or replaced: what is known of it stays. The caller has the turn."""
        # Linux tells of a removal only when nobody has the folder open, and we do.
        real = mount.real
        if real is not None and not await anyio.to_thread.run_sync(real.is_at, mount.folder):
            real.close()
            mount.real, mount.note = None, f"{mount.folder} was removed or moved away"
            self.notices.unwatch(mount)
            self.want_settled(mount)  # there may be another in its place

    async def settle(self, mount: Mount) -> None:
        """Carry out what a killed kernel left, then compare the whole folder with what is listed of it."""
        if mount.real is None:
            mount.settled.set()
            return
        async with self._turn:
            await self._finish_left()
        pending = [mount.path]
        while pending and not mount.is_leaving:
            pending += await self._catch_up(mount, pending.pop())
        mount.settled.set()

    async def _catch_up(self, mount: Mount, path: str) -> list[str]:
        """Compare a folder and record what differs by turns; who waits to do the same finds it recorded. Returns: the folders in it."""
        async with self._recording.setdefault(path, anyio.Lock()):
            async with self._turn:
                found = await self._compare(mount, path)
            await self._record_by_turns(mount, found)
        return found.folders

    async def _record_by_turns(self, mount: Mount, found: Seen) -> None:
        """Record what was found some at a time, so that calls come between; they may have written again what was gone."""
        gone, changed = found.gone[::-1], found.changed[::-1]
        while gone or changed:
            async with self._turn:
                if mount.real is None or mount.is_leaving:
                    return
                if gone:
                    some, gone[-BATCH_FILES:] = gone[-BATCH_FILES:], []
                    look = partial(still_gone, mount=mount, paths=some, ignored=self._ignored)
                    await self._record_all(mount, Seen(await self._db.read(look)))
                else:
                    await self._record_some(mount, changed)

    async def _finish_left(self) -> None:
        """Carry out what a killed kernel left, before anybody looks: a file that is still to be written would be taken for deleted. The caller has the turn."""
        work: list[tuple[Mount, str]] = []
        for mount in self.all():
            paths = self._db.read_nowait(partial(mount_tables.all_pending, mount=mount))
            if paths:
                await self._check_place(mount)
            if mount.real is not None:
                work += ((mount, path) for path in paths)
        if work:  # what cannot be written is known no longer: what is there becomes a version
            await carry_out_if_possible(self._db, self._blobs, work)

    async def _look(self, *noticed: tuple[str, bool]) -> None:
        """Look at paths, and record together what is gone and what changed; of each is said whether it is read in any case. The caller has the turn."""
        seen: dict[str, Seen] = {}
        for path, is_forced in noticed:
            mount = self.find(path)
            if mount is not None and not self._is_ignored(path):
                here = seen.setdefault(mount.path, Seen())
                await self._look_at(mount, path, here, is_forced=is_forced, is_deep=True)
        for name, here in seen.items():
            await self._record_all(self._mounts[name], here)

    async def _look_at(
        self, mount: Mount, path: str, seen: Seen, *, is_forced: bool, is_deep: bool
    ) -> None:
        """Look at one path, and at all below it if it is a folder that was noticed; what else is to be recorded goes to `seen`."""
        if mount.real is None or mount.is_leaving:
            return
        parts = await self._db.read(lambda c: mount_tables.real_parts(c, mount, path))
        if not parts:
            await self._check_place(mount)
            if mount.real is None:
                return
        try:
            item = await anyio.to_thread.run_sync(mount.real.find, parts) if parts else ROOT
        except AccessDenied as error:
            seen.gone += await self._lose(mount, path, error.message)
            return
        except DiskFailed as error:
            mount.skip(path, error.message)  # what is there is not known
            return
        if item is None or item.kind is Kind.OTHER:
            seen.gone += await self._lose(mount, path, item.why if item else "")
        elif item.kind is Kind.FOLDER:
            mount.unskip(path)
            await self._look_into(mount, path, seen, is_deep=is_deep)
        elif is_forced or item.stamp != self._db.read_nowait(
            lambda c: mount_tables.find_stamp(c, path)
        ):
            mount.unskip_in(path)  # it may have been a folder
            seen.changed.append(path)

    async def _look_into(self, mount: Mount, path: str, seen: Seen, *, is_deep: bool) -> None:
        pending = [path] if is_deep else []
        while pending:
            found = await self._compare(mount, pending.pop())
            await self._record_all(mount, found)
            pending += found.folders
        seen.is_behind = not is_deep and not mount.is_current

    async def _lose(self, mount: Mount, path: str, why: str) -> list[str]:
        """Nothing that can be shown is at a path. Returns: whatever was listed there, which is gone."""
        mount.unskip(path)
        if why:
            mount.skip(path, why)
        mount.unskip_in(path)
        self.notices.forget(path)
        gone = await self._db.read(lambda c: {path, *(row.path for row in files_below(c, path))})
        return sorted(gone)

    async def _compare(self, mount: Mount, path: str) -> Differences:
        """What differs in one folder; recorded are the names. The caller has the turn."""

        def compare(connection: apsw.Connection) -> Differences:
            assert mount.real is not None, "compared a folder that is not there"
            parts = mount_tables.real_parts(connection, mount, path)
            with suppress(NotFound, AccessDenied, DiskFailed), mount.real.inside(parts) as folder:
                self.notices.watch(mount, path, folder)  # first, so that nothing falls between
                mount.real.remove_drafts(parts)
            return find_differences(connection, mount, path, self._ignored)

        if mount.real is None or mount.real.is_removed():
            await self._check_place(mount)
            return Differences()
        found = await self._db.read(compare)
        mount.unskip(path)
        mount.unskip_in(path)
        for each, why in found.skipped.items():
            mount.skip(each, why)
        if found.names:
            await self._db.write(lambda c: record_names(c, found.names))
        return found

    async def _record_all(self, mount: Mount, found: Seen) -> None:
        for first in range(0, len(found.gone), BATCH_FILES):
            some = found.gone[first : first + BATCH_FILES]
            await self._record(mount, [Found(each, is_gone=True) for each in some])
        pending = found.changed[::-1]
        while pending and mount.real is not None:
            await self._record_some(mount, pending)

    async def _record_some(self, mount: Mount, pending: list[str]) -> None:
        """Take the last of the files from the list, read them, and record what they hold."""
        founds: list[Found] = []
        n_bytes = 0
        try:
            while pending and len(founds) < BATCH_FILES and n_bytes < BATCH_BYTES:
                n_bytes += await self._examine(mount, pending, founds)
            await self._record(mount, founds)
        finally:
            self._blobs.settle(*(piece for found in founds for piece in found.pieces))

    async def _examine(self, mount: Mount, pending: list[str], founds: list[Found]) -> int:
        """Read the next few of the files; returns the bytes."""
        batch = [pending.pop() for _ in range(min(READ_FILES, len(pending)))]
        look = partial(examine_all, blobs=self._blobs, mount=mount, paths=batch, founds=founds)
        now_ns = int(self._clock.unix_s() * 1e9)
        await self._db.read(lambda c: look(c, now_ns=now_ns))
        new = founds[-len(batch) :]
        for found in new:
            if found.why:
                mount.skip(found.path, found.why)
            else:
                mount.unskip(found.path)
        return sum(piece.size_bytes for found in new for piece in found.pieces)

    async def _record(self, mount: Mount, founds: Sequence[Found]) -> None:
        if not founds:
            return
        author = Author(Pid(0), self._boot, OUTSIDE, self._clock.unix_s())

        def write(connection: apsw.Connection) -> None:
            quota = self._config.quota_bytes
            record(Transaction(connection, self._blobs, author, quota), founds)

        try:
            await self._db.write(write)
        except (ResourceExhausted, Conflict) as error:
            if len(founds) > 1:
                for each in founds:
                    await self._record(mount, [each])
            else:
                mount.skip(founds[0].path, error.message)
        self._changes.publish()

    def _is_ignored(self, path: str) -> bool:
        return any(part.casefold() in self._ignored for part in path.split("/")[2:])

    # --- leaving -------------------------------------------------------------------------------------------------

    async def remove(self, mount: Mount) -> None:
        """Take a mount away: its files are listed no more, and their versions stay. The real folder is not touched."""
        async with self._turn:
            await self._finish_left()
            mount.is_leaving = True
        author = Author(Pid(0), self._boot, KERNEL, self._clock.unix_s(), "unmounted")

        def forget(connection: apsw.Connection) -> bool:
            tx = Transaction(connection, self._blobs, author, self._config.quota_bytes)
            rows = files_below(connection, mount.path, limit=BATCH_FILES)
            for row in rows:
                tx.set_content(row.path, None, None)
                mount_tables.set_stamp(connection, row.path, None)
            return not rows

        while self._mounts.get(mount.path) is mount:
            async with self._turn:  # given back in between: a million files take a minute
                if await self._db.write(forget):
                    await self._leave(mount)
        self._changes.publish()

    async def _leave(self, mount: Mount) -> None:
        await self._db.write(lambda c: mount_tables.remove_mount(c, mount.path))
        self._mounts.pop(mount.path, None)
        self.notices.unwatch(mount)
        if mount.real is not None:
            mount.real.close()
            mount.real = None
