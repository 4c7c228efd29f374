"""Policies: in which order tickets that wait are served, and how long a turn lasts when somebody better waits. Pure.

A rank is given when a ticket is queued and stays while it waits, so a decision costs O(log n) however many wait. Ageing needs
no recomputation either: all that wait age alike, so `queued_s + penalty_s` orders them for good, and a ticket that is
`penalty_s` behind is served first once it has waited that much longer.

Nobody starves. Each policy says after which *head start* nobody that comes later can pass a ticket any more; a ticket waits
for at most the turns of those that were queued before its head start was over.
"""

from math import exp2
from typing import Protocol

from msgspec import Struct

from aios.abi.types import Pid
from aios.config import SchedulerConfig
from aios.kernel.scheduler.queue import Rank

NICEST, RUDEST = 19, -20
TURN_COST_TOKENS = 32
"""What a turn costs in which nothing was computed, and what one is charged beforehand beside the prompt."""
FIRST_LEVEL_TOKENS = 64
N_LEVELS = 8
LATELY_TOKENS = 8192
"""What a program was served counts half when the engine has served so many tokens since."""
LATELY_SHARE = 1 / 8
"""A program is treated as if each of its calls needed at least this share of what it was served of late."""
MAX_QUANTUM_DOUBLINGS = 3


class Ticket(Struct, frozen=True):
    """A wish for a turn at a resource. `id` grows with arrival; `deadline_s` is on the clock of `now_s`.

    `n_prompt_tokens` is about how long the prompt is, `n_context_tokens` what prompt and output may take together.
    """

    id: int
    pid: Pid
    resource: str
    nice: int = 0
    owner: str = ""
    deadline_s: float | None = None
    n_prompt_tokens: int = 0
    n_context_tokens: int = 0
    is_background: bool = False
    """The kernel made the call on behalf of a process: its nice value is not that of the process."""
    is_preemptible: bool = True
    """Its turn can end at any moment; one that computes vectors ends when some are done."""
    is_whole: bool = False
    """It could not go on in another turn and would be begun anew, so nobody better ends its turn; only a stop does."""


class Policy(Protocol):
    """Ranks tickets; the lowest rank is served first."""

    name: str
    config: SchedulerConfig
    margin: float | None
    """A newcomer whose rank begins with this much less than that of a turn ends that turn at once; None: never."""

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
        """The holder of a turn has used the resource for so many tokens, or a ticket that had one before."""
        ...

    def held(self, ticket: Ticket) -> None:
        """The ticket's process is stopped: it neither waits nor has a turn until it is queued again."""
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

    def is_urgent(self, ticket: Ticket) -> bool:
        """Whether the engine, too, should compute a turn of this ticket before those of others."""
        ...

    def level(self, ticket: Ticket) -> int | None:
        """The ticket's level, 0 the first; None if the policy has none."""
        ...


class Fifo:
    """First come, first served; a turn lasts until it is given back. Head start: none, nobody is ever passed."""

    name = "fifo"
    margin: float | None = None

    def __init__(self, config: SchedulerConfig = SchedulerConfig()) -> None:
        self.config = config

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:  # noqa: ARG002 - the contract of all policies
        return (ticket.id,)

    def queued(self, ticket: Ticket) -> None:
        """Nothing to remember."""

    def granted(self, ticket: Ticket, rank: Rank) -> None:
        """Nothing to remember."""

    def spent(self, ticket: Ticket, n_tokens: int) -> None:
        """Nothing to remember."""

    def held(self, ticket: Ticket) -> None:
        """Nothing to remember."""

    def done(self, ticket: Ticket) -> None:
        """Nothing to forget."""

    def forget(self, pid: Pid) -> None:
        """Nothing to forget."""

    def quantum_tokens(self, ticket: Ticket) -> int | None:  # noqa: ARG002 - the contract of all policies
        return None

    def is_urgent(self, ticket: Ticket) -> bool:  # noqa: ARG002 - the contract of all policies
        return False

    def level(self, ticket: Ticket) -> int | None:  # noqa: ARG002 - the contract of all policies
        return None


class RoundRobin(Fifo):
    """Everyone in turn, a quantum each. Head start: none; a ticket waits for one turn of each that was queued before it."""

    name = "rr"

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:  # noqa: ARG002 - the contract of all policies
        return (number,)

    def quantum_tokens(self, ticket: Ticket) -> int | None:  # noqa: ARG002 - the contract of all policies
        return self.config.quantum_tokens


class Priority(RoundRobin):
    """The least nice first, at once, with ageing.

    Head start: `(its nice - RUDEST) * nice_step_s`, at most 39 steps.
    """

    name = "priority"

    def __init__(self, config: SchedulerConfig = SchedulerConfig()) -> None:
        super().__init__(config)
        self.margin = config.nice_step_s

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:
        return (now_s + ticket.nice * self.config.nice_step_s, number)


class Mlfq(RoundRobin):
    """Short calls first, at once, in levels, with ageing; niceness shifts the level.

    A call enters at the level of its prompt and sinks as it is served: it needs no promise of how long it will be. Since the
    prompt of an agent's call is its whole conversation, agents sink with their age. A program that takes much of the model
    by many short calls sinks as well: what it was served of late counts too.

    Head start: `(N_LEVELS - 1) * level_step_s`, and as much as `Priority` for nice values.

    Source: levels by the prompt, FastServe, arXiv 2305.05920; by the service of a whole program, Agentix/Autellix, arXiv
    2502.13965; multi-level feedback queues after Corbató 1962.
    """

    name = "mlfq"

    def __init__(self, config: SchedulerConfig = SchedulerConfig()) -> None:
        super().__init__(config)
        self.margin = config.level_step_s
        self._served: dict[int, int] = {}
        self._lately: dict[Pid, tuple[float, int]] = {}
        """What each program was served of late, as of when so many tokens had been served in all."""
        self._n_served = 0

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:
        penalty_s = self.level(ticket) * self.config.level_step_s
        return (now_s + penalty_s + ticket.nice * self.config.nice_step_s, number)

    def spent(self, ticket: Ticket, n_tokens: int) -> None:
        self._served[ticket.id] = self._served.get(ticket.id, 0) + n_tokens
        self._n_served += n_tokens
        self._lately[ticket.pid] = (self.lately_tokens(ticket.pid) + n_tokens, self._n_served)

    def done(self, ticket: Ticket) -> None:
        self._served.pop(ticket.id, None)

    def forget(self, pid: Pid) -> None:
        self._lately.pop(pid, None)

    def quantum_tokens(self, ticket: Ticket) -> int | None:
        """Long calls get long turns: they are served later, but interrupted less often."""
        return self.config.quantum_tokens << min(self.level(ticket), MAX_QUANTUM_DOUBLINGS)

    def is_urgent(self, ticket: Ticket) -> bool:
        return self.level(ticket) == 0

    def level(self, ticket: Ticket) -> int:
        """0 for a short call; one more each time that what it takes has doubled."""
        n_tokens = ticket.n_prompt_tokens + self._served.get(ticket.id, 0)
        n_tokens = max(n_tokens, int(self.lately_tokens(ticket.pid) * LATELY_SHARE))
        return min((n_tokens // FIRST_LEVEL_TOKENS).bit_length(), N_LEVELS - 1)

    def lately_tokens(self, pid: Pid) -> float:
        """What a program was served, that of long ago counting less."""
        n_tokens, as_of = self._lately.get(pid, (0.0, self._n_served))
        return n_tokens * exp2((as_of - self._n_served) / LATELY_TOKENS)


class Edf(RoundRobin):
    """The earliest deadline first, at once; a later one than `no_deadline_s` from now, or none, as if it were that.

    Head start: `no_deadline_s`.
    """

    name = "edf"
    margin: float | None = 1.0

    def rank(self, ticket: Ticket, *, number: int, now_s: float) -> Rank:
        due_s = now_s + self.config.no_deadline_s
        return (due_s if ticket.deadline_s is None else min(ticket.deadline_s, due_s), number)
