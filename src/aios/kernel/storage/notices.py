"""What the operating system has told of changes in mounted folders: which paths are to be looked at.

One queue of notices for all mounts, one watch a folder. Where the system gives no more watches, the mount says so and is compared as a whole from time to time.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import anyio

from aios.disk.inotify import (
    CLOSE_WRITE,
    IGNORED,
    IS_FOLDER,
    MOVE_SELF,
    OVERFLOW,
    Inotify,
    Notice,
)
from aios.kernel.storage.mount_tables import Mount
from aios.kernel.storage.names import shown_name
from aios.kernel.storage.paths import is_within

MAX_NOTICED = 10_000
"""Paths that wait to be looked at; with more, the mounts are compared as a whole."""
LIMIT_FILE = Path("/proc/sys/fs/inotify/max_user_watches")


class Notices:
    """The watches of all mounts, and the paths that were noticed and not yet looked at."""

    def __init__(self, compare: Callable[[Mount], None]) -> None:
        self._compare = compare
        """Has a mount compared as a whole, soon: notices of it were lost."""
        self._inotify: Inotify | None = None
        self._why_none = ""
        self._paths: dict[int, str] = {}
        self._watches: dict[str, int] = {}
        """The watch of each folder, by its path."""
        self._mounts: dict[str, Mount] = {}
        self._noticed: dict[str, bool] = {}
        self._left = anyio.Event()

    def begin(self) -> None:
        """Ask the operating system for notices; without them every mount is compared from time to time."""
        if self._inotify is None:
            try:
                self._inotify = Inotify()
            except OSError as error:
                self._why_none = f"no notices of changes: {error.strerror}"

    def watch(self, mount: Mount, path: str, folder: int) -> None:
        """Watch a folder of a mount, by its descriptor."""
        self._mounts[mount.path] = mount
        if self._inotify is None:
            mount.is_watched, mount.note = False, self._why_none
            return
        try:
            watch = self._inotify.add(folder, itself=path == mount.path)
        except OSError as error:
            mount.is_watched, mount.note = False, _why_unwatched(error)
            return
        if self._watches.get(path) == watch:
            return
        self._drop(path)  # another folder stood here
        before = self._paths.get(watch)
        if before is not None and self._watches.get(before) == watch:  # it was moved
            del self._watches[before]
        self._paths[watch], self._watches[path] = path, watch

    def unwatch(self, mount: Mount) -> None:
        """A mount is taken away."""
        self._mounts.pop(mount.path, None)
        self.forget(mount.path)

    def forget(self, path: str) -> None:
        """A folder is not there any more: it may live on elsewhere, with all below it, and is not to be watched."""
        if path in self._watches:
            for each in [each for each in self._watches if is_within(each, path)]:
                self._drop(each)

    def _drop(self, path: str) -> None:
        watch = self._watches.pop(path, None)
        if watch is not None and self._paths.pop(watch, None) is not None and self._inotify:
            self._inotify.remove(watch)

    async def wait(self) -> None:
        """Wait until there is a path to be looked at, also one that another took from the system's queue and left; for ever without notices."""
        inotify = self._inotify
        if inotify is None:
            await anyio.sleep_forever()
            return
        self._left = anyio.Event()
        if self._noticed:
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._wait_for_more, inotify)
            await self._left.wait()
            tasks.cancel_scope.cancel()

    async def _wait_for_more(self, inotify: Inotify) -> None:
        await inotify.wait()
        self._left.set()

    def count(self) -> int:
        """How many paths were noticed until now."""
        for notice in self._inotify.read_nowait() if self._inotify is not None else ():
            self._note(notice)
        if len(self._noticed) > MAX_NOTICED:
            self._lose()
        return len(self._noticed)

    def take(self, within: str = "/", *, limit: int | None = None) -> list[tuple[str, bool]]:
        """The paths that were noticed until now and concern `within`, at most `limit`, and whether a file of the same stamp is to be read again."""
        self.count()
        concerned = (
            path for path in self._noticed if is_within(path, within) or is_within(within, path)
        )
        taken = [(path, self._noticed[path]) for path in islice(concerned, limit)]
        for path, _ in taken:
            del self._noticed[path]
        if self._noticed:
            self._left.set()
        return taken

    @contextmanager
    def taken(
        self, within: str = "/", *, limit: int | None = None
    ) -> Iterator[list[tuple[str, bool]]]:
        """What `take` takes, for the block to look at: they stay noticed if it fails or is cut off, for nobody is told of them again."""
        taken = self.take(within, limit=limit)
        try:
            yield taken
        except BaseException:
            later, self._noticed = self._noticed, dict(taken)
            for path, is_forced in later.items():
                self._noticed[path] = self._noticed.get(path, False) or is_forced
            self._left.set()
            raise

    def close(self) -> None:
        """Watch nothing any more."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _lose(self) -> None:
        """There are more notices than anybody can look at. Whoever goes on making them has the mounts compared every `storage.rescan_s`, not all the time."""
        self._noticed.clear()
        for mount in self._mounts.values():
            if not mount.is_behind:
                self._compare(mount)
            mount.n_losses += 1

    def _note(self, notice: Notice) -> None:
        if notice.mask & OVERFLOW:
            self._lose()
            return
        folder = self._paths.get(notice.watch)
        if folder is None:
            return
        if notice.mask & IGNORED:
            del self._paths[notice.watch]
            self._watches.pop(folder, None)
        if notice.mask & (IGNORED | MOVE_SELF):
            if folder in self._mounts:
                self._noticed.setdefault(folder, False)
            return
        name = shown_name(notice.name)
        if name.encode() != notice.name:
            # A name that is shown otherwise: the whole folder tells which file it is.
            self._noticed.setdefault(folder, False)
            return
        path = f"{folder}/{name}"
        is_forced = bool(notice.mask & CLOSE_WRITE) and not notice.mask & IS_FOLDER
        self._noticed[path] = self._noticed.get(path, False) or is_forced


def _why_unwatched(error: OSError) -> str:
    if error.errno != errno.ENOSPC:
        return f"not all folders can be watched: {os.strerror(error.errno or 0)}"
    try:
        limit = LIMIT_FILE.read_text(encoding="ascii").strip()
    except OSError:
        limit = "the limit"
    return (
        f"more folders than this system lets us watch ({limit}, fs.inotify.max_user_watches); "
        "the others are compared every storage.rescan_s"
    )
