"""Pins: chains of pages that somebody will come back to, each under a name.

A pinned page may move from memory to disk, never out of both. A pin that is written down survives the kernel: its file lists
the keys, and is read back before any page of the folder can be removed. A file that is torn or altered pins nothing.

    magic 8 | blake2b-128 of the rest | length of the name u32 | name | keys, 16 bytes each
"""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

PINS = "pins"
"""The folder of the pins, beside those of the pages."""
MAGIC = b"AIOSPIN1"
KEY_BYTES = 16
CHECK_BYTES = 16
HEAD_BYTES = len(MAGIC) + CHECK_BYTES + 4


class Pins:
    """Which keys are pinned, and under which names. Not safe in several threads, but for `write`: its owner holds a lock.

    Args:
        folder: Where pins that are written down are kept; None keeps them in memory only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._chains: dict[str, tuple[bytes, ...]] = {}
        self._written: set[str] = set()
        self._counts: Counter[bytes] = Counter()
        if folder is not None:
            self._read_all(folder)

    def __contains__(self, key: object) -> bool:
        return key in self._counts

    def __len__(self) -> int:
        return len(self._chains)

    def names(self) -> tuple[str, ...]:
        """Every name that pins something."""
        return tuple(self._chains)

    @property
    def n_keys(self) -> int:
        """Pages that are pinned, whether they are there or not."""
        return len(self._counts)

    def put(self, name: str, keys: Sequence[bytes]) -> list[bytes]:
        """Pin these pages under a name, instead of what it pinned before. Returns: keys that are pinned no more."""
        self._counts.update(keys)
        before = self._chains.get(name, ())
        self._chains[name] = tuple(keys)
        return self._uncount(before)

    def drop(self, name: str) -> list[bytes]:
        """Forget a name, on disk too; unknown is nothing. Returns: keys that are pinned no more."""
        if name in self._written:
            self._written.discard(name)
            with suppress(OSError):
                self._path(name).unlink()
        return self._uncount(self._chains.pop(name, ()))

    def write(self, name: str) -> bool:
        """Write a pin down, synced; without the lock, but one at a time. `settle` ends it. Returns: whether it is on disk now."""
        keys = self._chains.get(name)
        if self._folder is None or keys is None:
            return False
        text = name.encode()
        body = len(text).to_bytes(4, "little") + text + b"".join(keys)
        path = self._path(name)
        part = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with part.open("wb") as file:
                file.write(MAGIC + _check(body) + body)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            sync_folder(path.parent)
        except OSError:
            with suppress(OSError):
                part.unlink()
            return False
        return True

    def settle(self, name: str) -> bool:
        """End what `write` wrote: its file goes if the pin was dropped meanwhile. Returns: whether the pin is wanted still."""
        self._written.add(name)
        if name not in self._chains:
            self.drop(name)
        return name in self._chains

    def _uncount(self, keys: Sequence[bytes]) -> list[bytes]:
        freed = []
        for key in keys:
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]
                freed.append(key)
        return freed

    def _read_all(self, folder: Path) -> None:
        for path in folder.glob("*"):
            with suppress(OSError):
                found = _parsed(path.read_bytes()) if path.suffix == ".pin" else None
                if found is None:
                    path.unlink()
                    continue
                name, keys = found
                self.put(name, keys)
                self._written.add(name)

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return pin_path(self._folder, name)

    def check_invariants(self) -> None:
        """Raise AssertionError if a key is counted that no name pins, or the other way round."""
        counts = Counter(key for keys in self._chains.values() for key in keys)
        assert counts == self._counts, "pins are counted wrong"
        assert self._written <= self._chains.keys()


def pin_path(folder: Path, name: str) -> Path:
    """Where a pin is written down."""
    return folder / f"{blake2b(name.encode(), digest_size=KEY_BYTES).hexdigest()}.pin"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: They may not be.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parsed(data: bytes) -> tuple[str, list[bytes]] | None:
    """Name and keys; None if the file is not whole."""
    check, body = data[len(MAGIC) : len(MAGIC) + CHECK_BYTES], data[len(MAGIC) + CHECK_BYTES :]
    if not data.startswith(MAGIC) or len(data) < HEAD_BYTES or check != _check(body):
        return None
    end = 4 + int.from_bytes(body[:4], "little")
    keys = body[end:]
    name = body[4:end].decode("utf-8", "replace")
    return name, [keys[i : i + KEY_BYTES] for i in range(0, len(keys), KEY_BYTES)]


def _check(body: bytes) -> bytes:
    return blake2b(body, digest_size=CHECK_BYTES).digest()
