"""The calls that put whole processes away and bring them back. What they do is `kernel/forking/checkpoints.py`."""

from typing import Annotated

from msgspec import Meta

from aios.abi.branches import Lasting
from aios.abi.budget import Limits
from aios.abi.call import Answer, Call, Done
from aios.abi.types import Count, Name, Pid

Which = Annotated[str, Meta(min_length=1, max_length=64)]
"""A checkpoint by its id; or by its name, if there is none of that id."""


class CheckpointInfo(Answer, frozen=True, tag="checkpoint_info"):
    """A process put away behind its call `at`: `n_files` files, `n_letters` letters, `n_pages` pages of KV rows that are pinned on disk."""

    id: Pid
    name: str
    pid: Pid
    process: str
    at: Count
    made_unix_s: float
    n_files: Count
    n_letters: Count
    n_pages: Count


class Checkpoint(Call[CheckpointInfo], frozen=True):
    """Put a program away as it is, to come back to it: its journal, and so its contexts and the moments that it waits for; its files, its short-term memory, its mail.

    The process goes on. Without `pid` it is the caller; whoever is restored from that is told the same answer by this very call. A checkpoint is kept until it is
    removed, also under later kernels, with the environment of the program. Not in it: notes, which are the agent's, children, locks, tools, and what it did outside of AIOS.

    Raises:
        Conflict: The process is no program, the kernel keeps no journal on disk, or a checkpoint of that name is there.
        ResourceExhausted: There are as many as may be.
        TooLarge: It has over 100,000 files, or 500,000 records of calls and short-term memory.
    """

    pid: Pid | None = None
    name: Name | None = None


class Restored(Answer, frozen=True):
    """A process that goes on from a checkpoint. `is_in_place`: under its old name, in its old folder. `lasting` is what its source did outside of AIOS since; it stays."""

    pid: Pid
    name: str
    at: Count
    is_in_place: bool
    lasting: tuple[Lasting, ...]


class CheckpointRestore(Call[Restored], frozen=True, tag="checkpoint_restore"):
    """Start a program from a checkpoint: told its journal, live behind it. The checkpoint stays.

    If no living process has the name that it had, it goes on under that, and its folder and its short-term memory are what they were then: later files
    are deleted as versions, which `file_rollback` brings back; later records are gone. Else, or with `name`, it begins beside the others, in a folder of its own; so does what was put away in a branch, and it is no branch. It spends
    from the budget of the process that was put away, as long as that is remembered, and at most what that had left then; or `budget`.

    Raises:
        AccessDenied: The caller is not the owner of the kernel, and does not reach the process that was put away.
        Conflict: The code of the program is not what the process ran, and `may_differ` is not set; or its name was taken meanwhile.
        NotFound: No such checkpoint.
        TooLarge: With what is in its folder now it has over 100,000 files; with `name` it begins in another.
    """

    which: Which
    name: Name | None = None
    budget: Limits | None = None
    may_differ: bool = False


class CheckpointInfos(Answer, frozen=True, tag="checkpoint_infos"):
    """Checkpoints, the latest first."""

    checkpoints: tuple[CheckpointInfo, ...]


class CheckpointList(Call[CheckpointInfos], frozen=True, tag="checkpoint_list"):
    """List the checkpoints that the caller may restore."""


class CheckpointRemove(Call[Done], frozen=True, tag="checkpoint_remove"):
    """Remove a checkpoint, and what only it holds.

    Raises:
        AccessDenied: As `checkpoint_restore`.
        NotFound: No such checkpoint.
    """

    which: Which
