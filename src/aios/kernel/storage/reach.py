"""What each process reaches: its own folder, its group's, and what was shared with them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aios.abi.storage import Share
from aios.abi.types import Kind
from aios.kernel.lineage import home_of
from aios.kernel.process import Process
from aios.kernel.storage.paths import GROUPS, Judge, Reach, is_within

if TYPE_CHECKING:
    from aios.kernel.access.manager import AccessManager

MAX_ALLOWED = 1_000
"""Kinds of paths that are known to be allowed to a process."""


class Reaches:
    """The reach of every process, from its lineage and from all shares, which are held in memory."""

    def __init__(self) -> None:
        self.access: AccessManager | None = None
        self._shares: tuple[Share, ...] = ()
        self.is_loaded = False
        self._known: dict[int, Reach] = {}

    def load(self, shares: Iterable[Share]) -> None:
        """These are the shares now."""
        self._shares = tuple(shares)
        self._known.clear()
        self.is_loaded = True

    def of(self, process: Process) -> Reach:
        """What a process reaches."""
        found = self._known.get(process.pid)
        if found is None:
            found = self._known[process.pid] = self._make(process)
        return found

    def forget(self, process: Process) -> None:
        """The process has ended."""
        self._known.pop(process.pid, None)

    def shares_of(self, process: Process) -> list[Share]:
        """The shares of paths of a process's own, and those that it profits from."""
        reach = self.of(process)
        return [
            share
            for share in self._shares
            if is_within(share.path, reach.home) or _is_for(share, reach)
        ]

    def _make(self, process: Process) -> Reach:
        bare = Reach(home_of(process.lineage), group_of(process))
        mine = [share for share in self._shares if _is_for(share, bare)]
        writable = frozenset(share.path for share in mine if share.access == "write")
        readable = frozenset(share.path for share in mine)
        return Reach(
            bare.home,
            bare.group,
            readable,
            writable,
            is_confined=process.confines is not None,
            judge=self._judge(process),
        )

    def _judge(self, process: Process) -> Judge | None:
        """What policies say to a path that the process reaches; a question cannot be put in the middle of a transaction."""
        access = self.access
        if access is None:
            return None

        # It is replaced, never emptied: a write judges in a thread of its own, and may add what holds no more.
        allowed: set[tuple[str, bool]] = set()
        standing: object = None
        """What the policies know of the process; what they allowed holds as long as that is the same."""

        def judge(path: str, is_write: bool) -> str:
            nonlocal allowed, standing
            now = (access.policies, process.bounds, process.owner, process.taint is None)
            if standing != now or len(allowed) >= MAX_ALLOWED:
                allowed, standing = set(), now
            known = allowed
            like = access.like_path(path, is_write=is_write)
            if (like, is_write) in known:
                return ""
            decision = access.judge_path(process, path, is_write=is_write)
            if decision.is_allowed:
                known.add((like, is_write))
                return ""
            return "; ".join(decision.reasons)

        return judge


def group_of(process: Process) -> str:
    """The folder of a process's group: that of its owner. A guest, which names itself, has none."""
    if process.kind is Kind.GUEST:
        return ""
    return f"/{GROUPS}/{process.owner.replace('/', '+')}"


def _is_for(share: Share, reach: Reach) -> bool:
    """Whether a share is for this process, or for one above it: what an agent may read, those that it started may too."""
    return is_within(reach.home, share.grantee) or share.grantee == reach.group
