"""The async shell of the scheduler: waits for the turns that the core grants.

async with scheduler.turn(run, "engine:local") as turn:   # waits here; cancelled = withdrawn
    ...
    if turn.must_yield: ...                                # leave, or `await turn.renew()`
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from msgspec import Struct

from aios.abi.types import Pid
from aios.errors import ResourceExhausted
from aios.kernel.clock import Clock
from aios.kernel.process import Run, Standing
from aios.kernel.scheduler.core import (
    Arrive,
    Core,
    Event,
    Forget,
    Grant,
    Hold,
    Leave,
    Refuse,
    Renew,
    Renice,
    Resize,
    SetPolicy,
    Spend,
    Unhold,
    Yield,
)
from aios.kernel.scheduler.policy import Policy, Ticket

BACKGROUND_NICE = 19


@dataclass(eq=False)
class Turn:
    """The right to use one unit of a resource, for as long as its block lasts."""

    ticket_id: int
    run: Run
    _scheduler: "Scheduler"
    must_yield: bool = False
    is_granted: bool = False
    is_urgent: bool = False
    """The engine should compute it before what is not."""
    refused_at: int | None = None
    _granted: anyio.Event | None = None
    _interrupt: anyio.CancelScope | None = None

    def interruptible(self) -> anyio.CancelScope:
        """A scope whose block is cut short when the turn must end; look at `cancelled_caught` after it."""
        self._interrupt = anyio.CancelScope()
        if self.must_yield:
            self._interrupt.cancel()
        return self._interrupt

    def spend(self, n_tokens: int) -> None:
        """Account for what the holder has used; after its quantum, `must_yield` is set if somebody better waits."""
        self._scheduler.spend(self, n_tokens)

    async def renew(self) -> None:
        """Give the turn back and wait for another. Whatever occupies the resource must have been freed before."""
        self._scheduler.give_back(self)
        await self._scheduler.wait(self)

    def ask_to_yield(self) -> None:
        """Called by the scheduler: end as soon as possible."""
        self.must_yield = True
        if self._interrupt is not None:
            self._interrupt.cancel()

    def grant(self, *, is_urgent: bool) -> None:
        """Called by the scheduler: the turn begins."""
        self.is_granted = True
        self.is_urgent = is_urgent
        self.must_yield = False
        if self._granted is not None:
            self._granted.set()

    async def wait_granted(self) -> None:
        """Wait for the beginning of the turn."""
        if not self.is_granted:
            self._granted = anyio.Event()
            await self._granted.wait()
            self._granted = None


class LaneStatistics(Struct, frozen=True):
    """How busy a resource is."""

    capacity: int
    n_granted: int
    n_queued: int
    is_preemptible: bool = True
    working_set_tokens: int = 0
    budget_tokens: int | None = None


@dataclass(eq=False)
class Scheduler:
    """Hands out turns at resources."""

    policy: Policy
    clock: Clock
    max_queue: int
    _turns: dict[int, Turn] = field(default_factory=dict)
    _last_ticket: int = 0

    def __post_init__(self) -> None:
        self._core = Core(policy=self.policy, max_queue=self.max_queue)

    def set_capacity(
        self,
        resource: str,
        capacity: int,
        *,
        is_preemptible: bool = True,
        budget_tokens: int | None = None,
    ) -> None:
        """Make a resource known, or change its size; the arguments are those of `Lane`."""
        self._handle(
            Resize(resource, capacity, is_preemptible=is_preemptible, budget_tokens=budget_tokens)
        )

    @asynccontextmanager
    async def turn(
        self,
        run: Run,
        resource: str,
        *,
        n_prompt_tokens: int = 0,
        n_context_tokens: int = 0,
        is_preemptible: bool = True,
        is_whole: bool = False,
    ) -> AsyncIterator[Turn]:
        """Hold one unit of a resource; waits, parked, until it is granted. Cancelling withdraws.

        Args:
            run: Who wants it.
            resource: What of.
            n_prompt_tokens: About how long the prompt is.
            n_context_tokens: About what prompt and output may take together.
            is_preemptible: Whether the holder heeds `must_yield` at once.
            is_whole: Whether it would be begun anew in another turn; then only a stop sets `must_yield`.

        Raises:
            ResourceExhausted: `max_queue` calls wait for it already, and the process has another one.
        """
        self._last_ticket += 1
        process = run.process
        ticket = Ticket(
            self._last_ticket,
            process.pid,
            resource,
            nice=BACKGROUND_NICE if run.is_background else process.nice,
            owner=process.owner,
            deadline_s=run.deadline_s,
            n_prompt_tokens=n_prompt_tokens,
            n_context_tokens=n_context_tokens,
            is_background=run.is_background,
            is_preemptible=is_preemptible,
            is_whole=is_whole,
        )
        turn = Turn(ticket.id, run, self)
        self._turns[ticket.id] = turn
        self._handle(Arrive(ticket))
        if turn.refused_at is not None:
            del self._turns[ticket.id]
            raise ResourceExhausted(
                f"{turn.refused_at} calls wait for {resource} already",
                hint="try again later",
                retry_after_s=5.0,
            )
        try:
            await self.wait(turn)
            yield turn
        finally:
            self._stop_running(turn)
            del self._turns[ticket.id]
            self._handle(Leave(ticket.id))

    async def wait(self, turn: Turn) -> None:
        """Wait, parked, for a turn that has arrived or was given back."""
        run = turn.run
        if not turn.is_granted:
            run.waiting_since_s = self.clock.now_s()
            try:
                with run.parked():
                    await turn.wait_granted()
            finally:
                run.waited_s += self.clock.now_s() - run.waiting_since_s
                run.waiting_since_s = None
        run.running_since_s = self.clock.now_s()

    def give_back(self, turn: Turn) -> None:
        """End a turn and queue its ticket again."""
        self._stop_running(turn)
        turn.is_granted = False
        self._handle(Renew(turn.ticket_id))

    def spend(self, turn: Turn, n_tokens: int) -> None:
        """The holder of a turn has used so many tokens."""
        self._handle(Spend(turn.ticket_id, n_tokens))

    def set_policy(self, policy: Policy) -> None:
        """From now on this policy decides; those that wait are ranked anew."""
        self.policy = policy
        self._handle(SetPolicy(policy))

    def renice(self, pid: Pid, nice: int) -> None:
        """The process has another nice value: its calls that wait are ranked anew at once."""
        self._handle(Renice(pid, nice))

    def forget(self, pid: Pid) -> None:
        """The process has ended."""
        self._handle(Unhold(pid))
        self._handle(Forget(pid))

    def hold(self, pid: Pid) -> None:
        """The process is stopped: its turns end and it gets none."""
        self._handle(Hold(pid))

    def unhold(self, pid: Pid) -> None:
        """The process goes on."""
        self._handle(Unhold(pid))

    def statistics(self) -> dict[str, LaneStatistics]:
        """How busy each resource is."""
        return {
            name: LaneStatistics(
                lane.capacity,
                len(lane.granted),
                lane.n_queued,
                is_preemptible=lane.is_preemptible,
                working_set_tokens=lane.working_set_tokens,
                budget_tokens=lane.budget_tokens,
            )
            for name, lane in self._core.lanes.items()
        }

    def longest_wait_s(self, resource: str) -> float:
        """How long the call has waited there that was queued first. Cost: O(n)."""
        return self._core.longest_wait_s(resource, self.clock.now_s())

    def standings(self) -> dict[Pid, Standing]:
        """How far each process that wants a turn is from one."""
        return {pid: Standing(*found) for pid, found in self._core.standings().items()}

    def check_invariants(self) -> None:
        """Raise AssertionError if the core contradicts itself or the shell."""
        self._core.check_invariants()

    def _stop_running(self, turn: Turn) -> None:
        run = turn.run
        if run.running_since_s is not None:
            run.ran_s += self.clock.now_s() - run.running_since_s
            run.running_since_s = None

    def _handle(self, event: Event) -> None:
        for instruction in self._core.handle(event, self.clock.now_s()):
            turn = self._turns[instruction.ticket_id]
            match instruction:
                case Grant(is_urgent=is_urgent):
                    turn.grant(is_urgent=is_urgent)
                case Yield():
                    turn.ask_to_yield()
                case Refuse(n_queued=n_queued):
                    turn.refused_at = n_queued
