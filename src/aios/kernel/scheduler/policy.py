"""Policies: in which order tickets that wait are served. Pure."""

from dataclasses import dataclass
from typing import Protocol

from aios.abi.types import Pid


@dataclass(frozen=True, slots=True)
class Ticket:
    """A wish for a turn at a resource. `id` grows with arrival."""

    id: int
    pid: Pid
    resource: str
    nice: int = 0


class Policy(Protocol):
    """Ranks tickets; the lowest rank is served first."""

    name: str

    def rank(self, ticket: Ticket) -> tuple[float, ...]:
        """The ticket's rank at its arrival."""
        ...


class Fifo:
    """First come, first served; a turn lasts until it is given back."""

    name = "fifo"

    def rank(self, ticket: Ticket) -> tuple[float, ...]:
        return (ticket.id,)
