"""Groups of branches on disk: one row each, which says what the group is made of and how it ended."""

from collections.abc import Iterable, Sequence

import apsw
import msgspec
from msgspec import Struct

from aios.abi.branches import BranchEnd, BranchGroup, GroupState
from aios.abi.fork import Forked
from aios.abi.types import Pid
from aios.disk.migrations import Schema
from aios.kernel.lineage import agent_at
from aios.readers import from_msgpack

SCHEMA = Schema(
    "branches",
    ("CREATE TABLE branches (grp INTEGER PRIMARY KEY AUTOINCREMENT, row BLOB NOT NULL)",),
)

MAX_ENDED = 1_000
"""Groups that have ended and are remembered, so that who joins late is told."""


class Limb(Struct, frozen=True):
    """A branch: how it is known, and where it began."""

    fork: Forked
    home: str
    last_change: int
    """Of files, when it began."""
    last_record: int
    """Of its short-term memory, when it began."""

    @property
    def agent(self) -> str:
        """What its memory is kept by."""
        return agent_at(self.home)


class Group(Struct, frozen=True):
    """A row. `owner`, `name` and `home` are those of the source."""

    id: int
    source: Pid
    owner: str
    name: str
    home: str
    begun_unix_s: float
    limbs: tuple[Limb, ...]
    state: GroupState = "open"
    end: BranchEnd | None = None
    is_erased: bool = True
    """Of the files of its branches nothing is left, if it has ended."""
    is_swept: bool = False
    """The processes have ended, and what they wrote until then is removed."""

    @property
    def agent(self) -> str:
        """What the memory of the source is kept by."""
        return agent_at(self.home)

    @property
    def pids(self) -> tuple[Pid, ...]:
        """Its branches."""
        return tuple(limb.fork.pid for limb in self.limbs)

    def info(self) -> BranchGroup:
        """What is told of it."""
        forks = tuple(limb.fork for limb in self.limbs)
        winner = self.end.winner if self.end is not None else None
        return BranchGroup(
            self.id, self.source, self.name, self.state, self.begun_unix_s, forks, winner
        )


def save(connection: apsw.Connection, group: Group) -> None:
    """Write a group as it is now."""
    connection.execute(
        "INSERT OR REPLACE INTO branches VALUES (?, ?)", (group.id, msgspec.msgpack.encode(group))
    )


def load(connection: apsw.Connection) -> tuple[list[Group], int]:
    """All groups, and the last number that was given."""
    rows = connection.execute("SELECT row FROM branches ORDER BY grp")
    found = [from_msgpack(row[0], Group) for row in rows]
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'branches'").fetchone()
    return found, 0 if last is None else int(str(last[0]))


def old_of(groups: Sequence[Group]) -> list[int]:
    """Of groups in the order in which they ended, those to be forgotten, so that `MAX_ENDED` are left."""
    return [group.id for group in groups if group.is_swept][:-MAX_ENDED]


def forget(connection: apsw.Connection, groups: Iterable[int]) -> None:
    """Forget groups that have ended."""
    connection.executemany("DELETE FROM branches WHERE grp = ?", ((each,) for each in groups))
