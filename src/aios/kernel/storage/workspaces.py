"""Workspaces: the real folders in which tools of agents work, kept in versions so that a run can be undone.

    a run begins    compare the folder with what is known of it; what differs was changed by others
    the run         the kernel sees nothing of it
    it has ended    compare again; what differs now is a version by the process, all of one run in one transaction

A workspace has a path of its own, `/workspaces/<key>`, in the same tables as mounts, but nobody mounts it and no agent sees that path. A folder that
is too large, or holds the state of AIOS, is left out, and undo says so.
"""

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path

import anyio
import anyio.to_thread
import apsw

from aios.abi.types import Pid
from aios.config import StorageConfig
from aios.disk.blobs import BlobStore
from aios.disk.db import Database
from aios.disk.folder import A_LINK, Folder
from aios.errors import AiosError
from aios.kernel.clock import Clock
from aios.kernel.lineage import home_of
from aios.kernel.process import Run
from aios.kernel.sandbox.apart import SECRETS
from aios.kernel.storage import workspace_tables as rows
from aios.kernel.storage.authors import OUTSIDE
from aios.kernel.storage.mount_folders import is_overlap
from aios.kernel.storage.mount_tables import (
    Mount,
    all_pending,
    real_parts,
)
from aios.kernel.storage.outside import (
    Differences,
    Found,
    examine,
    find_differences,
    record,
    record_names,
)
from aios.kernel.storage.paths import WORKSPACES, is_within
from aios.kernel.storage.versions import Author, Transaction
from aios.kernel.storage.working_copy import carry_out_if_possible

KEY_BYTES = 8


@dataclass(eq=False)
class Workspace:
    """One folder. Its `turn` is held while it is compared; `running` are the runs that may be changing it."""

    mount: Mount
    turn: anyio.Lock = field(default_factory=anyio.Lock)
    running: list[rows.Act] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    """Paths whose content before the runs is not known, and why: what a run does to them is no version."""
    is_known: bool = False
    why_not: str = ""


class Workspaces:
    """All workspaces of one kernel."""

    def __init__(
        self, db: Database, blobs: BlobStore, clock: Clock, config: StorageConfig, *, boot: int
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._clock = clock
        self._config = config
        self._boot = boot
        self._home = Path(os.path.realpath(db.path.parent))
        keys = {name for name in SECRETS if "/" not in name}
        self._ignored = frozenset(name.casefold() for name in (*config.mount_ignore, *keys))
        self._open: dict[str, Workspace] = {}

    @asynccontextmanager
    async def watching(self, run: Run, what: str, folders: Sequence[Path]) -> AsyncIterator[None]:
        """While the block runs, what changes in these folders is done by the process of `run`.

        The folders are given by their real paths: what is a link by now was put there by a program, and is not followed.
        """
        act = self._act(run, what)
        spaces = [self._get(folder) for folder in _outermost(folders)]
        entered: list[Workspace] = []
        try:
            for space in spaces:
                if why_not := await self._enter(space, act):
                    await self._note(act, {f"{space.mount.folder}: {what}": why_not})
                else:
                    entered.append(space)
            yield
        finally:
            if entered:
                with anyio.CancelScope(shield=True):
                    await self._leave(entered, act)

    def is_busy(self, pid: Pid) -> bool:
        """Whether a run of that process may be changing a workspace now."""
        return any(act.pid == pid for space in self._open.values() for act in space.running)

    async def refresh(self, path: str) -> Workspace | None:
        """The workspace of a path, with what others have changed in it recorded; None if its folder is not known."""
        key = "/".join(path.split("/")[:3])
        space = self._open.get(key)
        if space is None:
            folder = await self._db.read(lambda c: rows.find_folder(c, key))
            if folder is None:
                return None
            space = self._get(Path(folder))
        async with space.turn:
            await self._compare([space], [_outsider(self._boot)])
        return space

    async def write_back(self, space: Workspace, paths: Sequence[str]) -> dict[str, str]:
        """Make real files what their newest versions are. Returns: paths that could not be, and why; they are then versions as they are."""
        async with self._opened(space.mount) as why_not:
            failed = await self._write(space, paths)
        if why_not:
            return dict.fromkeys(failed, why_not)
        if failed:
            await self._compare([space], [_outsider(self._boot)])
        return failed

    # --- a run ---------------------------------------------------------------------------------------------------

    def _act(self, run: Run, what: str) -> rows.Act:
        return rows.Act(run.process.pid, self._boot, home_of(run.process.lineage), what)

    def _get(self, folder: Path) -> Workspace:
        key = blake2b(os.fsencode(folder), digest_size=KEY_BYTES).hexdigest()
        path = f"/{WORKSPACES}/{key}"
        if path not in self._open:
            self._open[path] = Workspace(Mount(path, folder, 0, is_read_only=False))
        return self._open[path]

    async def _enter(self, space: Workspace, act: rows.Act) -> str:
        """A run begins. Returns: why what it does there is not kept, if it is not."""
        async with space.turn:
            authors = space.running if space.is_known else await self._left_behind(space)
            await self._compare([space], authors or [_outsider(self._boot)])
            if space.why_not:  # what was there is not known: nobody can say what the run changes
                return space.why_not
            workspace = (space.mount.path, str(space.mount.folder))
            await self._db.write(lambda c: rows.begin(c, workspace, act))
            space.running.append(act)
        return ""

    async def _leave(self, spaces: Sequence[Workspace], act: rows.Act) -> None:
        """Record what the run has done in all of them, in one transaction."""
        for space in spaces:
            await space.turn.acquire()
        try:
            await self._compare(spaces, [act])
        finally:
            for space in spaces:
                space.running.remove(act)
                space.turn.release()
        names = [space.mount.path for space in spaces]
        whys = {real_path(s.mount, path): why for s in spaces for path, why in s.unknown.items()}
        whys.update((str(space.mount.folder), space.why_not) for space in spaces if space.why_not)
        await self._db.write(lambda c: rows.end(c, names, act))
        await self._note(act, whys)

    async def _note(self, act: rows.Act, whys: Mapping[str, str]) -> None:
        """Write down what a run may have done that no version has."""
        if whys:
            await self._db.write(lambda c: rows.note(c, act, whys, self._clock.unix_s()))

    async def _left_behind(self, space: Workspace) -> list[rows.Act]:
        """The runs that a killed kernel had here: what differs now is theirs, if it was one."""
        if space.is_known:
            return []
        found = await self._db.read(lambda c: rows.running(c, space.mount.path))
        left = [act for act in found if act.boot != self._boot]
        return left if len(left) == 1 else []

    # --- comparing -----------------------------------------------------------------------------------------------

    async def _compare(self, spaces: Sequence[Workspace], authors: Sequence[rows.Act]) -> None:
        """Record what differs, by the first of `authors`. The caller has the turns."""
        act = authors[0]
        seen = [await self._see(space) for space in spaces]
        pieces = [piece for each in seen for found in each for piece in found.pieces]
        beside = any(other is not act for space in spaces for other in space.running)
        message = f"{act.what}{', while others ran' if beside and act.pid else ''}"
        author = Author(act.pid, act.boot, act.author, self._clock.unix_s(), message)

        def write(connection: apsw.Connection) -> None:
            tx = Transaction(connection, self._blobs, author, self._config.quota_bytes)
            for each in seen:
                record(tx, each)

        try:
            if any(seen):
                await self._db.write(write)
        except AiosError as error:
            for space in spaces:
                space.is_known, space.why_not = False, error.message
        finally:
            self._blobs.settle(*pieces)

    async def _see(self, space: Workspace) -> list[Found]:
        """Compare a whole folder and stage what differs. Cost: 20 us a file, and what reading the changed ones takes."""
        space.is_known = False
        async with self._opened(space.mount) as space.why_not:
            return [] if space.why_not else await self._seen(space)

    async def _seen(self, space: Workspace) -> list[Found]:
        mount = space.mount
        if pending := await self._db.read(lambda c: all_pending(c, mount)):
            await self._write(space, pending)  # what a killed kernel had begun to undo
        found = await self._walked(mount)
        if len(found.changed) > self._config.undo_files:
            space.why_not = f"{mount.folder} has over {self._config.undo_files} files"
            return []
        if not space.running:  # before a run: what cannot be read now cannot be given back
            space.unknown = {}
        space.unknown = {**found.skipped, **space.unknown}
        paths = [path for path in found.changed if not _is_in(path, space.unknown)]
        read, space.why_not = await self._db.read(lambda c: self._read(c, mount, paths))
        space.is_known = not space.why_not
        space.unknown |= {each.path: each.why for each in read if each.why}
        hidden = [path for path, why in found.skipped.items() if why != A_LINK]
        gone = [path for path in found.gone if not _is_in(path, hidden)]
        return [*(Found(path, is_gone=True) for path in gone), *(f for f in read if not f.why)]

    async def _walked(self, mount: Mount) -> Differences:
        """What differs in the whole folder. Names that paths cannot show are written down on the way, for they lead to what is below."""
        total, pending = Differences(), [mount.path]

        def walk(connection: apsw.Connection) -> dict[str, bytes | None]:
            while pending and len(total.changed) <= self._config.undo_files:
                found = find_differences(connection, mount, pending.pop(), self._ignored)
                pending.extend(found.folders)
                total.changed += found.changed
                total.gone += found.gone
                total.skipped |= found.skipped
                if found.names:
                    return found.names
            return {}

        while names := await self._db.read(walk):
            await self._db.write(partial(record_names, names=names))
        return total

    def _read(
        self, connection: apsw.Connection, mount: Mount, paths: Sequence[str]
    ) -> tuple[list[Found], str]:
        """What is in these files; or why it is too much."""
        assert mount.real is not None, "read from a folder that is not there"
        parts = {path: real_parts(connection, mount, path) for path in paths}
        items = (mount.real.find(each) for each in parts.values())
        try:
            n_bytes = sum(item.stamp.size_bytes for item in items if item and item.stamp)
        except AiosError as error:
            return [], error.message
        if n_bytes > self._config.undo_bytes:
            return [], f"{mount.folder} holds {n_bytes} bytes, over storage.undo_bytes"
        now_ns = int(self._clock.unix_s() * 1e9)
        found = [
            examine(self._blobs, mount.real, path, parts=each, now_ns=now_ns)
            for path, each in parts.items()
        ]
        return found, ""

    @asynccontextmanager
    async def _opened(self, mount: Mount) -> AsyncIterator[str]:
        """The folder that is in its place now, open for the block; or why it is not kept in versions."""
        if is_overlap(str(mount.folder), str(self._home)):
            yield f"{mount.folder} holds, or is in, the state of AIOS"
            return
        try:
            mount.real = real = await anyio.to_thread.run_sync(Folder.open, mount.folder)
        except AiosError as error:
            yield error.message
            return
        try:
            yield ""
        finally:
            mount.real = None
            real.close()

    async def _write(self, space: Workspace, paths: Sequence[str]) -> dict[str, str]:
        """Make real files what their newest versions are. Returns: paths that could not be, and why; nothing is known of these any more."""
        work = [(space.mount, path) for path in paths]
        return await carry_out_if_possible(self._db, self._blobs, work)


def real_path(mount: Mount, path: str) -> str:
    """The place on the machine that a path of a workspace shows."""
    return f"{mount.folder}{path.removeprefix(mount.path)}"


def _outermost(folders: Iterable[Path]) -> list[Path]:
    """Those of the folders that lie in no other."""
    found: list[Path] = []
    for folder in sorted(set(folders)):
        if not any(folder.is_relative_to(other) for other in found):
            found.append(folder)
    return found


def _is_in(path: str, folders: Iterable[str]) -> bool:
    return any(is_within(path, folder) for folder in folders)


def _outsider(boot: int) -> rows.Act:
    """Whoever changes a folder while no run does."""
    return rows.Act(Pid(0), boot, OUTSIDE, "")
