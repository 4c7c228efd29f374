"""Who asks the owner: policies, budgets, and servers that are not what they were. Where nobody is there, none of them does."""

from typing import Protocol

from aios.config import Config
from aios.kernel.access.manager import AccessManager
from aios.kernel.approvals.approvals import Approvals, ApprovalServices
from aios.kernel.approvals.breaches import Breaches
from aios.kernel.approvals.trusting import Trusting
from aios.kernel.signals import Signals
from aios.kernel.spending import Budgets
from aios.kernel.tools.manager import ToolManager


class Asking(ApprovalServices, Protocol):
    """What asks, of the kernel."""

    config: Config
    access: AccessManager
    budgets: Budgets
    signals: Signals
    tools: ToolManager


def open_approvals(kernel: Asking) -> Approvals:
    """The approvals, with all who ask."""
    approvals = Approvals(kernel, kernel.config.approvals)
    if approvals.can_ask:
        kernel.access.on_ask = approvals.decide
        kernel.budgets.asks = Breaches(
            approvals, kernel.budgets, table=kernel.table, signals=kernel.signals, notes=kernel
        )
        kernel.tools.servers.asks = Trusting(approvals, kernel.table)
    return approvals
