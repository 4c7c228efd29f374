"""Read a file that a program may have made, and may exchange while it is looked at: never a pipe or a device, never without an end."""

import os
import stat
from pathlib import Path


def read_plain(path: Path, n_bytes: int, *, follows_link: bool = True) -> bytes | None:
    """The first bytes of a plain file; None if it is none, or no longer.

    Raises:
        OSError: It cannot be read, or is a link that is not to be followed.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags | (0 if follows_link else os.O_NOFOLLOW))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        # Whatever its size is said to be: a file of /proc says 0, and may have no end.
        return file.read(n_bytes)


def read_anything(path: Path, n_bytes: int) -> bytes | None:
    """The same of a path that may be, or lead to, anything: to open a device may already do something, so it is looked at before.

    Raises:
        OSError: It cannot be read.
    """
    return read_plain(path, n_bytes) if stat.S_ISREG(path.stat().st_mode) else None
