"""The calls about branches that are tried side by side: one is committed, the others leave nothing. What they do is `kernel/forking/branches.py`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aios.abi.budget import Limits
from aios.abi.call import Answer, Call
from aios.abi.fork import Forked
from aios.abi.types import MAX_INT, Count, Pid, ShortText

GroupId = Annotated[int, Meta(ge=1, le=MAX_INT)]
"""The branches of one call; given once."""
GroupState = Literal["open", "committed", "discarded"]
MAX_BRANCHES = 256


class Branched(Answer, frozen=True):
    """Branches from one point. `index` is 0 for the caller; a branch that began in its own process's call is told its number here."""

    group: GroupId
    index: Count
    branches: tuple[Forked, ...]


class Branch(Call[Branched], frozen=True):
    """Start `n` branches of a program from one point, all or none: as `fork` does, but held in until one is committed.

    Without `pid` the caller branches itself: each branch runs up to this very call, and its answer there says which it is. A branch may
    read what its source may; it changes only files of its own folder, its own notes and its own short-term memory, writes mail only to those above
    it and within it, and runs no tool whose effect is compensable or irreversible, unless `may_act`. Its programs see the host read-only and reach no
    network, unless `may_act`. With `instructions`, every chat of branch i behind the point ends with the i-th. All spend from the
    budget of their source; each has an equal share of what that has left, or `budget`.

    Raises:
        Conflict: The process is no program, or the kernel keeps no journal on disk.
        InvalidCall: There are instructions, and not `n` of them.
        NotFound: It has no such call, or the journal no longer has what was before it.
        TooLarge: The branches would have over 100,000 files together, or 500,000 records of calls and short-term memory; or with `at` there are over 1,000,000 versions of its files.
    """

    pid: Pid | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_BRANCHES)] = 2
    at: Annotated[int, Meta(ge=0, le=MAX_INT)] | None = None
    instructions: Annotated[tuple[ShortText, ...], Meta(max_length=MAX_BRANCHES)] = ()
    budget: Limits | None = None
    may_act: bool = False


class Lasting(Struct, frozen=True):
    """An effect of a branch outside of AIOS, which nothing here takes back: call `seq` of process `pid`."""

    pid: Pid
    seq: int
    call: str
    effect: str


class BranchEnd(Answer, frozen=True, tag="branch_end"):
    """How a group ended. `winner` None: all were discarded. `discarded` are those that left nothing but `lasting`.

    `taint` is where data that had reached the winner came from outside, empty if none had.
    """

    group: GroupId
    winner: Pid | None
    result: str
    n_changed: Count
    discarded: tuple[Pid, ...]
    lasting: tuple[Lasting, ...]
    taint: str = ""


class BranchCommit(Call[BranchEnd], frozen=True, tag="branch_commit"):
    """Give the source of a branch what the branch changed, at once and whole, and end its group: the first commit wins.

    Without `pid` the caller is the branch: the call is its last one, and `result` what it leaves, as of `exit`. What it changed in its folder
    is changed in that of its source, its notes and its new short-term records are added to those of its source. Then every branch of the
    group ends, and the files, notes, records, mail and journals of the others are removed.

    Raises:
        Conflict: Another was committed, the group was discarded, or files that the branch changed were changed at its source, too; nothing is merged then.
        NotFound: It is no branch.
        TooLarge: It changed over 20,000 files; nothing is merged then.
    """

    pid: Pid | None = None
    result: Annotated[str, Meta(max_length=1 << 16)] = ""


class BranchDiscard(Call[BranchEnd], frozen=True, tag="branch_discard"):
    """End all branches of a group and remove what they made.

    Raises:
        Conflict: One was committed.
        NotFound: No such group.
    """

    group: GroupId


class BranchJoin(Call[BranchEnd], frozen=True, tag="branch_join"):
    """Wait until a group has ended: by a commit, or discarded. If all its branches end and none committed itself, the answer is `winner` None, and the group still open.

    Raises:
        NotFound: No such group.
    """

    group: GroupId


class BranchGroup(Struct, frozen=True):
    """A group of branches. `source` is what they were branched off."""

    group: GroupId
    source: Pid
    source_name: str
    state: GroupState
    begun_unix_s: float
    branches: tuple[Forked, ...]
    winner: Pid | None = None


class BranchGroups(Answer, frozen=True, tag="branch_groups"):
    """Groups, the latest first."""

    groups: tuple[BranchGroup, ...]


class BranchList(Call[BranchGroups], frozen=True, tag="branch_list"):
    """List the groups whose source the caller reaches."""
