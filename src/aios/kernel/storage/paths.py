"""Paths and who reaches them. Pure.

A path is parsed into parts once, at the door; what comes out has no `..`, no look-alikes and no way up, and is only ever a key of
the database, never a name of the operating system.

    /agents/<name>...   one folder an agent, inside that of the process that started it
    /groups/<group>     one folder a group: the processes of one owner
    /shared             everybody
    /<mount>            one a mounted folder: who may see it has it shared with them
"""

import unicodedata
from collections.abc import Callable
from functools import lru_cache

from msgspec import Struct

from aios.errors import AccessDenied, InvalidCall
from aios.kernel.lineage import AGENTS

MAX_PART_BYTES = 255
MAX_PATH_BYTES = 4096
MAX_PARTS = 64
GROUPS, SHARED = "groups", "shared"
ROOTS = (AGENTS, GROUPS, SHARED)
WORKSPACES, CHECKPOINTS = "workspaces", "checkpoints"
"""Real folders in which tools work, and files of processes that were put away: the owner may look at them, and nobody writes there by calls about files."""
FOLDERS = (*ROOTS, WORKSPACES, CHECKPOINTS)
"""The folders that hold everything."""
HOLDERS = frozenset({"/", *(f"/{each}" for each in FOLDERS if each != SHARED)})
"""The folders in which no file may be."""
FORBIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Control, format (direction marks, zero-width), surrogate, private, unassigned; line and paragraph separators."""


Judge = Callable[[str, bool], str]
"""Why a path may not be read (or changed, if True); empty: it may."""


class Reach(Struct, frozen=True):
    """Which paths a process may use: its own folder, its group's, the shared one, and what was shared with it."""

    home: str
    """Its folder; `/` reaches everything."""
    group: str = ""
    readable: frozenset[str] = frozenset()
    writable: frozenset[str] = frozenset()
    is_confined: bool = False
    """It may change only its own folder: a branch that is not committed."""
    judge: Judge | None = None
    """What policies say besides; None: nothing."""

    def may_read(self, path: str) -> bool:
        """Whether it may see a path."""
        return self._is_readable(path) and not self._objection(path, is_write=False)

    def may_write(self, path: str) -> bool:
        """Whether it may change a path."""
        return self._is_writable(path) and not self._objection(path, is_write=True)

    def readable_below(self, folder: str) -> tuple[str, ...]:
        """The folders and files below `folder` (or `folder` itself) that together are all that it may read there."""
        own = {each for each in (self.home, self.group, f"/{SHARED}", *self.readable) if each}
        if any(is_within(folder, each) for each in own):
            return (folder,)
        return tuple(sorted(each for each in own if is_within(each, folder)))

    def ways_from(self, folder: str) -> list[str]:
        """The names in a folder that it may not read, on the way to what it may. Nothing of others is told by them."""
        own = (self.home, self.group, f"/{SHARED}", *self.readable)
        start = "/" if folder == "/" else f"{folder}/"
        rests = (each.removeprefix(start) for each in own if each.startswith(start))
        return sorted({start + rest.partition("/")[0] for rest in rests if rest})

    def check(self, path: str, *, is_write: bool) -> str:
        """The path, if it may be used.

        Raises:
            AccessDenied: It may not. The message is the same whether or not something is there.
        """
        verb = "change" if is_write else "read"
        if self._is_writable(path) if is_write else self._is_readable(path):
            why = self._objection(path, is_write=is_write)
            if not why:
                return path
            raise AccessDenied(
                f"{self.home} may not {verb} {path}: {why}",
                hint="`aios policy explain` shows which policies decide",
            )
        if self.is_confined and is_write:
            raise AccessDenied(
                f"{self.home} is a branch and may not change {path}, which is outside of it",
                hint="write below its own folder; once it is committed, that is its source's",
            )
        raise AccessDenied(
            f"{self.home} may not {verb} {path}",
            hint="use your own folder, your group's or /shared, or ask the owner of the path to share it",
        )

    def check_below(self, folder: str, path: str, *, is_write: bool) -> None:
        """Return if a path at or below a folder that was named may be used. The name of one that may not be read is not told.

        Raises:
            AccessDenied: It may not.
        """
        if self.may_write(path) if is_write else self.may_read(path):
            return
        if path == folder or self.may_read(path):
            self.check(path, is_write=is_write)
        raise AccessDenied(
            f"{self.home} may not {'change' if is_write else 'read'} all of {folder}",
            hint="give what is in it one by one; `aios policy explain` shows which policies decide",
        )

    def _is_writable(self, path: str) -> bool:
        return is_within(path, self.home) or (not self.is_confined and self._is_common(path))

    def _is_readable(self, path: str) -> bool:
        return (
            is_within(path, self.home)
            or self._is_common(path)
            or any(is_within(path, each) for each in self.readable)
        )

    def _is_common(self, path: str) -> bool:
        """Whether it is one of those that others may change, too."""
        common = (self.group, f"/{SHARED}", *self.writable)
        return any(is_within(path, each) for each in common if each)

    def _objection(self, path: str, *, is_write: bool) -> str:
        return self.judge(path, is_write) if self.judge is not None else ""


@lru_cache(maxsize=1_000)
def parse(text: str, home: str) -> str:
    """The canonical form of a path, which begins with `/` and ends without one.

    Args:
        text: What the caller gave; relative ones are below `home`, empty is `home` itself.
        home: The caller's folder in canonical form.

    Raises:
        InvalidCall: It is too long, climbs, or has characters that hide what it is.
    """
    joined = text if text.startswith("/") else f"{home}/{text}"
    if "\0" in joined:
        raise InvalidCall("a path may not hold NUL", hint="leave it out")
    # NFKC makes one name of the look-alikes that people cannot tell apart: full-width dots and slashes become plain
    # ones first, and are judged as such then.
    folded = unicodedata.normalize("NFKC", joined) if not joined.isascii() else joined
    parts = [part for part in folded.split("/") if part not in ("", ".")]
    for part in parts:
        _check_part(part)
    path = "/" + "/".join(parts)
    if len(parts) > MAX_PARTS or len(path.encode()) > MAX_PATH_BYTES:
        raise InvalidCall(
            f"a path has at most {MAX_PARTS} parts and {MAX_PATH_BYTES} bytes",
            hint="use a shorter one",
        )
    return path


def _check_part(part: str) -> None:
    if part == "..":
        raise InvalidCall("a path may not climb with `..`", hint="write out where it goes")
    if part.isascii() and part.isprintable() and len(part) <= MAX_PART_BYTES and "\\" not in part:
        return
    if "\\" in part:
        raise InvalidCall("a path may not hold a backslash", hint="parts are separated by /")
    bad = [char for char in part if unicodedata.category(char) in FORBIDDEN_CATEGORIES]
    if bad:
        raise InvalidCall(
            f"a path may not hold the invisible character U+{ord(bad[0]):04X}", hint="leave it out"
        )
    if len(part.encode()) > MAX_PART_BYTES:
        raise InvalidCall(
            f"a part of a path has at most {MAX_PART_BYTES} bytes", hint="use a shorter name"
        )


def file_path(path: str, *, is_whole: bool = False) -> str:
    """The path, if a file may be there; with `is_whole` also that of a mount, or `/shared`.

    Raises:
        InvalidCall: It is one of the folders that hold everything.
    """
    depth = path.count("/")
    if path in HOLDERS or (depth < 2 and not is_whole):
        raise InvalidCall(f"{path} is a folder", hint="give the path of what is in it")
    return path


def is_within(path: str, folder: str) -> bool:
    """Whether a path is `folder` or below it; both in canonical form."""
    return folder == "/" or path == folder or path.startswith(f"{folder}/")


def parent(path: str) -> str:
    """The folder that a path is in."""
    return path.rpartition("/")[0] or "/"


def root_of(path: str) -> str:
    """The folder whose quota a path counts for: `/agents/ann`, `/groups/owner`, `/shared` or a mount."""
    parts = path.split("/")
    return "/".join(parts[: 3 if parts[1] in (AGENTS, GROUPS, WORKSPACES, CHECKPOINTS) else 2])


def ancestors(path: str) -> list[str]:
    """The folders above a path, nearest first, without `/`."""
    found = []
    while (path := parent(path)) != "/":
        found.append(path)
    return found
