"""THE SCHEDULING DECISION: which ticket gets a turn, and which turn must end.

Pure: `handle(event, now_s) -> instructions`; no clock, no waiting, no I/O. The shell beside it (`scheduler.py`) feeds it events
and carries out what it says. A ticket is in exactly one place: queued, held (its process is stopped), or granted.

    Arrive -> queued -> Grant -> Leave            Hold: queued -> held, granted -> Yield
                 ^ Renew: granted -> queued       Unhold: held -> queued
    Spend: after its quantum a turn must yield, but only if somebody better waits
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

from aios.abi.types import Pid
from aios.kernel.scheduler.policy import Policy, Rank, Ticket

SLACK = 64
"""Entries out of date that a heap may hold beside as many as wait, before it is cleaned."""


@dataclass(frozen=True, slots=True)
class Arrive:
    """A call wants a turn."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Spend:
    """The holder of a turn has used its resource for so many tokens."""

    ticket_id: int
    n_tokens: int


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


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """From now on this policy ranks; all that wait are ranked anew."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class Forget:
    """A process has ended; it has no tickets."""

    pid: Pid


Event = Arrive | Spend | Renew | Leave | Hold | Unhold | Resize | SetPolicy | Forget


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
    granted: dict[int, int] = field(default_factory=dict)
    """Tokens that each turn has used, by ticket id."""
    queue: list[tuple[Rank, int]] = field(default_factory=list)
    """A heap; entries of tickets that left stay until they come up."""
    n_queued: int = 0
    yielding: int | None = None
    """A turn that was asked to make room for somebody better and still holds on."""


class Core:
    """The state of all lanes."""

    def __init__(
        self, *, policy: Policy, max_queue: int, capacities: Mapping[str, int] | None = None
    ) -> None:
        self._policy = policy
        self._max_queue = max_queue
        self._lanes = {name: Lane(n) for name, n in (capacities or {}).items()}
        self._tickets: dict[int, Ticket] = {}
        self._ranks: dict[int, Rank] = {}
        """The ranks of queued tickets; an entry of a heap with another rank is out of date."""
        self._held: set[int] = set()
        self._held_pids: set[Pid] = set()
        self._of_pid: dict[Pid, set[int]] = {}
        self._n_queueings = 0

    def handle(self, event: Event, now_s: float) -> list[Instruction]:
        """Take in what happened and say what follows. Cost: O(log n) in the tickets that wait."""
        match event:
            case Spend(ticket_id, n_tokens):
                return self._spend(ticket_id, n_tokens, now_s)
            case Arrive(ticket):
                return self._arrive(ticket, now_s)
            case Renew(ticket_id):
                return self._renew(ticket_id, now_s)
            case Leave(ticket_id):
                return self._leave(ticket_id)
            case Hold(pid):
                return self._hold(pid)
            case Unhold(pid):
                return self._unhold(pid, now_s)
            case Resize(resource, capacity):
                self._lanes.setdefault(resource, Lane(capacity)).capacity = capacity
                return self._fill(resource)
            case SetPolicy(policy):
                self._set_policy(policy, now_s)
                return []
            case Forget(pid):
                self._policy.forget(pid)
                return []

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    def n_queued(self, resource: str) -> int:
        """Tickets that wait at a resource and are not held."""
        return self._lanes[resource].n_queued

    def n_granted(self, resource: str) -> int:
        """Turns that are taken."""
        return len(self._lanes[resource].granted)

    def _arrive(self, ticket: Ticket, now_s: float) -> list[Instruction]:
        lane = self._lanes[ticket.resource]
        if lane.n_queued >= self._max_queue:
            return [Refuse(ticket.id, lane.n_queued)]
        self._tickets[ticket.id] = ticket
        self._of_pid.setdefault(ticket.pid, set()).add(ticket.id)
        self._wait(ticket, now_s)
        return self._fill(ticket.resource)

    def _spend(self, ticket_id: int, n_tokens: int, now_s: float) -> list[Instruction]:
        ticket = self._tickets[ticket_id]
        lane = self._lanes[ticket.resource]
        self._policy.spent(ticket, n_tokens)
        lane.granted[ticket_id] += n_tokens
        quantum = self._policy.quantum_tokens(ticket)
        if quantum is None or lane.granted[ticket_id] < quantum or lane.yielding is not None:
            return []
        best = self._best(lane)
        if best is None or len(lane.granted) < lane.capacity:
            return []
        if self._policy.rank(ticket, number=self._n_queueings + 1, now_s=now_s) <= best:
            return []
        lane.yielding = ticket_id
        return [Yield(ticket_id)]

    def _renew(self, ticket_id: int, now_s: float) -> list[Instruction]:
        ticket = self._tickets[ticket_id]
        self._end_turn(ticket)
        self._wait(ticket, now_s)
        return self._fill(ticket.resource)

    def _leave(self, ticket_id: int) -> list[Instruction]:
        ticket = self._tickets.pop(ticket_id)
        if self._ranks.pop(ticket_id, None) is not None:
            self._lanes[ticket.resource].n_queued -= 1
        self._held.discard(ticket_id)
        self._end_turn(ticket)
        siblings = self._of_pid[ticket.pid]
        siblings.remove(ticket_id)
        if not siblings:
            del self._of_pid[ticket.pid]
        self._policy.done(ticket)
        return self._fill(ticket.resource)

    def _hold(self, pid: Pid) -> list[Instruction]:
        self._held_pids.add(pid)
        instructions: list[Instruction] = []
        for ticket_id in sorted(self._of_pid.get(pid, ())):
            if self._ranks.pop(ticket_id, None) is not None:
                self._lanes[self._tickets[ticket_id].resource].n_queued -= 1
                self._held.add(ticket_id)
            elif ticket_id not in self._held:
                instructions.append(Yield(ticket_id))
        return instructions

    def _unhold(self, pid: Pid, now_s: float) -> list[Instruction]:
        self._held_pids.discard(pid)
        resources: set[str] = set()
        for ticket_id in sorted(self._of_pid.get(pid, set()) & self._held):
            self._held.remove(ticket_id)
            self._wait(self._tickets[ticket_id], now_s)
            resources.add(self._tickets[ticket_id].resource)
        return [instruction for name in sorted(resources) for instruction in self._fill(name)]

    def _set_policy(self, policy: Policy, now_s: float) -> None:
        """Rank all that wait by the new policy, in the order of their arrival."""
        self._policy = policy
        for lane in self._lanes.values():
            lane.queue.clear()
            lane.n_queued = 0
        for ticket_id in sorted(self._ranks):
            self._wait(self._tickets[ticket_id], now_s)

    def _wait(self, ticket: Ticket, now_s: float) -> None:
        if ticket.pid in self._held_pids:
            self._held.add(ticket.id)
            return
        self._n_queueings += 1
        rank = self._policy.rank(ticket, number=self._n_queueings, now_s=now_s)
        self._policy.queued(ticket)
        lane = self._lanes[ticket.resource]
        heapq.heappush(lane.queue, (rank, ticket.id))
        self._ranks[ticket.id] = rank
        lane.n_queued += 1
        if len(lane.queue) > 2 * lane.n_queued + SLACK:
            lane.queue = [
                entry for entry in set(lane.queue) if self._ranks.get(entry[1]) == entry[0]
            ]
            heapq.heapify(lane.queue)

    def _end_turn(self, ticket: Ticket) -> None:
        lane = self._lanes[ticket.resource]
        lane.granted.pop(ticket.id, None)
        if lane.yielding == ticket.id:
            lane.yielding = None

    def _best(self, lane: Lane) -> Rank | None:
        """The rank of the best ticket that waits; entries out of date are dropped on the way."""
        while lane.queue:
            rank, ticket_id = lane.queue[0]
            if self._ranks.get(ticket_id) == rank:
                return rank
            heapq.heappop(lane.queue)
        return None

    def _fill(self, resource: str) -> list[Instruction]:
        """Grant free turns to the best tickets that wait."""
        lane = self._lanes[resource]
        instructions: list[Instruction] = []
        while len(lane.granted) < lane.capacity and self._best(lane) is not None:
            rank, ticket_id = heapq.heappop(lane.queue)
            del self._ranks[ticket_id]
            lane.n_queued -= 1
            lane.granted[ticket_id] = 0
            self._policy.granted(self._tickets[ticket_id], rank)
            instructions.append(Grant(ticket_id))
        return instructions

    def check_invariants(self) -> None:
        """Raise AssertionError if a ticket is lost or doubled, or a turn is idle while somebody may have it."""
        granted = [ticket_id for lane in self._lanes.values() for ticket_id in lane.granted]
        places = [*granted, *self._ranks, *self._held]
        assert len(places) == len(set(places)), "a ticket is in two places"
        assert set(places) == set(self._tickets), "a ticket is in no place"
        by_pid = {ticket_id for tickets in self._of_pid.values() for ticket_id in tickets}
        assert by_pid == set(self._tickets), "the index by process is wrong"
        for name, lane in self._lanes.items():
            waiting = {t for t in self._ranks if self._tickets[t].resource == name}
            assert lane.n_queued == len(waiting), f"{name} counts its queue wrong"
            assert waiting <= {t for _, t in lane.queue}, f"{name} has lost a ticket"
            assert not waiting or len(lane.granted) >= lane.capacity, f"{name} idles and one waits"
            assert lane.yielding is None or lane.yielding in lane.granted, "a ghost yields"
        for ticket_id in self._ranks:
            assert self._tickets[ticket_id].pid not in self._held_pids, "a stopped process waits"
