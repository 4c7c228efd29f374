"""Branches that are tried side by side: `client.branches.start(n)`, `commit`, `join`, `discard`; and the same for plain code.

fork = client.branches.start(3)
if fork.index:  # in a branch: from here on its own files, notes and words
    client.branches.commit(solve(fork.index))
print(client.branches.join(fork.group).result)
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aios.abi.branches import (
    Branch,
    BranchCommit,
    BranchDiscard,
    Branched,
    BranchEnd,
    BranchGroup,
    BranchJoin,
    BranchList,
)
from aios.abi.budget import Limits
from aios.abi.types import Pid
from aios.sdk.requests import build, listed

if TYPE_CHECKING:
    from aios.abi.gate import Gate
    from aios.sdk.blocking import BlockingGate


class Branches:
    """The branches of this process, and of those below it."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate

    async def start(
        self,
        n: int = 2,
        *,
        pid: int | None = None,
        at: int | None = None,
        instructions: Sequence[str] = (),
        budget: Limits | None = None,
        may_act: bool = False,
    ) -> Branched:
        """Start `n` branches of this process from here, or of another from its last call or call `at`.

        Where a process branches itself, all of them return from this call: the process with `index` 0, its branches with their numbers.

        Args:
            n: How many.
            pid: A descendant; None for this process.
            at: The last call in common.
            instructions: What each chat of each branch ends with, one a branch.
            budget: What each may spend; an equal share of what the source has left when None. All of it is the source's.
            may_act: Their tools may do what cannot be taken back, and their programs change the host.

        Raises:
            Conflict: It is no program, or the kernel keeps no journal on disk.
            NotFound: No such process or call.
        """
        call = start_call(n, pid, at, instructions=instructions, budget=budget, may_act=may_act)
        return (await self._gate.call(call)).value

    async def commit(self, result: str = "", *, pid: int | None = None) -> BranchEnd:
        """Give the source what this branch changed, or that of `pid`, and end the others, which leave nothing; the first one wins.

        Where a branch commits itself this is its last call: it ends with `result`.

        Raises:
            Conflict: Another was first, or others changed the same files at the source meanwhile; nothing is merged then.
            NotFound: It is no branch.
        """
        call = build(BranchCommit, pid=None if pid is None else Pid(pid), result=result)
        return (await self._gate.call(call)).value

    async def discard(self, group: int) -> BranchEnd:
        """End all branches of a group and remove what they made."""
        return (await self._gate.call(build(BranchDiscard, group=group))).value

    async def join(self, group: int, *, deadline_s: float | None = None) -> BranchEnd:
        """Wait until a branch is committed, or all have ended; then `winner` is None, and each can still be committed."""
        return (await self._gate.call(build(BranchJoin, group=group, deadline_s=deadline_s))).value

    async def list_all(self) -> tuple[BranchGroup, ...]:
        """The groups whose source this process reaches, the latest first."""
        return (await self._gate.call(BranchList())).value.groups


class BlockingBranches:
    """`Branches` for code that waits; its methods say more."""

    def __init__(self, gate: "BlockingGate") -> None:
        self._gate = gate

    def start(
        self,
        n: int = 2,
        *,
        pid: int | None = None,
        at: int | None = None,
        instructions: Sequence[str] = (),
        budget: Limits | None = None,
        may_act: bool = False,
    ) -> Branched:
        """Start `n` branches of this process from here, or of another."""
        call = start_call(n, pid, at, instructions=instructions, budget=budget, may_act=may_act)
        return self._gate.call(call).value

    def commit(self, result: str = "", *, pid: int | None = None) -> BranchEnd:
        """Give the source what a branch changed, and end its group."""
        call = build(BranchCommit, pid=None if pid is None else Pid(pid), result=result)
        return self._gate.call(call).value

    def discard(self, group: int) -> BranchEnd:
        """End all branches of a group and remove what they made."""
        return self._gate.call(build(BranchDiscard, group=group)).value

    def join(self, group: int, *, deadline_s: float | None = None) -> BranchEnd:
        """Wait until a branch is committed, or all have ended."""
        return self._gate.call(build(BranchJoin, group=group, deadline_s=deadline_s)).value

    def list_all(self) -> tuple[BranchGroup, ...]:
        """The groups whose source this process reaches."""
        return self._gate.call(BranchList()).value.groups


def start_call(
    n: int,
    pid: int | None,
    at: int | None,
    *,
    instructions: Sequence[str],
    budget: Limits | None,
    may_act: bool,
) -> Branch:
    """The call `branch` from arguments."""
    return build(
        Branch,
        n=n,
        pid=None if pid is None else Pid(pid),
        at=at,
        instructions=listed(instructions),
        budget=budget,
        may_act=may_act,
    )
