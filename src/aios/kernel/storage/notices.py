"""What the operating system has told of changes in mounted folders: which paths are to be looked at.

One queue of notices for all mounts, one watch a folder. Where the system gives no more watches, the mount says so and is compared as a whole from time to time.
"""

import errno
import os
from pathlib import Path

import anyio

from aios.disk.inotify import CLOSE_WRITE, IGNORED, IS_FOLDER, OVERFLOW, Inotify, Notice
from aios.kernel.storage.mount_tables import Mount
from aios.kernel.storage.names import shown_name
from aios.kernel.storage.paths import is_within

LIMIT_FILE = Path("/proc/sys/fs/inotify/max_user_watches")


class Notices:
    """The watches of all mounts, and the paths that were noticed and not yet looked at."""

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._why_none = ""
        self._paths: dict[int, str] = {}
        self._mounts: dict[str, Mount] = {}
        self._noticed: dict[str, bool] = {}

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
            self._paths[self._inotify.add(folder)] = path
        except OSError as error:
            mount.is_watched, mount.note = False, _why_unwatched(error)

    def unwatch(self, mount: Mount) -> None:
        """A mount is taken away."""
        self._mounts.pop(mount.path, None)
        for watch, path in list(self._paths.items()):
            if is_within(path, mount.path):
                del self._paths[watch]
                if self._inotify is not None:
                    self._inotify.remove(watch)

    async def wait(self) -> None:
        """Wait until there is a notice; for ever without notices."""
        if self._inotify is None:
            await anyio.sleep_forever()
        else:
            await self._inotify.wait()

    def take(self, within: str = "/") -> list[tuple[str, bool]]:
        """The paths that were noticed until now and concern `within`, and whether a file of the same stamp is to be read again."""
        for notice in self._inotify.read_nowait() if self._inotify is not None else ():
            self._note(notice)
        taken = [
            path for path in self._noticed if is_within(path, within) or is_within(within, path)
        ]
        return [(path, self._noticed.pop(path)) for path in taken]

    def close(self) -> None:
        """Watch nothing any more."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _note(self, notice: Notice) -> None:
        if notice.mask & OVERFLOW:
            self._noticed.update((path, False) for path in self._mounts)
            return
        if notice.mask & IGNORED:
            self._paths.pop(notice.watch, None)
            return
        folder = self._paths.get(notice.watch)
        if folder is None:
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
