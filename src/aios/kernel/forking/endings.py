"""How groups of branches end: who wins, who leaves nothing, and what is remembered of it. Values only."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from aios.abi.branches import BranchEnd
from aios.abi.types import Pid
from aios.kernel.forking.tables import Group, Limb
from aios.kernel.lineage import home_of
from aios.kernel.process import Process


@dataclass
class Ending:
    """How groups end: one with a winner or none, and those that were branched off of its branches."""

    group: Group
    winner: Limb | None
    result: str = ""
    nested: list[Group] = field(default_factory=list)
    """Those others; known once all branches are held."""
    notes: tuple[int, ...] = ()
    """Those of which the index must be told."""
    is_erased: bool = False
    """Of the files of its branches nothing is left."""
    spared: frozenset[str] = frozenset()
    """Folders that are others' by now."""

    @property
    def groups(self) -> list[Group]:
        """All that end."""
        return [self.group, *self.nested]

    @property
    def folders(self) -> list[tuple[str, str]]:
        """Those of all branches, each with that of its source."""
        pairs = ((limb.home, group.home) for group in self.groups for limb in group.limbs)
        return [pair for pair in pairs if pair[0] not in self.spared]

    @property
    def losers(self) -> list[tuple[Group, Limb]]:
        """The branches that leave nothing."""
        pairs = ((group, limb) for group in self.groups for limb in group.limbs)
        return [(group, limb) for group, limb in pairs if limb is not self.winner]


def homes_since(
    group: Group, groups: Iterable[Group], processes: Iterable[Process]
) -> frozenset[str]:
    """The folders of others, who may have got the name of a branch of a group since that ended: what is in them is theirs."""
    later = (each for each in groups if each.id > group.id)
    homes = {limb.home for each in later for limb in each.limbs}
    return frozenset(homes | {home_of(each.lineage) for each in processes if each.pid not in group.pids})  # fmt: skip


def losers_of(group: Group) -> list[Pid]:
    """The branches of a group that has ended which leave nothing."""
    winner = group.end.winner if group.end is not None else None
    return [pid for pid in group.pids if pid != winner]


def ended(group: Group, end: BranchEnd, *, is_erased: bool) -> Group:
    """A group as it is behind the decision; one that was nested in a branch goes with that."""
    if group.id == end.group:
        state = "discarded" if end.winner is None else "committed"
        return msgspec.structs.replace(group, end=end, state=state, is_erased=is_erased)
    mine = BranchEnd(group.id, None, "", 0, group.pids, ())
    return msgspec.structs.replace(group, end=mine, state="discarded", is_erased=is_erased)
