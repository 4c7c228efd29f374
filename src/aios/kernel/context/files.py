"""The disk tier of pages: one file a page, checked on every read, never trusted when in doubt.

    magic 8 | key 16 | parent 16 (zeros for none) | blake2b-128 of the rows | rows

A file appears whole or not at all (written beside, then renamed). A torn, altered or foreign file is removed and counted; its
page is computed again. The oldest files go when the budget is used up. Nothing here is synced: a page lost in a crash costs
time, never correctness.
"""

import os
from collections import OrderedDict
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAGIC = b"AIOSPAG1"
CHECK_BYTES = 16
HEAD_BYTES = len(MAGIC) + 3 * 16
NO_PARENT = bytes(16)


class PageFiles:
    """Files of pages of one model in one folder.

    Args:
        folder: Made when the first page is written; name it after the model's fingerprint.
        page_bytes: Size of a page.
        budget_bytes: The most that all files together may take.
    """

    def __init__(self, folder: Path, *, page_bytes: int, budget_bytes: int) -> None:
        self._folder = folder
        self._page_bytes = page_bytes
        self._n_max = budget_bytes // (page_bytes + HEAD_BYTES)
        self._known: OrderedDict[bytes, None] = OrderedDict((key, None) for key in self._listed())
        self.n_read = 0
        self.n_damaged = 0
        self.n_failed_writes = 0

    def __contains__(self, key: bytes) -> bool:
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)

    def write(self, key: bytes, parent: bytes | None, rows: NDArray[np.uint8]) -> bool:
        """Keep a page. Returns: whether it is on disk now; a full or broken disk is no error."""
        if key in self._known:
            self._known.move_to_end(key)
            return True
        if self._n_max == 0:
            return False
        while len(self._known) >= self._n_max:
            self._remove(next(iter(self._known)))
        path = self._path(key)
        part = path.with_suffix(".part")
        head = MAGIC + key + (parent or NO_PARENT) + _check(rows)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with part.open("wb") as file:
                file.write(head)
                file.write(rows.data)
            part.replace(path)
        except OSError:
            self.n_failed_writes += 1
            with suppress(OSError):
                part.unlink()
            return False
        self._known[key] = None
        return True

    def read(self, key: bytes, rows: NDArray[np.uint8]) -> bool:
        """Read a page into memory. Returns: False if it is not there or not whole; it is then forgotten."""
        path = self._path(key)
        try:
            with path.open("rb", buffering=0) as file:
                head = file.read(HEAD_BYTES)
                n_bytes = file.readinto(rows.data)
                is_longer = bool(file.read(1))
        except OSError:
            self._known.pop(key, None)
            return False
        is_whole = (
            n_bytes == self._page_bytes
            and not is_longer
            and head[: len(MAGIC) + 16] == MAGIC + key
            and head[-CHECK_BYTES:] == _check(rows)
        )
        if not is_whole:
            self.n_damaged += 1
            self._remove(key)
            return False
        self._known.move_to_end(key)
        self.n_read += 1
        return True

    def _remove(self, key: bytes) -> None:
        self._known.pop(key, None)
        with suppress(OSError):
            self._path(key).unlink()

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self._folder / name[:2] / f"{name}.page"

    def _listed(self) -> list[bytes]:
        """Keys of the files that are there, oldest first; what was left half-written is removed."""
        found: list[tuple[float, bytes]] = []
        for path in self._folder.glob("*/*"):
            with suppress(OSError, ValueError):
                if path.suffix == ".part":
                    path.unlink()
                elif path.suffix == ".page" and len(path.stem) == 2 * 16:
                    status = os.stat(path)  # noqa: PTH116 - one call a file, there may be many
                    if status.st_size == self._page_bytes + HEAD_BYTES:
                        found.append((status.st_mtime, bytes.fromhex(path.stem)))
                    else:
                        path.unlink()
        return [key for _, key in sorted(found)]


def _check(rows: NDArray[np.uint8]) -> bytes:
    return blake2b(rows.data, digest_size=CHECK_BYTES).digest()
