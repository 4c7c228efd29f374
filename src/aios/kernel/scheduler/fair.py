"""Policies under which owners share the model by weight: `Fair`, and `BorrowedVirtualTime`, which serves short calls first. Pure."""

from dataclasses import dataclass

from aios.abi.types import Pid
from aios.config import SchedulerConfig
from aios.kernel.scheduler.policy import (
    N_LEVELS,
    NICEST,
    RUDEST,
    TURN_COST_TOKENS,
    Mlfq,
    RoundRobin,
    Ticket,
)
from aios.kernel.scheduler.queue import Rank

LEARNED_SHARE = 0.1
"""How much the last call of an owner weighs in what its next ones are charged beforehand."""
LIFT = 0.5
"""The present moves at least at this part of the pace at which all active owners are served."""
SPARE_OWNERS = 8
"""Owners without a call that may be remembered beside as many as twice those that have one."""


@dataclass(slots=True)
class Charge:
    """What a ticket was charged and has not used yet, on which rung, where that begins in virtual time, and what it has used."""

    rung: int = 0
    left: float = 0.0
    start: float = 0.0
    n_used: int = 0
    is_active: bool = False
    """The ticket counts among those of its owner; not while its process is stopped."""


class Fair(RoundRobin):
    """Owners share the model by weight, however many agents each has.

    Start-time fair queueing over tokens: a turn is tagged with its owner's virtual time, and virtual time moves by tokens
    over weight. An owner that was idle starts at the present and gains nothing from having been so. A call is charged when it
    is queued, by what the calls of its owner have cost of late: with a charge too small, an owner that queues many calls at
    once would get them tagged as if they were nearly free (Jain's index 0.58 with ten times the agents, not 0.98).

    Head start: a ticket is passed only by turns that begin before its tag in virtual time, and the present reaches that tag
    when all active owners together have been served `(tag - present) * their weights / LIFT` tokens; so new owners without
    end cannot keep anybody waiting.

    Source: virtual token counters, VTC, arXiv 2401.00588; start tags after Goyal et al., SFQ, 1996.
    """

    name = "fair"
    n_rungs = 1
    """An owner's call begins in virtual time where those end that it has queued on the same rung and the better ones."""

    def __init__(self, config: SchedulerConfig = SchedulerConfig()) -> None:
        super().__init__(config)
        self.most_borrowed = 0.0
        """In virtual time; so far the next turn of an owner that has calls may begin before the present."""
        self._now = 0.0
        self._finish: dict[str, list[float]] = {}
        """Where each owner's next turn on a rung begins in virtual time; one that lies in the past is as good as none."""
        self._charges: dict[int, Charge] = {}
        self._costs: dict[str, float] = {}
        """What a call of each owner has cost of late."""
        self._n_active: dict[str, int] = {}
        """Tickets of each owner that has any."""
        self._active_weight = 0.0

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:  # noqa: ARG002 - the contract of all policies
        return (self._tag(ticket), ticket.nice, number)

    def queued(self, ticket: Ticket) -> None:
        """Charge a call that is new, or that has used up what it was charged; another goes on within its charge."""
        charge = self._charges.get(ticket.id)
        cost = float(TURN_COST_TOKENS)
        if charge is None or not charge.is_active:
            charge = self._enter(ticket)
            cost = self._costs.get(ticket.owner, ticket.n_prompt_tokens + TURN_COST_TOKENS)
        if not charge.left:
            charge.left, charge.rung = cost, self._rung(ticket)
            charge.start = self._start(ticket.owner, charge.rung)
            self._bill(ticket.owner, charge.rung, cost)

    def spent(self, ticket: Ticket, n_tokens: int) -> None:
        """Charge what goes beyond the charge at queueing, and let the present move on."""
        charge = self._charges.get(ticket.id)
        if charge is None or not charge.is_active:
            # its turn began under another policy, or its process is stopped
            charge = self._enter(ticket)
        charge.n_used += n_tokens
        n_charged = min(n_tokens, charge.left)
        charge.left -= n_charged
        charge.start += n_charged / self._weight(ticket.owner)
        if n_charged < n_tokens:
            self._bill(ticket.owner, charge.rung, n_tokens - n_charged)
        self._now += LIFT * n_tokens / self._active_weight

    def granted(self, ticket: Ticket, rank: Rank) -> None:  # noqa: ARG002 - the contract of all policies
        """The present is no earlier than the start tag of the turn that was granted last."""
        self._now = max(self._now, self._tag(ticket))

    def held(self, ticket: Ticket) -> None:
        """Give back what a ticket was charged; it is charged anew when it goes on.

        With the place in virtual time that it had when its process was stopped, all calls that wait in it would pass everybody.
        """
        charge = self._charges.get(ticket.id)
        if charge is not None:
            self._exit(ticket, charge)

    def done(self, ticket: Ticket) -> None:
        """Give back what a ticket was charged and did not use."""
        charge = self._charges.pop(ticket.id, None)
        if charge is None:
            return
        if charge.n_used:
            usual = self._costs.get(ticket.owner, charge.n_used)
            self._costs[ticket.owner] = usual + LEARNED_SHARE * (charge.n_used - usual)
        if charge.is_active:
            self._exit(ticket, charge)

    def _exit(self, ticket: Ticket, charge: Charge) -> None:
        owner = ticket.owner
        self._bill(owner, charge.rung, -charge.left)
        charge.left, charge.is_active = 0.0, False
        self._n_active[owner] -= 1
        if not self._n_active[owner]:
            del self._n_active[owner]
            self._active_weight -= self._weight(owner)
        if not self._n_active:
            self._active_weight = 0.0  # whatever rounding has left
        if len(self._finish) > 2 * len(self._n_active) + SPARE_OWNERS:
            self._forget_owners()

    def _forget_owners(self) -> None:
        """Forget what makes no difference any more."""
        self._finish = {
            each: at
            for each, at in self._finish.items()
            if each in self._n_active or max(at) > self._now
        }
        known = self._finish.keys()
        self._costs = {each: cost for each, cost in self._costs.items() if each in known}

    def _enter(self, ticket: Ticket) -> Charge:
        owner = ticket.owner
        if owner not in self._n_active:
            self._active_weight += self._weight(owner)
            finish = self._finish.get(owner, [self._now] * self.n_rungs)
            self._finish[owner] = [max(at, self._now) for at in finish]
        self._n_active[owner] = self._n_active.get(owner, 0) + 1
        charge = self._charges.setdefault(ticket.id, Charge(self._rung(ticket)))
        charge.is_active = True
        return charge

    def _tag(self, ticket: Ticket) -> float:
        """Where the next turn of a ticket begins in virtual time.

        A call that was preempted goes on within its charge: behind all that its owner has queued it would be done after them,
        and since nothing is charged for that place twice, all of them would end up in one and keep newcomers behind them.
        """
        charge = self._charges.get(ticket.id)
        if charge is not None and charge.left:
            return charge.start
        return self._start(ticket.owner, self._rung(ticket))

    def _start(self, owner: str, rung: int) -> float:
        finish = self._finish.get(owner)
        return self._now if finish is None else max(self._earliest(owner), finish[rung])

    def _earliest(self, owner: str) -> float:
        return self._now - self.most_borrowed if owner in self._n_active else self._now

    def _bill(self, owner: str, rung: int, n_tokens: float) -> None:
        """Charge an owner for tokens, or give them back if they are fewer than 0.

        Calls on rungs that are better are not put back by it.
        """
        cost = n_tokens / self._weight(owner)
        finish = self._finish[owner]
        earliest = self._earliest(owner) if cost > 0 else 0.0
        finish[rung:] = [max(at, earliest) + cost for at in finish[rung:]]

    def _rung(self, ticket: Ticket) -> int:  # noqa: ARG002 - all calls of an owner are on one
        return 0

    def _weight(self, owner: str) -> float:
        return self.config.weights.get(owner, 1.0)


class BorrowedVirtualTime(Fair):
    """Owners share by weight in the long run; at each moment short calls go first, at once.

    `Fair` with the levels of `Mlfq`, which count twice. Between owners, a call borrows: for each level that it is better, it goes
    as if its turn began `warp_tokens` earlier in virtual time. It is charged to its owner all the same, so what short calls
    gain is a head start and no share. Among the calls of one owner the levels are rungs: a call begins behind those of its
    owner that are at least as good, and not behind all. (Without rungs, short calls of an owner that has long ones as well
    took 32 s at p95, not 2.4 s, in the simulated crowd `one-owner`.) An owner that others were preferred to keeps its claim
    while it has calls, up to what can be borrowed; else only the lenders would pay.

    A nice value is worth as much of a level as under `Mlfq`.

    Head start: as for `Fair`, with the tag later by what the best call may borrow, `most_borrowed`, and by as much again for
    the claims of others.

    Source: Duda and Cheriton, *Borrowed-Virtual-Time scheduling*, SOSP 1999; levels and shares as in `Mlfq` and `Fair`.
    """

    name = "bvt"
    n_rungs = N_LEVELS

    def __init__(self, config: SchedulerConfig = SchedulerConfig()) -> None:
        super().__init__(config)
        self.margin = config.warp_tokens
        self._levels = Mlfq(config)
        self._nice_levels = config.nice_step_s / config.level_step_s
        worst = N_LEVELS - 1 + (NICEST - RUDEST) * self._nice_levels
        self.most_borrowed = worst * config.warp_tokens

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:  # noqa: ARG002 - the contract of all policies
        return (self._tag(ticket) + self._place(ticket) * self.config.warp_tokens, number)

    def spent(self, ticket: Ticket, n_tokens: int) -> None:
        super().spent(ticket, n_tokens)
        self._levels.spent(ticket, n_tokens)

    def done(self, ticket: Ticket) -> None:
        super().done(ticket)
        self._levels.done(ticket)

    def forget(self, pid: Pid) -> None:
        self._levels.forget(pid)

    def quantum_tokens(self, ticket: Ticket) -> int | None:
        return self._levels.quantum_tokens(ticket)

    def is_urgent(self, ticket: Ticket) -> bool:
        return self._levels.is_urgent(ticket)

    def level(self, ticket: Ticket) -> int:
        return self._levels.level(ticket)

    def _place(self, ticket: Ticket) -> float:
        """The level, shifted by the nice value; at least 0, which is where a call of level 0 is that is as rude as can be."""
        return self._levels.level(ticket) + (ticket.nice - RUDEST) * self._nice_levels

    def _rung(self, ticket: Ticket) -> int:
        rung = self._levels.level(ticket) + round(ticket.nice * self._nice_levels)
        return min(max(0, rung), N_LEVELS - 1)
