"""THE SCHEDULING DECISION: which ticket gets a turn, and which turn must end.

Pure: `handle(event) -> instructions`; no clock, no waiting, no I/O. The shell beside it (`scheduler.py`) feeds it events
and carries out what it says. A ticket is in exactly one place: queued, held (its process is stopped), or granted.

    Arrive -> queued -> Grant -> Leave            Hold: queued -> held, granted -> Yield
                 ^ Renew: granted -> queued       Unhold: held -> queued, with its old rank
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

from aios.abi.types import Pid
from aios.kernel.scheduler.policy import Policy, Ticket


@dataclass(frozen=True, slots=True)
class Arrive:
    """A call wants a turn."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Renew:
    """A granted ticket gives its turn back and queues for another."""

    ticket_id: int


@dataclass(frozen=True, slots=True)
class Leave:
    """A ticket is done with its turn, or no longer wants one."""

    ticket_id: int


@dataclass(frozen=True, slots=True)
class Hold:
    """A process was stopped: its tickets get no turn, its turns must end."""

    pid: Pid


@dataclass(frozen=True, slots=True)
class Unhold:
    """A process goes on."""

    pid: Pid


@dataclass(frozen=True, slots=True)
class Resize:
    """A resource has another capacity now; turns that are too many end on their own."""

    resource: str
    capacity: int


Event = Arrive | Renew | Leave | Hold | Unhold | Resize


@dataclass(frozen=True, slots=True)
class Grant:
    """The ticket has a turn."""

    ticket_id: int


@dataclass(frozen=True, slots=True)
class Yield:
    """The turn must end as soon as its holder can."""

    ticket_id: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """The queue is full; the ticket is forgotten."""

    ticket_id: int
    n_queued: int


Instruction = Grant | Yield | Refuse


@dataclass
class Lane:
    """One resource: how many turns at once, who holds them, who waits."""

    capacity: int
    granted: set[int] = field(default_factory=set)
    queue: list[tuple[tuple[float, ...], int]] = field(default_factory=list)
    """A heap of (rank, ticket id); entries of tickets that left stay until they come up."""
    n_queued: int = 0


class Core:
    """The state of all lanes."""

    def __init__(
        self, *, policy: Policy, max_queue: int, capacities: Mapping[str, int] | None = None
    ) -> None:
        self._policy = policy
        self._max_queue = max_queue
        self._lanes = {name: Lane(n) for name, n in (capacities or {}).items()}
        self._tickets: dict[int, Ticket] = {}
        self._queued: set[int] = set()
        self._held: set[int] = set()
        self._held_pids: set[Pid] = set()
        self._of_pid: dict[Pid, set[int]] = {}

    def handle(self, event: Event) -> list[Instruction]:
        """Take in what happened and say what follows. Cost: O(log n) in the tickets that wait."""
        match event:
            case Arrive(ticket):
                return self._arrive(ticket)
            case Renew(ticket_id):
                return self._renew(ticket_id)
            case Leave(ticket_id):
                return self._leave(ticket_id)
            case Hold(pid):
                return self._hold(pid)
            case Unhold(pid):
                return self._unhold(pid)
            case Resize(resource, capacity):
                self._lanes.setdefault(resource, Lane(capacity)).capacity = capacity
                return self._fill(resource)

    def n_queued(self, resource: str) -> int:
        """Tickets that wait at a resource and are not held."""
        return self._lanes[resource].n_queued

    def n_granted(self, resource: str) -> int:
        """Turns that are taken."""
        return len(self._lanes[resource].granted)

    def _arrive(self, ticket: Ticket) -> list[Instruction]:
        lane = self._lanes[ticket.resource]
        if lane.n_queued >= self._max_queue:
            return [Refuse(ticket.id, lane.n_queued)]
        self._tickets[ticket.id] = ticket
        self._of_pid.setdefault(ticket.pid, set()).add(ticket.id)
        self._wait(ticket)
        return self._fill(ticket.resource)

    def _renew(self, ticket_id: int) -> list[Instruction]:
        ticket = self._tickets[ticket_id]
        self._lanes[ticket.resource].granted.remove(ticket_id)
        self._wait(ticket)
        return self._fill(ticket.resource)

    def _leave(self, ticket_id: int) -> list[Instruction]:
        ticket = self._tickets.pop(ticket_id)
        lane = self._lanes[ticket.resource]
        if ticket_id in self._queued:
            self._queued.remove(ticket_id)
            lane.n_queued -= 1
        self._held.discard(ticket_id)
        lane.granted.discard(ticket_id)
        siblings = self._of_pid[ticket.pid]
        siblings.remove(ticket_id)
        if not siblings:
            del self._of_pid[ticket.pid]
        return self._fill(ticket.resource)

    def _hold(self, pid: Pid) -> list[Instruction]:
        self._held_pids.add(pid)
        instructions: list[Instruction] = []
        for ticket_id in sorted(self._of_pid.get(pid, ())):
            if ticket_id in self._queued:
                self._queued.remove(ticket_id)
                self._lanes[self._tickets[ticket_id].resource].n_queued -= 1
                self._held.add(ticket_id)
            elif ticket_id not in self._held:
                instructions.append(Yield(ticket_id))
        return instructions

    def _unhold(self, pid: Pid) -> list[Instruction]:
        self._held_pids.discard(pid)
        resources: set[str] = set()
        for ticket_id in sorted(self._of_pid.get(pid, ())):
            if ticket_id in self._held:
                self._held.remove(ticket_id)
                self._wait(self._tickets[ticket_id])
                resources.add(self._tickets[ticket_id].resource)
        return [instruction for name in sorted(resources) for instruction in self._fill(name)]

    def _wait(self, ticket: Ticket) -> None:
        if ticket.pid in self._held_pids:
            self._held.add(ticket.id)
            return
        lane = self._lanes[ticket.resource]
        heapq.heappush(lane.queue, (self._policy.rank(ticket), ticket.id))
        self._queued.add(ticket.id)
        lane.n_queued += 1

    def _fill(self, resource: str) -> list[Instruction]:
        """Grant free turns to the best tickets that wait."""
        lane = self._lanes[resource]
        instructions: list[Instruction] = []
        while len(lane.granted) < lane.capacity and lane.queue:
            _, ticket_id = heapq.heappop(lane.queue)
            if ticket_id not in self._queued:
                continue  # it left or is held; a held one is pushed again by Unhold
            self._queued.remove(ticket_id)
            lane.n_queued -= 1
            lane.granted.add(ticket_id)
            instructions.append(Grant(ticket_id))
        return instructions

    def check_invariants(self) -> None:
        """Raise AssertionError if a ticket is lost or doubled, or a turn is idle while somebody may have it."""
        granted = [t for lane in self._lanes.values() for t in lane.granted]
        places = [*granted, *self._queued, *self._held]
        assert len(places) == len(set(places)), "a ticket is in two places"
        assert set(places) == set(self._tickets), "a ticket is in no place"
        by_pid = {t for tickets in self._of_pid.values() for t in tickets}
        assert by_pid == set(self._tickets), "the index by process is wrong"
        for name, lane in self._lanes.items():
            waiting = {t for t in self._queued if self._tickets[t].resource == name}
            assert lane.n_queued == len(waiting), f"{name} counts its queue wrong"
            assert waiting <= {t for _, t in lane.queue}, f"{name} has lost a ticket"
            assert not waiting or len(lane.granted) >= lane.capacity, (
                f"{name} is idle and somebody waits"
            )
        for ticket_id in self._queued:
            assert self._tickets[ticket_id].pid not in self._held_pids, (
                "a stopped process is queued"
            )
