"""The disk tier of pages: one file a page, checked on every read, never trusted when in doubt.

    magic 8 | key 16 | parent 16 (zeros for none) | blake2b-128 of the rows | rows

A file appears whole or not at all (written beside, then renamed). A torn, altered or foreign file is removed and counted; its
page is computed again. The oldest files go when the budget is used up, but for pinned ones. Only what a pin needs is synced:
any other page lost in a crash costs time, never correctness.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from threading import Lock, get_ident
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from aios.kernel.context.pins import KEY_BYTES, PINS, Pins, sync_folder

MAGIC = b"AIOSPAG2"
CHECK_BYTES = 16
HEAD_BYTES = len(MAGIC) + 3 * 16
NO_PARENT = bytes(16)
MAX_SKIPPED = 64
"""Pinned files that are passed over to find one to remove; they then count as used last, so the next search goes on."""

OpenFile = Callable[[Path, str], BinaryIO]


def open_file(path: Path, mode: str) -> BinaryIO:
    """Open a file without a buffer: a page is one read."""
    return open(path, mode, buffering=0)  # type: ignore[return-value]  # noqa: PTH123 - a FileIO, closed by `with`


class PageFiles:
    """Files of pages of one model in one folder. Safe in any thread; nothing slow is done under its lock.

    Args:
        folder: Made when the first page is written; name it after the model's fingerprint.
        page_bytes: Size of a page.
        budget_bytes: The most that all files together may take.
        open_file: Opens a file for reading (`rb`) or writing (`wb`); tests put a broken disk here.
    """

    def __init__(
        self,
        folder: Path,
        *,
        page_bytes: int,
        budget_bytes: int,
        open_file: OpenFile = open_file,
    ) -> None:
        self._folder = folder
        self._page_bytes = page_bytes
        self._open = open_file
        self._n_max = budget_bytes // (page_bytes + HEAD_BYTES)
        self.pins = Pins(folder / PINS)
        self._lock = Lock()
        self._known: OrderedDict[bytes, None] = OrderedDict((key, None) for key in self._listed())
        self.n_read = 0
        self.n_damaged = 0
        self.n_failed_writes = 0
        self._make_room(self._n_max)

    def __contains__(self, key: bytes) -> bool:
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)

    def write(self, key: bytes, parent: bytes | None, rows: NDArray[np.uint8]) -> bool:
        """Keep a page. Returns: whether it is on disk now; a full or broken disk is no error."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return True
        if not self._make_room(self._n_max - 1):
            return False
        path = self._path(key)
        part = path.with_name(
            f"{path.stem}-{get_ident()}.part"
        )  # another thread may write the same page
        head = MAGIC + key + (parent or NO_PARENT) + _check(rows)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._open(part, "wb") as file:
                if file.write(head) != len(head) or file.write(rows.data) != rows.nbytes:
                    raise OSError("the disk took a part of the page only")  # noqa: TRY301 - as other disks say it
            part.replace(path)
        except OSError:
            self.n_failed_writes += 1
            with suppress(OSError):
                part.unlink()
            return False
        with self._lock:
            self._known[key] = None
        self._make_room(self._n_max)  # others may have written meanwhile
        return True

    def read(self, key: bytes, rows: NDArray[np.uint8]) -> bool:
        """Read a page into memory. Returns: False if it is not there or not whole; it is then removed.

        Cost: 0.8 ms for 0.7 MB in the system's cache, most of it for the check.
        """
        try:
            with self._open(self._path(key), "rb") as file:
                head = file.read(HEAD_BYTES)
                n_bytes = file.readinto(rows.data)  # type: ignore[attr-defined]  # typeshed's BinaryIO lacks it
                is_longer = bool(file.read(1))
        except OSError:
            self.remove(key)  # a file that is not known is not counted either
            return False
        is_whole = (
            n_bytes == self._page_bytes
            and not is_longer
            and head[: len(MAGIC) + KEY_BYTES] == MAGIC + key
            and head[-CHECK_BYTES:] == _check(rows)
        )
        if not is_whole:
            self.n_damaged += 1
            self.remove(key)
            return False
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            self.n_read += 1
        return True

    def sync(self, keys: Sequence[bytes]) -> int:
        """Make pages durable. Returns: how many from the start are, which a crash cannot take."""
        n_synced = 0
        with suppress(OSError):
            for key in keys:
                with self._open(self._path(key), "rb") as file:
                    os.fsync(file.fileno())
                n_synced += 1
        folders = {self._path(key).parent for key in keys[:n_synced]}
        try:
            for folder in (*folders, self._folder):
                sync_folder(folder)
        except OSError:
            return 0
        return n_synced

    def remove(self, key: bytes) -> None:
        """Forget a page; unknown is nothing."""
        with self._lock:
            is_known = key in self._known
            self._known.pop(key, None)
        if is_known:
            with suppress(OSError):
                self._path(key).unlink()

    def _make_room(self, n_kept: int) -> bool:
        """Remove the files that were used the longest ago, pinned ones excepted, until `n_kept` are left."""
        victims: list[bytes] = []
        with self._lock:
            n_skipped = 0
            while len(self._known) > n_kept and n_skipped < MAX_SKIPPED:
                key = next(iter(self._known), None)
                if key is None:
                    break
                if key in self.pins:
                    self._known.move_to_end(key)
                    n_skipped += 1
                else:
                    del self._known[key]
                    victims.append(key)
            has_room = len(self._known) <= n_kept
        for key in victims:
            with suppress(OSError):
                self._path(key).unlink()
        return has_room

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self._folder / name[:2] / f"{name}.page"

    def _listed(self) -> list[bytes]:
        """Keys of the files that are there, oldest first; what was left half-written is removed. Cost: 10 us a file."""
        found: list[tuple[float, bytes]] = []
        with suppress(OSError):
            for folder in [entry for entry in os.scandir(self._folder) if len(entry.name) == 2]:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        with suppress(OSError, ValueError):
                            self._note(entry, found)
        return [key for _, key in sorted(found)]

    def _note(self, entry: "os.DirEntry[str]", found: list[tuple[float, bytes]]) -> None:
        stem, _, kind = entry.name.partition(".")
        status = entry.stat()
        if kind == "page" and status.st_size == self._page_bytes + HEAD_BYTES:
            found.append((status.st_mtime, _key_of(stem)))
        elif kind in ("page", "part"):
            Path(entry.path).unlink()


def remove_unused(folder: Path, pins: Pins, *, before_unix_s: float) -> None:
    """Remove the pages of a model that does not run here now, but for those that are pinned or were written since then."""
    with suppress(OSError):
        for entry in [entry for entry in os.scandir(folder) if len(entry.name) == 2]:
            for path in Path(entry.path).iterdir():
                with suppress(OSError, ValueError):
                    if path.stat().st_mtime < before_unix_s and _key_of(path.stem) not in pins:
                        path.unlink()
            with suppress(OSError):  # it is not empty
                Path(entry.path).rmdir()


def _key_of(stem: str) -> bytes:
    """The key in a file's name.

    Raises:
        ValueError: It is none.
    """
    key = bytes.fromhex(stem)
    if len(key) != KEY_BYTES:
        raise ValueError(stem)
    return key


def _check(rows: NDArray[np.uint8]) -> bytes:
    return blake2b(rows.data, digest_size=CHECK_BYTES).digest()
