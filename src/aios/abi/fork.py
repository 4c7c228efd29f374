"""The call that branches a process off at a point of its past. What it does is `kernel/forking/forks.py`."""

from typing import Annotated

from msgspec import Meta

from aios.abi.budget import Limits
from aios.abi.call import Answer, Call
from aios.abi.types import MAX_INT, Name, Pid, ShortText


class Forked(Answer, frozen=True):
    """A branch: `at` is the last call that it has in common with what it was forked from."""

    pid: Pid
    name: str
    at: int


class Fork(Call[Forked], frozen=True):
    """Start a program's code again as a child of the caller, told by the journal what process `pid` was told up to call `at`, live behind it.

    Without `at`, up to its last call that ended. The branch has the contexts that the process had then, its mail, its short-term memory and the
    files of its folder as they were then, in a folder of its own, and its journal up to there; no model is asked again for any of it. With
    `instruction`, every chat behind `at` ends with it. `env` is the program's environment where the kernel no longer has it: after the process has
    ended. `budget` bounds what the branch may spend; without it, the branch spends of what the process has left of its own.

    Raises:
        Conflict: The process is the caller, no program, or the kernel keeps no journal on disk.
        NotFound: It has no such call, or the journal no longer has what was before it.
        TooLarge: As for `branch`.
    """

    pid: Pid
    at: Annotated[int, Meta(ge=0, le=MAX_INT)] | None = None
    instruction: ShortText = ""
    name: Name | None = None
    budget: Limits | None = None
    env: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=256)], ShortText], Meta(max_length=256)
    ] = {}  # noqa: RUF012 - msgspec copies it
