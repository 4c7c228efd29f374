"""The lock that makes one kernel the only one with a database open."""

import fcntl
import os
from pathlib import Path
from typing import Self

from aios.errors import Conflict, DiskFailed


class FileLock:
    """A file that is held by `flock` until `release`, or until this program ends in whatever way."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Take the lock, or refuse at once.

        Raises:
            Conflict: Somebody holds it; perhaps this very program, by another `FileLock`.
            DiskFailed: The file cannot be made.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DiskFailed(
                f"{path} cannot be made: {error.strerror}",
                hint="set AIOS_HOME to a folder of yours",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise Conflict(
                f"another kernel has {path.parent} open",
                hint="use that one (`aios ps`), end it (`aios shutdown`), or set another AIOS_HOME",
            ) from error
        return cls(descriptor)

    def release(self) -> None:
        """Let go of it; twice is nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
