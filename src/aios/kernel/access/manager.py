"""The access manager: one check for every system call, on every path."""

from aios.abi.types import Right
from aios.errors import AccessDenied
from aios.kernel.process import INIT_PID, Process
from aios.kernel.process_table import ProcessTable


class AccessManager:
    """Decides whether a process may use a right, and on which process.

    Besides init, a process reaches only itself and its descendants.
    """

    def __init__(self, table: ProcessTable) -> None:
        self._table = table
        self._n_checks = 0
        self._n_denied = 0

    def check(self, process: Process, right: Right, target: Process | None = None) -> None:
        """Return if it is allowed.

        Raises:
            AccessDenied: It is not; the message says which right is lacking and where.
        """
        self._n_checks += 1
        if right not in process.rights:
            self._n_denied += 1
            raise AccessDenied(
                f"process {process.pid} ({process.name}) has no right `{right.value}`",
                hint="a right can only come from its parent; the owner's token has all of them",
            )
        if target is not None and not self.may_reach(process, target):
            self._n_denied += 1
            raise AccessDenied(
                f"process {process.pid} ({process.name}) may not use `{right.value}` on process {target.pid}",
                hint="a process reaches only itself and its descendants",
            )

    def may_reach(self, process: Process, target: Process) -> bool:
        """Whether `target` is in the part of the tree that `process` rules."""
        return process.pid == INIT_PID or self._table.is_within(target, process)

    def may_write_to(self, process: Process, target: Process) -> bool:
        """Whether `process` may send mail to `target`: to those of its own owner, and to all that it rules."""
        return process.owner == target.owner or self.may_reach(process, target)

    def statistics(self) -> dict[str, int]:
        """How many checks there were and how many failed."""
        return {"n_checks": self._n_checks, "n_denied": self._n_denied}
