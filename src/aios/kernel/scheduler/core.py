"""THE SCHEDULING DECISION: which ticket gets a turn, and which turn must end.

Pure: `handle(event, now_s) -> instructions`; no clock, no waiting, no I/O. The shell beside it (`scheduler.py`) feeds it events
and carries out what it says. A ticket is in exactly one place: queued, held (its process is stopped), or granted.

    Arrive -> queued -> Grant -> Leave            Hold: queued -> held, granted -> Yield
                 ^ Renew: granted -> queued       Unhold: held -> queued
    Arrive: a turn must yield at once to a newcomer that is better by far
    Spend: after its quantum a turn must yield, but only if somebody better waits

A turn that yields before its quantum is over keeps its place in time: whoever is preempted again and again still grows older.
"""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from aios.abi.types import Pid
from aios.kernel.scheduler.lane import Lane
from aios.kernel.scheduler.policy import TURN_COST_TOKENS, Policy, Ticket
from aios.kernel.scheduler.queue import Rank


class Arrive(Struct, frozen=True):
    """A call wants a turn."""

    ticket: Ticket


class Spend(Struct, frozen=True):
    """The holder of a turn has used its resource for so many tokens, or one that waits again had."""

    ticket_id: int
    n_tokens: int


class Renew(Struct, frozen=True):
    """A granted ticket gives its turn back and queues for another."""

    ticket_id: int


class Leave(Struct, frozen=True):
    """A ticket is done with its turn, or no longer wants one."""

    ticket_id: int


class Hold(Struct, frozen=True):
    """A process was stopped: its tickets get no turn, its turns must end."""

    pid: Pid


class Unhold(Struct, frozen=True):
    """A process goes on."""

    pid: Pid


class Renice(Struct, frozen=True):
    """A process has another nice value; its tickets that wait are ranked anew, as of when they were queued."""

    pid: Pid
    nice: int


class Resize(Struct, frozen=True):
    """A resource is another size now; turns that are too many end on their own. The fields are those of `Lane`."""

    resource: str
    capacity: int
    is_preemptible: bool = True
    budget_tokens: int | None = None


class SetPolicy(Struct, frozen=True):
    """From now on this policy ranks; all that wait are ranked anew, as of when they were queued."""

    policy: Policy


class Forget(Struct, frozen=True):
    """A process has ended; it has no tickets."""

    pid: Pid


Event = Arrive | Spend | Renew | Leave | Hold | Unhold | Renice | Resize | SetPolicy | Forget


class Grant(Struct, frozen=True):
    """The ticket has a turn."""

    ticket_id: int
    is_urgent: bool = False
    """The engine should compute it before what is not."""


class Yield(Struct, frozen=True):
    """The turn must end as soon as its holder can."""

    ticket_id: int


class Refuse(Struct, frozen=True):
    """The queue is full; the ticket is forgotten. The first of a process never is: those who flood must not keep others out."""

    ticket_id: int
    n_queued: int


Instruction = Grant | Yield | Refuse


class Stamp(Struct, frozen=True):
    """When a ticket was queued: the number of that queueing, and the time."""

    number: int
    queued_s: float


class Core:
    """The state of all lanes."""

    def __init__(
        self, *, policy: Policy, max_queue: int, capacities: Mapping[str, int] | None = None
    ) -> None:
        self._policy = policy
        self._max_queue = max_queue
        self._lanes = {name: Lane(n) for name, n in (capacities or {}).items()}
        self._tickets: dict[int, Ticket] = {}
        self._stamps: dict[int, Stamp] = {}
        """Of tickets that wait or hold a turn."""
        self._begun: set[int] = set()
        """Tickets that have had a turn."""
        self._held: set[int] = set()
        self._held_pids: set[Pid] = set()
        self._of_pid: dict[Pid, set[int]] = {}
        self._n_queueings = 0

    def handle(self, event: Event, now_s: float) -> list[Instruction]:  # noqa: C901 - one line for each kind of event
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
            case Renice(pid, nice):
                return self._renice(pid, nice)
            case Resize():
                return self._resize(event)
            case SetPolicy(policy):
                return self._set_policy(policy)
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

    @property
    def lanes(self) -> Mapping[str, Lane]:
        """The lanes by resource, to look at."""
        return self._lanes

    def longest_wait_s(self, resource: str, now_s: float) -> float:
        """How long the ticket has waited that was queued first; 0 when nobody waits. Cost: O(n)."""
        waiting = self._lanes[resource].queued()
        return max((now_s - self._stamps[each].queued_s for each in waiting), default=0.0)

    def standings(self) -> dict[Pid, tuple[int, int | None]]:
        """Place and level of the best-placed ticket of each process that has any; held ones have none.

        Cost: O(n log n) for all of them; a place is where a ticket's rank puts it, whether or not the working set has room.
        """
        found: dict[Pid, tuple[int, int | None]] = {}
        for lane in self._lanes.values():
            for ticket_id, place in lane.places():
                ticket = self._tickets[ticket_id]
                if ticket.pid not in found or place < found[ticket.pid][0]:
                    found[ticket.pid] = (place, self._policy.level(ticket))
        return found

    # --- a ticket's way ------------------------------------------------------------------------------------------

    def _arrive(self, ticket: Ticket, now_s: float) -> list[Instruction]:
        lane = self._lanes[ticket.resource]
        if lane.n_queued >= self._max_queue and self._of_pid.get(ticket.pid):
            return [Refuse(ticket.id, lane.n_queued)]
        self._tickets[ticket.id] = ticket
        self._of_pid.setdefault(ticket.pid, set()).add(ticket.id)
        rank = self._wait(ticket, now_s)
        granted = self._fill(ticket.resource)
        return granted or self._make_room(lane, ticket.id, rank)

    def _spend(self, ticket_id: int, n_tokens: int, now_s: float) -> list[Instruction]:
        ticket = self._tickets[ticket_id]
        lane = self._lanes[ticket.resource]
        self._policy.spent(ticket, n_tokens)
        holding = lane.granted.get(ticket_id)
        if holding is None:
            return []
        holding.n_tokens += n_tokens
        # Cheapest first: this is asked at every token, and mostly nobody waits.
        if lane.yielding or not lane.is_preemptible or len(lane.granted) < lane.capacity:
            return []
        if ticket.is_whole:
            return []
        best = lane.best()
        if best is None:
            return []
        quantum = self._policy.quantum_tokens(ticket)
        if quantum is None or holding.n_tokens < quantum:
            return []
        if self._policy.rank(ticket, number=self._n_queueings + 1, now_s=now_s) <= best[0]:
            return []
        lane.yielding.add(ticket_id)
        return [Yield(ticket_id)]

    def _renew(self, ticket_id: int, now_s: float) -> list[Instruction]:
        ticket = self._tickets[ticket_id]
        lane = self._lanes[ticket.resource]
        quantum = self._policy.quantum_tokens(ticket)
        n_tokens = lane.granted[ticket_id].n_tokens
        is_early = ticket_id in lane.yielding and quantum is not None and n_tokens < quantum
        was_stopped = ticket_id not in lane.yielding or ticket.pid in self._held_pids
        if was_stopped and not n_tokens:
            # Were it free, processes that are stopped before their first token and let go on would keep their place for ever.
            self._policy.spent(ticket, TURN_COST_TOKENS)
        lane.end_turn(ticket_id)
        self._wait(ticket, now_s, stamp=self._stamps[ticket_id] if is_early else None)
        return self._fill(ticket.resource)

    def _leave(self, ticket_id: int) -> list[Instruction]:
        ticket = self._tickets.pop(ticket_id)
        lane = self._lanes[ticket.resource]
        holding = lane.granted.get(ticket_id)
        if holding is not None and not holding.n_tokens:
            # Were it free, calls that are cut off before their first token would keep their place for ever.
            self._policy.spent(ticket, TURN_COST_TOKENS)
        lane.discard(ticket_id)
        lane.end_turn(ticket_id)
        lane.drop(ticket_id)
        self._held.discard(ticket_id)
        self._begun.discard(ticket_id)
        self._stamps.pop(ticket_id, None)
        siblings = self._of_pid[ticket.pid]
        siblings.remove(ticket_id)
        if not siblings:
            del self._of_pid[ticket.pid]
        self._policy.done(ticket)
        return self._fill(ticket.resource)

    # --- what others do to it ------------------------------------------------------------------------------------

    def _hold(self, pid: Pid) -> list[Instruction]:
        self._held_pids.add(pid)
        instructions: list[Instruction] = []
        resources: set[str] = set()
        for ticket_id in sorted(self._of_pid.get(pid, ())):
            resource = self._tickets[ticket_id].resource
            lane = self._lanes[resource]
            if lane.discard(ticket_id):
                lane.drop(ticket_id)
                del self._stamps[ticket_id]
                self._held.add(ticket_id)
                self._policy.held(self._tickets[ticket_id])
                resources.add(resource)
            elif ticket_id not in self._held:
                instructions.append(Yield(ticket_id))
        return instructions + self._fill(*resources)

    def _unhold(self, pid: Pid, now_s: float) -> list[Instruction]:
        self._held_pids.discard(pid)
        resources: set[str] = set()
        for ticket_id in sorted(self._of_pid.get(pid, set()) & self._held):
            self._held.remove(ticket_id)
            self._wait(self._tickets[ticket_id], now_s)
            resources.add(self._tickets[ticket_id].resource)
        return self._fill(*resources)

    def _renice(self, pid: Pid, nice: int) -> list[Instruction]:
        instructions: list[Instruction] = []
        for ticket_id in sorted(self._of_pid.get(pid, ())):
            if self._tickets[ticket_id].is_background:
                continue
            ticket = self._tickets[ticket_id] = replace(self._tickets[ticket_id], nice=nice)
            lane = self._lanes[ticket.resource]
            if lane.is_queued(ticket_id):
                rank = self._rank(ticket)
                lane.rerank(ticket_id, rank)
                granted = self._fill(ticket.resource)
                instructions += granted or self._make_room(lane, ticket_id, rank)
        return instructions

    def _resize(self, event: Resize) -> list[Instruction]:
        lane = self._lanes.setdefault(event.resource, Lane(event.capacity))
        lane.capacity = event.capacity
        lane.is_preemptible = event.is_preemptible
        lane.budget_tokens = event.budget_tokens
        return self._fill(event.resource)

    def _set_policy(self, policy: Policy) -> list[Instruction]:
        """Rank all anew: those that wait, in the order in which they were queued, and those that hold turns.

        Who is first now may have room in the working set where who was first had none.
        """
        self._policy = policy
        for ticket_id in sorted(self._stamps, key=lambda each: self._stamps[each].number):
            ticket = self._tickets[ticket_id]
            lane = self._lanes[ticket.resource]
            rank = self._rank(ticket)
            holding = lane.granted.get(ticket_id)
            if holding is not None:
                holding.rank = rank
            else:
                policy.queued(ticket)
                lane.rerank(ticket_id, rank)
        return self._fill(*self._lanes)

    # --- who is next ---------------------------------------------------------------------------------------------

    def _wait(self, ticket: Ticket, now_s: float, *, stamp: Stamp | None = None) -> Rank | None:
        """Queue a ticket, as of an earlier queueing if that one is given. Returns: its rank; None if it is held."""
        lane = self._lanes[ticket.resource]
        if ticket.pid in self._held_pids:
            self._held.add(ticket.id)
            self._stamps.pop(ticket.id, None)
            self._policy.held(ticket)
            lane.drop(ticket.id)
            return None
        self._n_queueings += 1
        self._stamps[ticket.id] = stamp or Stamp(self._n_queueings, now_s)
        rank = self._rank(ticket)
        self._policy.queued(ticket)
        lane.put(
            ticket.id,
            rank,
            n_context_tokens=ticket.n_context_tokens,
            has_begun=ticket.id in self._begun,
        )
        return rank

    def _rank(self, ticket: Ticket) -> Rank:
        stamp = self._stamps[ticket.id]
        return self._policy.rank(ticket, number=stamp.number, now_s=stamp.queued_s)

    def _make_room(self, lane: Lane, ticket_id: int, rank: Rank | None) -> list[Instruction]:
        """Ask the worst turn to yield at once, if a ticket that waits is better than it by the policy's margin."""
        margin = self._policy.margin
        if margin is None or rank is None or not lane.is_preemptible:
            return []
        if len(lane.yielding) >= lane.n_queued or not lane.has_room(ticket_id):
            return []
        holders = (self._tickets[each] for each in lane.granted if each not in lane.yielding)
        others = [each.id for each in holders if each.is_preemptible and not each.is_whole]
        worst = max(others, key=lambda each: lane.granted[each].rank, default=None)
        if worst is None or lane.granted[worst].rank[0] < rank[0] + margin:
            return []
        lane.yielding.add(worst)
        return [Yield(worst)]

    def _fill(self, *resources: str) -> list[Instruction]:
        """Grant free turns to the best tickets that wait."""
        instructions: list[Instruction] = []
        for resource in sorted(resources):
            lane = self._lanes[resource]
            while len(lane.granted) < lane.capacity and (best := lane.best()) is not None:
                rank, ticket_id = best
                lane.grant(ticket_id, rank)
                self._begun.add(ticket_id)
                ticket = self._tickets[ticket_id]
                self._policy.granted(ticket, rank)
                instructions.append(Grant(ticket_id, self._policy.is_urgent(ticket)))
        return instructions

    def check_invariants(self) -> None:
        """Raise AssertionError if a ticket is lost or doubled, or a turn is idle while somebody may have it."""
        granted = [ticket_id for lane in self._lanes.values() for ticket_id in lane.granted]
        queued = [ticket_id for lane in self._lanes.values() for ticket_id in lane.queued()]
        places = [*granted, *queued, *self._held]
        assert len(places) == len(set(places)), "a ticket is in two places"
        assert set(places) == set(self._tickets), "a ticket is in no place"
        assert set(self._stamps) == {*granted, *queued}, "a stamp is lost"
        assert self._begun <= set(self._tickets)
        by_pid = {ticket_id for tickets in self._of_pid.values() for ticket_id in tickets}
        assert by_pid == set(self._tickets), "the index by process is wrong"
        for name, lane in self._lanes.items():
            lane.check_invariants()
            for ticket_id in (*lane.granted, *lane.queued()):
                assert self._tickets[ticket_id].resource == name, f"{ticket_id} is in a wrong lane"
        for ticket_id in queued:
            assert self._tickets[ticket_id].pid not in self._held_pids, "a stopped process waits"
