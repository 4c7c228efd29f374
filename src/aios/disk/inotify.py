"""Notices of Linux about changes in folders: `inotify`, by its three system calls.

The watch is put on a descriptor that was walked to without following links, by its name in `/proc/self/fd`, so what is watched is the
folder that was checked. There is no thread: the descriptor of the notices is waited for like a socket.
"""

import ctypes
import os
import struct
from fcntl import ioctl
from termios import FIONREAD

import anyio
from msgspec import Struct

CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x8, 0x40, 0x80
CREATE, DELETE, ATTRIB = 0x100, 0x200, 0x4
MOVE_SELF = 0x800
OVERFLOW, IGNORED, IS_FOLDER = 0x4000, 0x8000, 0x40000000
_ONLY_FOLDERS = 0x01000000
_WANTED = CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | _ONLY_FOLDERS

_HEAD = struct.Struct("iIII")
_COUNT = struct.Struct("i")
_BUFFER_BYTES = 256 << 10


class Notice(Struct, frozen=True):
    """Something happened to `name` in the folder of a watch; `watch` is -1 when notices were lost."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """A queue of notices of the operating system.

    Raises:
        OSError: There is no inotify here, or this user has too many.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        init = getattr(self._libc, "inotify_init1", None)
        if init is None:
            raise OSError(0, "this system has no inotify")
        self._descriptor = _checked(init(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, folder: int, *, itself: bool = False) -> int:
        """Watch an open folder, and with `itself` also whether it is moved; the same folder has the same watch however often it is added.

        Raises:
            OSError: ENOSPC when `fs.inotify.max_user_watches` is reached.
        """
        name = f"/proc/self/fd/{folder}".encode()
        wanted = _WANTED | (MOVE_SELF if itself else 0)
        return _checked(self._libc.inotify_add_watch(self._descriptor, name, wanted))

    def remove(self, watch: int) -> None:
        """Watch it no more; one that is gone already is nothing."""
        self._libc.inotify_rm_watch(self._descriptor, watch)

    def read_nowait(self) -> list[Notice]:
        """The notices so far: whatever was changed before this call is among them."""
        notices: list[Notice] = []
        # Not until there are none: whoever makes them faster than they are read would never let go.
        n_left = _COUNT.unpack(ioctl(self._descriptor, FIONREAD, bytes(_COUNT.size)))[0]
        while n_left > 0:
            data = os.read(self._descriptor, _BUFFER_BYTES)
            n_left -= len(data)
            notices += parse_notices(data)
        return notices

    async def wait(self) -> None:
        """Wait until there is a notice."""
        await anyio.wait_readable(self._descriptor)

    def close(self) -> None:
        """Let go of it; twice is nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def parse_notices(data: bytes) -> list[Notice]:
    """What one read gave. Source: `struct inotify_event`, inotify(7)."""
    notices: list[Notice] = []
    position = 0
    while position < len(data):
        watch, mask, _, length = _HEAD.unpack_from(data, position)
        position += _HEAD.size
        notices.append(Notice(watch, mask, data[position : position + length].rstrip(b"\0")))
        position += length
    return notices


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
