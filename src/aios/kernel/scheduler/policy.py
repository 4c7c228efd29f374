"""Policies: in which order tickets that wait are served, and how long a turn lasts when somebody better waits. Pure.

A rank is given when a ticket is queued and stays while it waits, so a decision costs O(log n) however many wait. Ageing needs
no recomputation either: all that wait age alike, so `queued_s + penalty_s` orders them for good, and a ticket that is
`penalty_s` behind is served first once it has waited that much longer. Nobody starves: every rank is bounded by the time of
queueing plus a constant.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from aios.abi.types import Pid

Rank = tuple[float, ...]

QUANTUM_TOKENS = 32
NICE_STEP_S = 2.0
"""A nice value of one more is worth as much as having come this much later."""
LEVEL_STEP_S = 10.0
"""The same for a level of `Mlfq`."""
FIRST_LEVEL_TOKENS = 64
N_LEVELS = 8
NO_DEADLINE_S = 600.0
"""A ticket without a deadline is treated by `Edf` as if it had this long."""
TURN_COST_TOKENS = 32.0
"""What `Fair` charges for a turn before it knows what it cost."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A wish for a turn at a resource. `id` grows with arrival; `deadline_s` is on the clock of `now_s`."""

    id: int
    pid: Pid
    resource: str
    nice: int = 0
    owner: str = ""
    deadline_s: float | None = None


class Policy(Protocol):
    """Ranks tickets; the lowest rank is served first."""

    name: str

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:
        """The ticket's rank if it is queued now; `number` grows with every queueing. Changes nothing."""
        ...

    def queued(self, ticket: Ticket) -> None:
        """The ticket was queued with the rank that it was just given."""
        ...

    def granted(self, ticket: Ticket, rank: Rank) -> None:
        """The ticket, which had that rank, got a turn."""
        ...

    def spent(self, ticket: Ticket, n_tokens: int) -> None:
        """The holder of a turn has used the resource for so many tokens."""
        ...

    def done(self, ticket: Ticket) -> None:
        """The ticket left, served or not."""
        ...

    def forget(self, pid: Pid) -> None:
        """The process has ended."""
        ...

    def quantum_tokens(self, ticket: Ticket) -> int | None:
        """Tokens after which a turn ends if somebody better waits; None: it lasts until it is given back."""
        ...


class Fifo:
    """First come, first served; a turn lasts until it is given back."""

    name = "fifo"

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:  # noqa: ARG002 - the contract of all policies
        return (ticket.id,)

    def queued(self, ticket: Ticket) -> None:
        """Nothing to remember."""

    def granted(self, ticket: Ticket, rank: Rank) -> None:
        """Nothing to remember."""

    def spent(self, ticket: Ticket, n_tokens: int) -> None:
        """Nothing to remember."""

    def done(self, ticket: Ticket) -> None:
        """Nothing to forget."""

    def forget(self, pid: Pid) -> None:
        """Nothing to forget."""

    def quantum_tokens(self, ticket: Ticket) -> int | None:  # noqa: ARG002 - the contract of all policies
        return None


class RoundRobin(Fifo):
    """Everyone in turn, a quantum each."""

    name = "rr"

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:  # noqa: ARG002 - the contract of all policies
        return (number,)

    def quantum_tokens(self, ticket: Ticket) -> int | None:  # noqa: ARG002 - the contract of all policies
        return QUANTUM_TOKENS


class Priority(RoundRobin):
    """The least nice first, with ageing."""

    name = "priority"

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:
        return (now_s + ticket.nice * NICE_STEP_S, number)


class Mlfq(RoundRobin):
    """Programs that have used the model least come first, in levels, with ageing; niceness shifts the level.

    A program's level follows from the service of all its calls together, so a long agent does not become new with each
    call. Source: PLAS of Agentix/Autellix, arXiv 2502.13965; multi-level feedback queues after Corbató 1962.
    """

    name = "mlfq"

    def __init__(self) -> None:
        self._attained: dict[Pid, int] = {}

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:
        penalty_s = self.level(ticket.pid) * LEVEL_STEP_S + ticket.nice * NICE_STEP_S
        return (now_s + penalty_s, number)

    def spent(self, ticket: Ticket, n_tokens: int) -> None:
        self._attained[ticket.pid] = self._attained.get(ticket.pid, 0) + n_tokens

    def forget(self, pid: Pid) -> None:
        self._attained.pop(pid, None)

    def quantum_tokens(self, ticket: Ticket) -> int | None:
        return QUANTUM_TOKENS << min(self.level(ticket.pid), 3)

    def level(self, pid: Pid) -> int:
        """0 for a new program; one more each time that its service has doubled."""
        doublings = (self._attained.get(pid, 0) // FIRST_LEVEL_TOKENS).bit_length()
        return min(doublings, N_LEVELS - 1)


class Fair(RoundRobin):
    """Owners share the model by weight, however many agents each has.

    Start-time fair queueing over tokens: a turn is tagged with its owner's virtual time, and virtual time moves by tokens
    over weight. An owner that was idle starts at the present and gains nothing from having been so. Source: virtual token
    counters, VTC, arXiv 2401.00588; start tags after Goyal et al., SFQ, 1996.
    """

    name = "fair"

    def __init__(self, weights: Mapping[str, float] = MappingProxyType({})) -> None:
        self._weights = weights
        self._now = 0.0
        self._finish: dict[str, float] = {}
        self._charged: dict[int, float] = {}

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:  # noqa: ARG002 - the contract of all policies
        return (max(self._now, self._finish.get(ticket.owner, 0.0)), ticket.nice, number)

    def queued(self, ticket: Ticket) -> None:
        start = max(self._now, self._finish.get(ticket.owner, 0.0))
        self._finish[ticket.owner] = start + TURN_COST_TOKENS / self._weight(ticket.owner)
        self._charged[ticket.id] = self._charged.get(ticket.id, 0.0) + TURN_COST_TOKENS

    def spent(self, ticket: Ticket, n_tokens: int) -> None:
        """Charge what goes beyond the charge at queueing; the present moves to where the served owner stands."""
        left = self._charged.get(ticket.id, 0.0) - n_tokens
        self._charged[ticket.id] = max(left, 0.0)
        if left < 0:
            owner = ticket.owner
            self._finish[owner] = self._finish.get(owner, 0.0) - left / self._weight(owner)

    def granted(self, ticket: Ticket, rank: Rank) -> None:  # noqa: ARG002 - the contract of all policies
        """The present is the start tag of the turn that was granted last."""
        self._now = max(self._now, rank[0])

    def done(self, ticket: Ticket) -> None:
        """Give back what a ticket was charged and did not use."""
        left = self._charged.pop(ticket.id, 0.0)
        owner = ticket.owner
        self._finish[owner] = max(
            self._now, self._finish.get(owner, 0.0) - left / self._weight(owner)
        )

    def _weight(self, owner: str) -> float:
        return self._weights.get(owner, 1.0)


class Edf(RoundRobin):
    """The earliest deadline first; without one, as if it had ten minutes from its arrival."""

    name = "edf"

    def __init__(self, no_deadline_s: float = NO_DEADLINE_S) -> None:
        self.no_deadline_s = no_deadline_s

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:
        due_s = now_s + self.no_deadline_s if ticket.deadline_s is None else ticket.deadline_s
        return (due_s, number)


POLICIES: dict[str, Callable[[], Policy]] = {
    kind.name: kind for kind in (Fifo, RoundRobin, Priority, Mlfq, Fair, Edf)
}
