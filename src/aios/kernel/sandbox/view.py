"""Which folders of the host a process may see: its own, and so the most that it can hand to a child. Pure.

The owner's programs get what the command names; a program's children get at most what it has itself. A path is judged as
it is given, after symlinks were resolved by the caller.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import Struct

from aios.errors import AccessDenied, InvalidCall


class View(Struct, frozen=True):
    """The part of the host that a process sees, beside the system's own programs.

    Attributes:
        cwd: Where it works.
        readable: What it may read.
        writable: What it may change.
    """

    cwd: Path
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()

    def may_write(self, path: Path) -> bool:
        """Whether it may change what is at `path`."""
        return any(path.is_relative_to(root) for root in self.writable)

    def may_read(self, path: Path) -> bool:
        """Whether it may read what is at `path`."""
        return self.may_write(path) or any(path.is_relative_to(root) for root in self.readable)


class Asked(Struct, frozen=True):
    """What a call asks for a new process, beside its program and its workspace."""

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()


def view_of(parent: View | None, asked: Asked | None, *, program: Path, cwd: Path) -> View:
    """The view of a new process.

    Args:
        parent: What its parent sees; None: all, as the owner does.
        asked: More than its program and its workspace; None: as much as its parent sees.
        program: The program's folder; it can read it.
        cwd: Its workspace, which it may change if its parent may.

    Raises:
        AccessDenied: The parent does not see one of these itself.
        InvalidCall: One of these is the whole machine.
    """
    if asked is None:
        asked = Asked() if parent is None else Asked(parent.readable, parent.writable)
    if Path("/") in (program, cwd, *asked.read, *asked.write):
        raise InvalidCall(
            "a program cannot be given the whole machine", hint="name the folder that it needs"
        )
    readable, writable = [program, *asked.read], [*asked.write]
    (writable if parent is None or parent.may_write(cwd) else readable).append(cwd)
    if parent is not None:
        _check(readable, parent.may_read, "see")
        _check(writable, parent.may_write, "change")
    return View(cwd, tuple(dict.fromkeys(readable)), tuple(dict.fromkeys(writable)))


def _check(paths: Iterable[Path], is_allowed: Callable[[Path], bool], verb: str) -> None:
    for path in paths:
        if not is_allowed(path):
            raise AccessDenied(
                f"the parent may not {verb} {path} itself",
                hint="a child gets at most what its parent has; `aios run --read`, `--write` give more",
            )
