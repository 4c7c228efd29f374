"""A disk for pages that fails when it is told to."""

from errno import EIO, ENOSPC
from pathlib import Path
from typing import BinaryIO

from aios.kernel.context.files import open_file


class BrokenDisk:
    """A disk that can be full or unreadable; what it takes in is then torn."""

    def __init__(self) -> None:
        self.is_full = self.is_unreadable = False

    def open(self, path: Path, mode: str) -> BinaryIO:
        if mode == "rb" and self.is_unreadable:
            raise OSError(EIO, "input/output error")
        if mode == "wb" and self.is_full:
            path.write_bytes(b"half a page")
            raise OSError(ENOSPC, "no space left on device")
        return open_file(path, mode)
