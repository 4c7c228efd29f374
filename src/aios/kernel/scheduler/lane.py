"""One resource as the scheduler sees it: how many turns at once, who holds them, who waits. Pure.

The *working set* are the contexts that have begun and not ended: those in slots, and those that were taken out of one and
wait for another, whose pages must be kept. Where it would outgrow its budget, a call that has not begun waits, however good
its rank: otherwise all are slowed by pages that are dropped before they are used again. Calls that have begun go on.
Source: CONCUR, arXiv 2601.22705.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from aios.kernel.scheduler.queue import Rank, RankedQueue


@dataclass
class Holding:
    """A turn that is taken: the rank with which it was granted, and the tokens used since."""

    rank: Rank
    n_tokens: int = 0


@dataclass
class Lane:
    """The turns of one resource.

    Args:
        capacity: Turns at once.
        is_preemptible: A turn can be ended before its call is done.
        budget_tokens: What the working set may hold; None where nothing is kept outside the slots.
    """

    capacity: int
    is_preemptible: bool = True
    budget_tokens: int | None = None
    granted: dict[int, Holding] = field(default_factory=dict)
    yielding: set[int] = field(default_factory=set)
    """Turns that were asked to make room for somebody better and still hold on."""
    _fresh: RankedQueue = field(default_factory=RankedQueue)
    _begun: RankedQueue = field(default_factory=RankedQueue)
    _working_set: dict[int, int] = field(default_factory=dict)
    """Tokens of each context that has begun."""
    _working_set_tokens: int = 0
    _needs: dict[int, int] = field(default_factory=dict)
    """Tokens that the contexts of those will need that have not begun."""

    @property
    def n_queued(self) -> int:
        """Tickets that wait."""
        return len(self._fresh) + len(self._begun)

    @property
    def working_set_tokens(self) -> int:
        """Tokens of all contexts that have begun."""
        return self._working_set_tokens

    def queued(self) -> Iterator[int]:
        """The tickets that wait."""
        yield from self._begun
        yield from self._fresh

    def places(self) -> Iterator[tuple[int, int]]:
        """Every ticket with its place: 0 holds a turn, 1 has the best rank of those that wait. Cost: O(n log n)."""
        for ticket_id in self.granted:
            yield ticket_id, 0
        waiting = sorted([*self._fresh.ranked(), *self._begun.ranked()])
        for place, (_, ticket_id) in enumerate(waiting, start=1):
            yield ticket_id, place

    def is_queued(self, ticket_id: int) -> bool:
        """Whether a ticket waits."""
        return ticket_id in self._begun or ticket_id in self._fresh

    def put(self, ticket_id: int, rank: Rank, *, n_context_tokens: int, has_begun: bool) -> None:
        """Let a ticket wait."""
        if has_begun:
            self._note_begun(ticket_id, n_context_tokens)
            self._begun.put(ticket_id, rank)
        else:
            self._needs[ticket_id] = n_context_tokens
            self._fresh.put(ticket_id, rank)

    def rerank(self, ticket_id: int, rank: Rank) -> None:
        """Give a ticket that waits another rank."""
        (self._begun if ticket_id in self._begun else self._fresh).put(ticket_id, rank)

    def discard(self, ticket_id: int) -> bool:
        """Take a ticket out of the queue. Returns: whether it waited."""
        self._needs.pop(ticket_id, None)
        return self._fresh.discard(ticket_id) or self._begun.discard(ticket_id)

    def drop(self, ticket_id: int) -> None:
        """The context of a ticket leaves the working set: its call is done, or its process is stopped."""
        self._working_set_tokens -= self._working_set.pop(ticket_id, 0)

    def best(self) -> tuple[Rank, int] | None:
        """The best ticket that may have a turn; None when nobody may."""
        begun, fresh = self._begun.best(), self._fresh.best()
        if fresh is not None and not self.has_room(fresh[1]):
            fresh = None
        if begun is None or fresh is None:
            return begun or fresh
        return min(begun, fresh)

    def has_room(self, ticket_id: int) -> bool:
        """Whether the working set has room for the context of a ticket that waits; for the first one it always has."""
        if self.budget_tokens is None or not self._working_set or ticket_id in self._working_set:
            return True
        return self._working_set_tokens + self._needs[ticket_id] <= self.budget_tokens

    def grant(self, ticket_id: int, rank: Rank) -> None:
        """Move a ticket from the queue to a turn."""
        n_context_tokens = self._needs.get(ticket_id)
        if n_context_tokens is not None:
            self._note_begun(ticket_id, n_context_tokens)
        self.discard(ticket_id)
        self.granted[ticket_id] = Holding(rank)

    def end_turn(self, ticket_id: int) -> None:
        """A turn is given back, if the ticket has one."""
        self.granted.pop(ticket_id, None)
        self.yielding.discard(ticket_id)

    def _note_begun(self, ticket_id: int, n_context_tokens: int) -> None:
        if ticket_id not in self._working_set:
            self._working_set[ticket_id] = n_context_tokens
            self._working_set_tokens += n_context_tokens

    def check_invariants(self) -> None:
        """Raise AssertionError if the lane contradicts itself, or a turn is idle while somebody may have it."""
        self._fresh.check_invariants()
        self._begun.check_invariants()
        assert not set(self._fresh) & set(self._begun), "a ticket waits twice"
        assert set(self._needs) == set(self._fresh)
        assert self._working_set_tokens == sum(self._working_set.values())
        begun = {*self.granted, *self._begun}
        assert set(self._working_set) == begun, "the working set is not what has begun"
        assert self.yielding <= set(self.granted), "a ghost yields"
        assert self.best() is None or len(self.granted) >= self.capacity, "idles while one waits"
