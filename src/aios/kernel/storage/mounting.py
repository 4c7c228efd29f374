"""The calls about mounts, and the task that keeps mounts and real folders the same while the kernel runs."""

import os
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from aios.abi.mounts import FileMount, FileMounts, FileUmount, MountInfo, MountInfos, Skipped
from aios.config import StorageConfig
from aios.disk.db import Database
from aios.errors import AccessDenied, AiosError, Conflict, InvalidCall, NotFound, edge
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.sandbox.apart import key_places
from aios.kernel.storage.manager import StorageManager
from aios.kernel.storage.mount_folders import is_overlap, open_real
from aios.kernel.storage.mount_tables import Mount, add_mount
from aios.kernel.storage.paths import FOLDERS, parse

MAX_SHOWN = 100
"""Of what is not shown in a mount, named with the reason."""
MACHINE_FOLDERS = ("/proc", "/sys", "/dev", "/run")
"""Their files are not files: reading one may wait for ever, writing one may stop the machine."""


class Mounting:
    """Mounts that come and go. The background task begins with the kernel if there are mounts, else with the first."""

    def __init__(
        self,
        storage: StorageManager,
        db: Database,
        config: StorageConfig,
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self._storage = storage
        self._mounts = storage.mounts
        self._db = db
        self._config = config
        self._tasks = tasks
        self._scope = anyio.CancelScope()
        self._over: anyio.Event | None = None
        self._adding = anyio.Lock()

    async def begin(self) -> None:
        """Take up the mounts of the kernel before. A database that is not there yet, or cannot be opened, has none."""
        if not await anyio.Path(self._db.path).exists():
            return
        try:
            await self._storage.open()
        except AiosError:
            return  # whoever uses a file is told
        if mounts := self._mounts.all():
            self._start(*mounts)

    async def aclose(self) -> None:
        """End the task and let go of the folders."""
        self._scope.cancel()
        if self._over is not None:
            with anyio.CancelScope(shield=True):
                await self._over.wait()
        self._mounts.close()
        self._storage.drafts.close_all()

    # --- calls ---------------------------------------------------------------------------------------------------

    async def mount(self, run: Run, call: FileMount) -> MountInfos:
        """Show a real folder under a name."""
        await self._storage.open()
        path = parse(call.path, "/")
        if path.count("/") != 1 or path == "/" or path[1:] in FOLDERS:
            raise InvalidCall(
                f"{path} is no place for a mount", hint="give one new name, such as /notes"
            )
        if not call.folder.startswith("/"):
            raise InvalidCall("the folder must be absolute", hint="begin it with /")
        async with self._adding:
            mount = await anyio.to_thread.run_sync(self._checked, path, call)
            await self._db.write(lambda c: add_mount(c, mount))
            self._mounts.add(mount)
        self._start(mount)
        if call.is_waiting:
            with run.parked():
                await mount.settled.wait()
            await run.runnable()
        return MountInfos((self._info(run.process, mount),))

    async def umount(self, run: Run, call: FileUmount) -> MountInfos:
        """Take a mount away."""
        await self._storage.open()
        path = parse(call.path, "/")
        mount = self._mounts.find(path)
        if mount is None or mount.path != path:
            raise NotFound(f"{path} is no mount", hint="`aios fs mounts` lists them")
        info = self._info(run.process, mount)
        await self._mounts.remove(mount)
        return MountInfos((info,))

    async def list_all(self, run: Run, _: FileMounts) -> MountInfos:
        """The mounts that the caller may read."""
        await self._storage.open()
        mine = [m for m in self._mounts.all() if self._storage.may_read(run.process, m.path)]
        return MountInfos(tuple(self._info(run.process, mount) for mount in mine))

    def _info(self, process: Process, mount: Mount) -> MountInfo:
        is_owner = process.pid == INIT_PID
        skipped = [Skipped(path, why) for path, why in mount.skipped(MAX_SHOWN)]
        n_files: int = self._db.read_nowait(
            lambda c: c.execute("SELECT n_files FROM usage WHERE root = ?", (mount.path,)).get or 0
        )
        return MountInfo(
            path=mount.path,
            folder=str(mount.folder) if is_owner else "",
            is_read_only=mount.is_read_only,
            is_settled=mount.settled.is_set(),
            is_watched=mount.has_all_notices and mount.real is not None,
            n_files=n_files,
            n_skipped=mount.n_skipped,
            skipped=tuple(skipped) if is_owner else (),
            note=mount.note if is_owner else "",
        )

    def _checked(self, path: str, call: FileMount) -> Mount:
        """The mount, if the folder may be one; in a thread, for it touches the disk."""
        folder = Path(os.path.realpath(call.folder))
        home = Path(os.path.realpath(self._db.path.parent))
        if is_overlap(str(folder), str(home)):
            raise AccessDenied(
                f"{folder} holds, or is in, the state of AIOS", hint="mount another folder"
            )
        if any(is_overlap(str(folder), each) for each in MACHINE_FOLDERS):
            raise AccessDenied(f"{folder} is of the machine itself", hint="mount another folder")
        for place in key_places():
            if is_overlap(str(folder), str(place)):
                raise AccessDenied(
                    f"{folder} holds, or is in, {place}, where you keep keys",
                    hint="mount another folder, or one in it",
                )
        for other in self._mounts.all():
            if other.path == path:
                raise Conflict(f"{path} is a mount already", hint="`aios fs umount` it first")
            if is_overlap(str(folder), str(other.folder)):
                raise Conflict(
                    f"{folder} and {other.folder}, which is {other.path}, lie in each other",
                    hint="a file has one path: mount only one of them",
                )
        mount = Mount(path, folder, 0, call.is_read_only)
        mount.inode = folder.stat().st_ino if folder.is_dir() else 0
        open_real(mount)
        if mount.real is None:
            raise NotFound(mount.note, hint="name a folder that is there and may be entered")
        return mount

    # --- in the background ---------------------------------------------------------------------------------------

    def _start(self, *mounts: Mount) -> None:
        for mount in mounts:
            self._mounts.want_settled(mount)
        if self._over is None:
            self._over = anyio.Event()
            self._mounts.notices.begin()
            self._tasks.start_soon(self._run, self._over)

    async def _run(self, over: anyio.Event) -> None:
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._settle_wanted)
                    tasks.start_soon(self._listen)
                    tasks.start_soon(self._rescan)
        finally:
            over.set()

    async def _settle_wanted(self) -> None:
        while True:
            await self._attempt(await self._mounts.next_wanted())

    async def _listen(self) -> None:
        while True:
            await self._mounts.notices.wait()
            try:
                with edge("the look at mounts"):
                    await self._mounts.take_notices()
            except AiosError as error:
                await self._pause(error)

    async def _rescan(self) -> None:
        while True:
            await anyio.sleep(self._config.rescan_s)
            for mount in self._mounts.all():
                await self._attempt(mount, only_if_due=True)

    async def _attempt(self, mount: Mount, *, only_if_due: bool = False) -> None:
        try:
            with edge("the look at this mount"):
                is_anew = await self._mounts.find_again(mount)
                is_due = is_anew or (mount.settled.is_set() and not mount.has_all_notices)
                if is_due or not only_if_due:
                    n_losses = mount.n_losses
                    await self._mounts.settle(mount)
                    mount.n_made_good = n_losses
        except AiosError as error:
            mount.note = error.message
            mount.settled.set()

    async def _pause(self, error: AiosError) -> None:
        """The database failed: the mounts say so, and are compared with it again later."""
        for mount in self._mounts.all():
            mount.note, mount.is_watched = error.message, False
        await anyio.sleep(1.0)
