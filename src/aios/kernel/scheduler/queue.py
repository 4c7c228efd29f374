"""A queue by rank from which anybody may leave. Pure.

A heap with what left still in it: an entry whose rank is not the one that its ticket has now is out of date and dropped when
it comes up, so that joining, leaving and changing rank cost O(log n) each.
"""

import heapq
from collections.abc import Iterator

Rank = tuple[float, ...]

SLACK = 64
"""Entries out of date that a heap may hold beside as many as wait, before it is cleaned."""


class RankedQueue:
    """Tickets that wait, best rank (the lowest) first."""

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, int]] = []
        self._ranks: dict[int, Rank] = {}

    def __len__(self) -> int:
        return len(self._ranks)

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._ranks))

    def __contains__(self, ticket_id: int) -> bool:
        return ticket_id in self._ranks

    def put(self, ticket_id: int, rank: Rank) -> None:
        """Let a ticket wait with that rank, or rank it anew."""
        self._ranks[ticket_id] = rank
        heapq.heappush(self._heap, (rank, ticket_id))
        if len(self._heap) > 2 * len(self._ranks) + SLACK:
            self._heap = [(rank, each) for each, rank in self._ranks.items()]
            heapq.heapify(self._heap)

    def discard(self, ticket_id: int) -> bool:
        """Take a ticket out. Returns: whether it was there."""
        return self._ranks.pop(ticket_id, None) is not None

    def ranked(self) -> list[tuple[Rank, int]]:
        """Rank and ticket of all that wait, in no order."""
        return [(rank, each) for each, rank in self._ranks.items()]

    def best(self) -> tuple[Rank, int] | None:
        """Rank and ticket of the first; None when nobody waits."""
        while self._heap:
            rank, ticket_id = self._heap[0]
            if self._ranks.get(ticket_id) == rank:
                return rank, ticket_id
            heapq.heappop(self._heap)
        return None

    def check_invariants(self) -> None:
        """Raise AssertionError if a ticket that waits could not be found."""
        entries = set(self._heap)
        assert all((rank, each) in entries for each, rank in self._ranks.items()), "lost a ticket"
