"""Which policies there are, by name, and one of them for all resources. Pure."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from aios.abi.types import Pid
from aios.config import SchedulerConfig
from aios.kernel.scheduler.fair import BorrowedVirtualTime, Fair
from aios.kernel.scheduler.policy import Edf, Fifo, Mlfq, Policy, Priority, RoundRobin, Ticket
from aios.kernel.scheduler.queue import Rank

POLICIES: Mapping[str, Callable[[SchedulerConfig], Policy]] = MappingProxyType(
    {kind.name: kind for kind in (Fifo, RoundRobin, Priority, Mlfq, Fair, BorrowedVirtualTime, Edf)}
)


class ForEachResource:
    """A policy that remembers of each resource what was served there, and nothing of what was served elsewhere.

    With one account for all, the busiest engine would move the present past the claims that owners have on the others, and what is
    left there is first come, first served (Jain's index 0.60 with ten times the agents, not 1.0).
    """

    def __init__(self, make: Callable[[SchedulerConfig], Policy], config: SchedulerConfig) -> None:
        first = make(config)
        self.name, self.config, self.margin = first.name, config, first.margin
        self._policies = defaultdict[str, Policy](partial(make, config))

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:
        return self._policies[ticket.resource].rank(ticket, number=number, now_s=now_s)

    def queued(self, ticket: Ticket) -> None:
        self._policies[ticket.resource].queued(ticket)

    def granted(self, ticket: Ticket, rank: Rank) -> None:
        self._policies[ticket.resource].granted(ticket, rank)

    def spent(self, ticket: Ticket, n_tokens: int) -> None:
        self._policies[ticket.resource].spent(ticket, n_tokens)

    def held(self, ticket: Ticket) -> None:
        self._policies[ticket.resource].held(ticket)

    def done(self, ticket: Ticket) -> None:
        self._policies[ticket.resource].done(ticket)

    def forget(self, pid: Pid) -> None:
        for policy in self._policies.values():
            policy.forget(pid)

    def quantum_tokens(self, ticket: Ticket) -> int | None:
        return self._policies[ticket.resource].quantum_tokens(ticket)

    def is_urgent(self, ticket: Ticket) -> bool:
        return self._policies[ticket.resource].is_urgent(ticket)

    def level(self, ticket: Ticket) -> int | None:
        return self._policies[ticket.resource].level(ticket)


def make_policy(config: SchedulerConfig) -> Policy:
    """The policy that the configuration names, for all resources."""
    return ForEachResource(POLICIES[config.policy], config)
