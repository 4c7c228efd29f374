"""Checkpoints: `client.checkpoints.save(pid)`, `restore`, `list_all`, `remove`; and the same for plain code."""

from typing import TYPE_CHECKING

from aios.abi.budget import Limits
from aios.abi.checkpoints import (
    Checkpoint,
    CheckpointInfo,
    CheckpointList,
    CheckpointRemove,
    CheckpointRestore,
    Restored,
)
from aios.abi.types import Pid
from aios.sdk.requests import build

if TYPE_CHECKING:
    from aios.abi.gate import Gate
    from aios.sdk.blocking import BlockingGate


class Checkpoints:
    """Processes put away, to come back to them."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate

    async def save(self, pid: int | None = None, *, name: str | None = None) -> CheckpointInfo:
        """Put a program away as it is now; this one without `pid`. It goes on, and the checkpoint is kept until it is removed.

        Raises:
            Conflict: It is no program, the kernel keeps no journal on disk, or a checkpoint of that name is there.
        """
        return (await self._gate.call(save_call(pid, name))).value

    async def restore(
        self,
        which: str | int,
        *,
        name: str | None = None,
        budget: Limits | None = None,
        may_differ: bool = False,
    ) -> Restored:
        """Start a program from a checkpoint, under its old name if nobody has that; see the call `checkpoint_restore`.

        Args:
            which: The checkpoint's id or name.
            name: Begin under this name, in a folder of its own.
            budget: What it may spend; what the process had left when None.
            may_differ: Also if its code has changed since.

        Raises:
            Conflict: Its code has changed.
            NotFound: No such checkpoint.
        """
        call = restore_call(which, name, budget=budget, may_differ=may_differ)
        return (await self._gate.call(call)).value

    async def list_all(self) -> tuple[CheckpointInfo, ...]:
        """The checkpoints, the latest first."""
        return (await self._gate.call(CheckpointList())).value.checkpoints

    async def remove(self, which: str | int) -> None:
        """Remove a checkpoint, and what only it holds."""
        await self._gate.call(build(CheckpointRemove, which=str(which)))


class BlockingCheckpoints:
    """`Checkpoints` for code that waits; its methods say more."""

    def __init__(self, gate: "BlockingGate") -> None:
        self._gate = gate

    def save(self, pid: int | None = None, *, name: str | None = None) -> CheckpointInfo:
        """Put a program away as it is now; this one without `pid`."""
        return self._gate.call(save_call(pid, name)).value

    def restore(
        self,
        which: str | int,
        *,
        name: str | None = None,
        budget: Limits | None = None,
        may_differ: bool = False,
    ) -> Restored:
        """Start a program from a checkpoint."""
        call = restore_call(which, name, budget=budget, may_differ=may_differ)
        return self._gate.call(call).value

    def list_all(self) -> tuple[CheckpointInfo, ...]:
        """The checkpoints, the latest first."""
        return self._gate.call(CheckpointList()).value.checkpoints

    def remove(self, which: str | int) -> None:
        """Remove a checkpoint."""
        self._gate.call(build(CheckpointRemove, which=str(which)))


def save_call(pid: int | None, name: str | None) -> Checkpoint:
    """The call `checkpoint` from arguments."""
    return build(Checkpoint, pid=None if pid is None else Pid(pid), name=name)


def restore_call(
    which: str | int, name: str | None, *, budget: Limits | None, may_differ: bool
) -> CheckpointRestore:
    """The call `checkpoint_restore` from arguments."""
    return build(
        CheckpointRestore, which=str(which), name=name, budget=budget, may_differ=may_differ
    )
