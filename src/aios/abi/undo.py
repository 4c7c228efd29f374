"""The call `undo`: take back what a process did to files. `docs/concepts/undo.md` tells what can be taken back and what cannot."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call
from aios.abi.types import Count, Pid


class UndoneAct(Struct, frozen=True):
    """One act of the process: a call about files, or a run of a tool in a workspace. `transaction` numbers it."""

    transaction: Count
    unix_s: float
    message: str
    n_files: Count
    pid: Pid = Pid(0)
    """Whose act it was."""


class UndonePath(Struct, frozen=True):
    """A file that is as it was: `restored` to its content before, `removed` because it was not there, or `remade` because it was deleted.

    `path` is that of the storage manager, `real` that of a file in a workspace; empty for a file that is in none.
    """

    path: str
    real: str
    what: Literal["restored", "removed", "remade"]


class NotUndone(Struct, frozen=True):
    """Something that stays as it is, and why: a path that somebody has changed since, or an effect that files know nothing of."""

    what: str
    why: str
    n: Count = 1


class Undone(Answer, frozen=True):
    """What an `undo` has done; of a dry run what it would do.

    `transaction` is that of the undo itself: `undo` of the caller with `last=1` takes it back. 0: nothing was changed.
    """

    pid: Pid
    is_dry_run: bool
    transaction: Count
    acts: tuple[UndoneAct, ...]
    paths: tuple[UndonePath, ...]
    conflicts: tuple[NotUndone, ...]
    cannot: tuple[NotUndone, ...]


class Undo(Call[Undone], frozen=True):
    """Bring the files that a process has changed back to what they were, by new versions; `last` of its acts only, newest first.

    `with_children`: also what all that descend from it have changed; the `last` are then the newest acts of all of them.
    What somebody else has changed since is told and left. The process may have ended, also under an earlier kernel; the caller must reach it.

    Raises:
        AccessDenied: The caller does not reach the process.
        Conflict: A tool of the process runs in a workspace now.
        InvalidCall: All acts of the owner are asked for; say how many. Or those of all that descend from init.
        NotFound: There is no such process, and it has changed no file.
        TooLarge: Of a program: several acts changed over 20,000 files. Say how many: `last`; of its own, whose newest is then that undo, by `FileRollback` of folders to a moment.
    """

    pid: Pid
    last: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    is_dry_run: bool = False
    with_children: bool = False
