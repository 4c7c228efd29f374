"""Which policies there are, by name. Pure."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from aios.config import SchedulerConfig
from aios.kernel.scheduler.fair import BorrowedVirtualTime, Fair
from aios.kernel.scheduler.policy import Edf, Fifo, Mlfq, Policy, Priority, RoundRobin

POLICIES: Mapping[str, Callable[[SchedulerConfig], Policy]] = MappingProxyType(
    {kind.name: kind for kind in (Fifo, RoundRobin, Priority, Mlfq, Fair, BorrowedVirtualTime, Edf)}
)


def make_policy(config: SchedulerConfig) -> Policy:
    """The policy that the configuration names."""
    return POLICIES[config.policy](config)
