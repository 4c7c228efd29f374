"""The scheduler in virtual time: replays a trace through the scheduling core and a model of an engine. Pure.

`simulate(agents, policy)` drives the very core that the kernel runs (`core.py`), call by call and step by step of the engine,
so what it says of a policy holds for the policy itself; only the engine is a model, by measured rates. Events wait in a heap:
O(log n) each, about a million simulated tokens in two seconds. With no policy there is no scheduler: calls go to the engine
as they come, are refused when there is no room for them, and come back later; where memory is what there is no room in, they are
let in by their prompts and fail when they have grown, and what was computed of them is lost.
Source: steps of a batch as the unit of time, as in Vidur, arXiv 2405.05465; the baseline without a scheduler, AIOS, 2403.16971.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from aios.abi.trace import TracedAgent, TracedCall
from aios.abi.types import Pid
from aios.engine.batch import URGENT_WAITS, n_decodes_before_prefill
from aios.kernel.scheduler.core import (
    Arrive,
    Core,
    Forget,
    Grant,
    Instruction,
    Leave,
    Renew,
    Resize,
    Spend,
    Yield,
)
from aios.kernel.scheduler.engine_model import BackOff, EngineModel
from aios.kernel.scheduler.outcome import CallOutcome, Outcome
from aios.kernel.scheduler.policy import Policy, Ticket
from aios.kernel.scheduler.residence import Found, Residence

RESOURCE = "engine"
MAX_QUEUE = 1 << 30
FETCH = -1
"""In place of the number of a call: the context of an agent is fetched."""
DECODES_AT_ONCE = 8
"""The most decode steps that are taken as one: as many as an engine's reader gets in one piece."""


def simulate(
    agents: Sequence[TracedAgent],
    policy: Policy | None,
    engine: EngineModel = EngineModel(),
    *,
    back_off: BackOff = BackOff(),
    memory_tokens: int | None = None,
    check: bool = False,
) -> Outcome:
    """Run a trace to its end.

    Args:
        agents: Who comes when, with what.
        policy: Fresh, since it remembers; None is no scheduler.
        engine: How fast the engine is.
        back_off: Of refused and failed calls when there is no scheduler.
        memory_tokens: When there is no scheduler: tokens of context that the engine can hold at once, in place of slots.
        check: Check the core's invariants after every step of the engine; slow.

    Returns: What became of every call; the same for the same arguments.
    """
    run = _Simulation(agents, policy, engine, back_off=back_off, memory_tokens=memory_tokens)
    while run.step():
        if check:
            run.check_invariants()
    return run.outcome()


@dataclass(eq=False, slots=True)
class _Job:
    """A call on its way."""

    agent: int
    number: int
    call: TracedCall
    ticket: Ticket
    arrived_s: float
    queued_s: float
    n_to_fill: int
    n_to_write: int
    n_context: int = 0
    waited_s: float = 0.0
    longest_wait_s: float = 0.0
    n_preemptions: int = 0
    n_refusals: int = 0
    has_begun: bool = False
    read_s: float = 0.0
    """What reading its context takes, which is not in memory."""
    stalled_s: float = 0.0
    """How long it had a slot meanwhile."""
    ready_s: float = 0.0
    """When it can go on: it has been read by then."""
    must_yield: bool = False
    is_urgent: bool = False


class _Simulation:
    """The state of a run. An entry of the heap is (time, order, job): the job comes then, for the first time or again."""

    def __init__(
        self,
        agents: Sequence[TracedAgent],
        policy: Policy | None,
        engine: EngineModel,
        *,
        back_off: BackOff,
        memory_tokens: int | None,
    ) -> None:
        self._agents = agents
        self._engine = engine
        self._residence = Residence(engine.memory)
        self._back_off = back_off
        self._memory_tokens = memory_tokens if policy is None else None
        self._core: Core | None = None
        if policy is not None:
            capacities = {RESOURCE: engine.n_slots}
            self._core = Core(policy=policy, max_queue=MAX_QUEUE, capacities=capacities)
            limit = Resize(RESOURCE, engine.n_slots, budget_tokens=engine.budget_tokens)
            self._core.handle(limit, 0.0)
        self._decode_s = [0.0] + [n / engine.decode_rate(n) for n in range(1, engine.n_slots + 1)]
        self._now_s = 0.0
        self._debt_s = 0.0
        """Time that switches have cost since the last step; the next one is longer by it."""
        self._n_decoded = URGENT_WAITS
        """Decode steps since the last prefill step."""
        self._last_ticket = self._n_events = 0
        self._heap: list[tuple[float, int, int, int, _Job | None]] = []
        self._jobs: dict[int, _Job] = {}
        self._seated: dict[int, _Job] = {}
        """Who has a slot, by ticket, oldest first."""
        self._ended: list[CallOutcome] = []
        self._n_refusals = self._n_lost_tokens = self._n_recomputed = self._peak_tokens = 0
        self._held_back_s = 0.0
        """Time in which a slot was free and calls waited until the working set had room."""
        self._served = {agent.owner: 0 for agent in agents if agent.calls}
        self._contended = dict(self._served)
        self._n_open = dict(self._served)
        """Agents of each owner that have come and are not done."""
        self._n_owners_open = 0
        for index, agent in enumerate(agents):
            if agent.calls:
                self._expect(agent.arrives_s, index, 0)

    def step(self) -> bool:
        """One step of the engine, and all that comes meanwhile. Returns: False when all is done."""
        begun_s, is_held_back = self._now_s, self._note_working_set()
        goes_on = self._step()
        self._held_back_s += self._now_s - begun_s if is_held_back else 0.0
        return goes_on

    def _note_working_set(self) -> bool:
        """Whether calls wait although a slot is free."""
        if self._core is None:
            return False
        lane = self._core.lanes[RESOURCE]
        self._peak_tokens = max(self._peak_tokens, lane.working_set_tokens)
        return bool(lane.n_queued) and len(lane.granted) < lane.capacity

    def _step(self) -> bool:
        ready = [job for job in self._seated.values() if job.ready_s <= self._now_s]
        if not ready:
            nexts = [job.ready_s for job in self._seated.values()] + [
                at_s for at_s, *_ in self._heap[:1]
            ]
            if nexts:
                self._advance(max(self._now_s, min(nexts)))
            return bool(nexts)
        filling = [job for job in ready if job.n_to_fill]
        decoding = [job for job in ready if not job.n_to_fill]
        filling.sort(key=lambda job: not job.is_urgent)
        n_decodes = self._n_decodes_before(filling, decoding)
        if n_decodes > 0:
            self._decode(decoding, n_decodes)
        else:
            self._fill(filling)
        for job in [job for job in self._seated.values() if job.must_yield]:
            self._suspend(job)
        return True

    def outcome(self) -> Outcome:
        """What has become of all calls."""
        return Outcome(
            tuple(self._ended),
            self._now_s,
            self._served,
            self._contended,
            self._n_refusals,
            n_lost_tokens=self._n_lost_tokens,
            n_recomputed=self._n_recomputed,
            peak_tokens=self._peak_tokens,
            held_back_s=self._held_back_s,
        )

    def check_invariants(self) -> None:
        """Raise AssertionError if the core contradicts itself or the engine's slots."""
        if self._memory_tokens is None:
            assert len(self._seated) <= self._engine.n_slots, "more sequences than slots"
        else:
            is_alone = (
                len(self._seated) < 2
            )  # it is let go on whatever it takes, or it would never end
            assert self._n_free(self._memory_tokens) >= 0 or is_alone, "more context than memory"
        if self._core is not None:
            self._core.check_invariants()
            self._residence.check_invariants()
            assert self._core.n_granted(RESOURCE) == len(self._seated)
            assert self._core.n_queued(RESOURCE) == len(self._jobs) - len(self._seated)

    # --- the engine ----------------------------------------------------------------------------------------------

    def _fill(self, filling: list[_Job]) -> None:
        """A prefill step: the first takes what it needs, the others what is left of the chunk."""
        self._n_decoded = 0
        n_free = self._engine.chunk_tokens
        for job in filling:
            n_tokens = min(job.n_to_fill, n_free)
            n_free -= n_tokens
            job.n_to_fill -= n_tokens
            job.n_context += n_tokens
            self._note_served(job, n_tokens)
        n_done = self._engine.chunk_tokens - n_free
        self._advance(self._now_s + self._paid(n_done / self._engine.prefill_tokens_per_s))

    def _n_decodes_before(self, filling: list[_Job], decoding: list[_Job]) -> int:
        """The decode steps before the next prefill step, as `Batcher` has them."""
        if not filling or not decoding:
            return DECODES_AT_ONCE if decoding else 0
        is_held_up = any(job.is_urgent for job in decoding) and not filling[0].is_urgent
        n_held_up = len(filling) if is_held_up else 0
        return n_decodes_before_prefill(self._engine.n_decodes, n_held_up) - self._n_decoded

    def _decode(self, decoding: list[_Job], n_at_most: int) -> None:
        """Decode steps, several at once as long as nothing can happen in between."""
        if self._memory_tokens is not None:
            n_at_most = min(n_at_most, self._fit(decoding, self._memory_tokens))
        if not decoding:
            return
        step_s = self._step_s(len(decoding))
        n_steps = min(DECODES_AT_ONCE, n_at_most, *(job.n_to_write for job in decoding))
        if self._heap:
            n_steps = max(1, min(n_steps, 1 + int((self._heap[0][0] - self._now_s) / step_s)))
        self._n_decoded += n_steps
        for job in decoding:  # now: whoever comes meanwhile finds the memory taken
            job.n_to_write -= n_steps
            job.n_context += n_steps
        self._advance(self._now_s + self._paid(n_steps * step_s))
        for job in decoding:
            self._note_served(job, n_steps)
            self._spend(job, n_steps)
            if not job.n_to_write:
                self._finish(job)

    def _step_s(self, n_sequences: int) -> float:
        if n_sequences < len(self._decode_s):
            return self._decode_s[n_sequences]
        return n_sequences / self._engine.decode_rate(n_sequences)

    def _paid(self, step_s: float) -> float:
        debt_s, self._debt_s = self._debt_s, 0.0
        return step_s + debt_s

    def _advance(self, until_s: float) -> None:
        """Let time pass; whoever comes meanwhile comes at their own time."""
        while self._heap and self._heap[0][0] <= until_s:
            at_s, _, agent, number, job = heapq.heappop(self._heap)
            self._now_s = max(self._now_s, at_s)
            if number == FETCH:
                self._residence.expect(agent)
            else:
                self._come(self._new_job(agent, number) if job is None else job)
        self._now_s = until_s

    def _note_served(self, job: _Job, n_tokens: int) -> None:
        owner = job.ticket.owner
        self._served[owner] += n_tokens
        if self._n_owners_open == len(self._n_open):
            self._contended[owner] += n_tokens

    # --- a call's way --------------------------------------------------------------------------------------------

    def _expect(self, at_s: float, agent: int, number: int, job: _Job | None = None) -> None:
        self._n_events += 1
        heapq.heappush(self._heap, (at_s, self._n_events, agent, number, job))

    def _new_job(self, index: int, number: int) -> _Job:
        agent = self._agents[index]
        call = agent.calls[number]
        if number == 0:
            self._n_owners_open += not self._n_open[agent.owner]
            self._n_open[agent.owner] += 1
        self._last_ticket += 1
        due_s = None if call.deadline_s is None else self._now_s + call.deadline_s
        ticket = Ticket(
            self._last_ticket,
            Pid(index + 2),
            RESOURCE,
            agent.nice,
            agent.owner,
            due_s,
            call.prompt_tokens,
            call.prompt_tokens + call.output_tokens,
        )
        job = _Job(
            index,
            number,
            call,
            ticket,
            arrived_s=self._now_s,
            queued_s=self._now_s,
            n_to_fill=call.prompt_tokens - call.cached_tokens,
            n_to_write=call.output_tokens,
            n_context=call.cached_tokens,
        )
        self._take(job, self._residence.come_back(index, self._now_s))
        return job

    def _take(self, job: _Job, found: Found) -> None:
        """A call goes on with what there is of its context; what was dropped is computed again."""
        n_lost = min(found.n_dropped, job.n_context)
        job.read_s += found.read_s
        job.n_to_fill += n_lost
        job.n_context -= n_lost
        self._n_recomputed += n_lost

    def _come(self, job: _Job) -> None:
        """A call wants a slot."""
        self._jobs[job.ticket.id] = job
        job.ready_s, job.read_s = (
            self._now_s + job.read_s,
            0.0,
        )  # what is known beforehand is read while it waits
        if self._core is not None:
            self._follow(self._core.handle(Arrive(job.ticket), self._now_s))
        elif self._has_room(job):
            self._seat(job)
        else:
            self._send_away(job)

    # --- without a scheduler -------------------------------------------------------------------------------------

    def _has_room(self, job: _Job) -> bool:
        if self._memory_tokens is None:
            return len(self._seated) < self._engine.n_slots
        return not self._seated or job.call.prompt_tokens <= self._n_free(self._memory_tokens)

    def _send_away(self, job: _Job) -> None:
        job.n_refusals += 1
        self._n_refusals += 1
        delay_s = self._back_off.delay_s(job.ticket.id, job.n_refusals)
        self._expect(self._now_s + delay_s, job.agent, job.number, job)

    def _n_free(self, memory_tokens: int) -> int:
        held = (
            job.call.prompt_tokens + job.call.output_tokens - job.n_to_write
            for job in self._seated.values()
        )
        return memory_tokens - sum(held)

    def _fit(self, decoding: list[_Job], memory_tokens: int) -> int:
        """Let calls fail until there is memory for another token of each that is left. Returns: how many steps there is memory for.

        Whose allocation fails is chance: drawn, but the same in every run.
        """
        while (n_free := self._n_free(memory_tokens)) < len(decoding) and len(self._seated) > 1:
            self._n_events += 1
            self._fail(decoding.pop(self._n_events * 2654435761 % (1 << 32) % len(decoding)))
        return max(1, n_free // len(decoding)) if decoding else 0

    def _fail(self, job: _Job) -> None:
        """Out of memory: the call is as if it had never begun, and is sent away."""
        del self._seated[job.ticket.id]
        call = job.call
        self._n_lost_tokens += job.n_context - call.cached_tokens
        job.n_to_fill = call.prompt_tokens - call.cached_tokens
        job.n_to_write, job.n_context = call.output_tokens, call.cached_tokens
        job.waited_s, job.queued_s, job.has_begun = 0.0, job.arrived_s, False
        self._send_away(job)

    # --- turns ---------------------------------------------------------------------------------------------------

    def _follow(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            job = self._jobs[instruction.ticket_id]
            match instruction:
                case Grant(is_urgent=is_urgent):
                    job.is_urgent = is_urgent
                    self._seat(job)
                case Yield():
                    job.must_yield = True

    def _seat(self, job: _Job) -> None:
        wait_s = self._now_s - job.queued_s
        job.waited_s += wait_s
        job.longest_wait_s = max(job.longest_wait_s, wait_s)
        job.must_yield = False
        self._take(job, self._residence.seat(job.agent))
        job.ready_s = max(job.ready_s, self._now_s + job.read_s)
        job.read_s = 0.0
        job.stalled_s += max(0.0, job.ready_s - self._now_s)
        self._seated[job.ticket.id] = job
        self._debt_s += job.n_context * self._engine.page_in_s
        self._debt_s += self._engine.resume_s if job.has_begun else 0.0
        job.has_begun = True

    def _spend(self, job: _Job, n_tokens: int) -> None:
        if self._core is not None:
            self._follow(self._core.handle(Spend(job.ticket.id, n_tokens), self._now_s))

    def _suspend(self, job: _Job) -> None:
        """Somebody better waits: out of the slot, and into the queue again."""
        assert self._core is not None
        del self._seated[job.ticket.id]
        self._debt_s += self._engine.suspend_s
        self._debt_s += self._residence.suspend(job.agent, job.n_context)
        job.n_preemptions += 1
        job.queued_s = self._now_s
        self._follow(self._core.handle(Renew(job.ticket.id), self._now_s))

    def _finish(self, job: _Job) -> None:
        """The last token has come. What the prompt has cost is told now, as the kernel does."""
        self._spend(job, job.call.prompt_tokens - job.call.cached_tokens)
        del self._seated[job.ticket.id], self._jobs[job.ticket.id]
        agent = self._agents[job.agent]
        self._ended.append(self._outcome_of(job, agent.kind))
        if job.number + 1 < len(agent.calls):
            self._leave(job, agent.kind)
            self._expect(self._now_s + job.call.gap_s, job.agent, job.number + 1)
        else:
            self._residence.forget(job.agent)
            self._n_open[agent.owner] -= 1
            self._n_owners_open -= not self._n_open[agent.owner]
        if self._core is not None:
            self._follow(self._core.handle(Leave(job.ticket.id), self._now_s))
            if job.number + 1 == len(agent.calls):
                self._core.handle(Forget(job.ticket.pid), self._now_s)

    def _leave(self, job: _Job, kind: str) -> None:
        """An agent goes elsewhere; its context is kept meanwhile."""
        waits_s, fetch_after_s = self._residence.leave(
            job.agent, kind, n_tokens=job.n_context, now_s=self._now_s
        )
        self._debt_s += waits_s
        if fetch_after_s is not None:
            self._expect(self._now_s + fetch_after_s, job.agent, FETCH)

    def _outcome_of(self, job: _Job, kind: str) -> CallOutcome:
        due_s = job.ticket.deadline_s
        return CallOutcome(
            agent=job.agent,
            call=job.number,
            kind=kind,
            arrived_s=job.arrived_s,
            ended_s=self._now_s,
            waited_s=job.waited_s,
            longest_wait_s=job.longest_wait_s,
            alone_s=self._engine.alone_s(job.call),
            n_preemptions=job.n_preemptions,
            is_late=due_s is not None and self._now_s > due_s,
            read_s=job.stalled_s,
        )
