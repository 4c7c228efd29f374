"""Real folders on a disk that loses what was not synced: what might be in them if the power failed now.

Of a file, the bytes since its last `fsync` may be there, gone or torn between two sectors; of a folder, each name since its last
`fsync` may be what it was or what it is, apart from all others. That is what POSIX leaves open, and more than most file systems do.
"""

import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

SECTOR_BYTES = 512
WATCHED = ("open", "mkdir", "rename", "replace", "unlink", "rmdir", "fsync")
"""The calls of `os` by which folders change and are synced. What is written is seen when it is synced."""

Stat = tuple[int, int, int]
"""Inode, length, time of change: what a file is known again by."""


@dataclass(eq=False)
class Node:
    """A file or folder that is or was there, and what of it is surely on disk."""

    is_folder: bool = False
    synced: bytes = b""
    stat: Stat = (0, 0, 0)
    """When it was synced."""
    names: dict[str, "Node"] = field(default_factory=dict)


@dataclass
class Image:
    """Folders as they might be after a loss of power; `files` has where each file is that was synced before."""

    folders: list[Path]
    files: dict[Stat, Path] = field(default_factory=dict)


class WatchedFolders:
    """Folders whose changes are watched.

    Args:
        roots: The folders, each with the names in it that count; none stands for all.
        before: Called before each change, to take an image.
    """

    def __init__(self, roots: Mapping[Path, frozenset[str]], before: Callable[[], None]) -> None:
        self._roots = dict(roots)
        self._before = before
        self.guard = threading.RLock()
        self._here = threading.local()
        self._nodes: dict[int, Node] = {}
        """By inode, of what is there now."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the calls of this block. The folders are empty, or on disk."""
        for root in self._roots:
            self._sync(root)
        with ExitStack() as patches:
            for name in WATCHED:
                hook = self._hook(name, getattr(os, name))
                patches.enter_context(mock.patch.object(os, name, hook))
            yield

    def image(self, target: Path, draw: random.Random, also: Callable[[], None]) -> Image:
        """Write what might be there into `target`, a folder `0`, `1`... for each root; `also` is done at the same moment."""
        found = Image([target / f"{number}" for number in range(len(self._roots))])
        with self.guard, self._unwatched():
            target.mkdir()
            also()
            writing = _Writing(self._nodes, draw, found)
            for (root, only), folder in zip(self._roots.items(), found.folders, strict=True):
                writing.folder(self._node(root), root, folder, only)
        return found

    def _hook(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def hooked(*args: object, **kwargs: object) -> object:
            if getattr(self._here, "is_imaging", False):
                return real(*args, **kwargs)
            self._before()
            with self.guard:
                gone = _gone(name, args, kwargs)
                result = real(*args, **kwargs)
                if gone is not None:
                    self._nodes.pop(gone, None)  # another file may get its number
                if name == "fsync":
                    self._sync(Path(f"/proc/self/fd/{args[0]}"))
            return result

        return hooked

    @contextmanager
    def _unwatched(self) -> Iterator[None]:
        self._here.is_imaging = True
        try:
            yield
        finally:
            self._here.is_imaging = False

    def _node(self, path: Path) -> Node:
        return self._nodes.setdefault(path.stat().st_ino, Node(path.is_dir()))

    def _sync(self, path: Path) -> None:
        node, found = self._node(path), path.stat()
        if not node.is_folder:
            node.synced, node.stat = (
                path.read_bytes(),
                (found.st_ino, found.st_size, found.st_mtime_ns),
            )
            return
        with os.scandir(path) as entries:
            node.names = {
                each.name: self._nodes.setdefault(
                    each.inode(), Node(each.is_dir(follow_symlinks=False))
                )
                for each in entries
            }


@dataclass
class _Writing:
    nodes: dict[int, Node]
    draw: random.Random
    image: Image

    def folder(self, node: Node, live: Path | None, target: Path, only: frozenset[str]) -> None:
        """Write a folder with some of the names that it had when it was synced, or has now."""
        target.mkdir()
        now: dict[str, Node] = {}
        if live is not None:
            with os.scandir(live) as entries:
                for each in entries:
                    fresh = Node(each.is_dir(follow_symlinks=False))
                    now[each.name] = self.nodes.setdefault(each.inode(), fresh)
        for name in sorted(
            (node.names.keys() | now.keys()) & (only or node.names.keys() | now.keys())
        ):
            old, new = node.names.get(name), now.get(name)
            chosen = self.draw.choice([old, new])
            if chosen is None:
                continue
            place = live / name if live is not None and chosen is new else None
            if chosen.is_folder:
                self.folder(chosen, place, target / name, frozenset())
            else:
                (target / name).write_bytes(self._content(chosen, place))
                self.image.files[chosen.stat] = target / name

    def _content(self, node: Node, live: Path | None) -> bytes:
        """What was synced, with what was written since in any part."""
        now = live.read_bytes() if live is not None else node.synced
        if now == node.synced:
            return now
        length = self.draw.choice([len(now), len(node.synced), self.draw.randint(0, len(now))])
        sectors = []
        for begin in range(0, length, SECTOR_BYTES):
            source = self.draw.choice([now, node.synced])
            sectors.append(source[begin : begin + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0"))
        return b"".join(sectors)[:length]


def _gone(name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> int | None:
    """The inode that a call takes the name from, if it does what it should."""
    if name in {"unlink", "rmdir"}:
        path, folder = args[0], kwargs.get("dir_fd")
    elif name in {"rename", "replace"}:
        path, folder = args[1], kwargs.get("dst_dir_fd")
    else:
        return None
    assert isinstance(path, str | bytes | Path)
    assert folder is None or isinstance(folder, int)
    with suppress(OSError):
        return os.stat(path, dir_fd=folder, follow_symlinks=False).st_ino
    return None
