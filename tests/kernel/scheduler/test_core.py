import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from aios.abi.types import Pid
from aios.config import SchedulerConfig
from aios.kernel.scheduler.core import (
    Arrive,
    Core,
    Event,
    Grant,
    Hold,
    Instruction,
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
from aios.kernel.scheduler.policies import POLICIES
from aios.kernel.scheduler.policy import Fifo, Mlfq, Priority, Ticket


def ticket(
    number: int, pid: int = 1, resource: str = "engine", *, nice: int = 0, n_tokens: int = 0
) -> Ticket:
    return Ticket(
        number,
        Pid(pid),
        resource,
        nice,
        owner=f"owner{pid % 3}",
        n_prompt_tokens=n_tokens,
        n_context_tokens=n_tokens,
    )


def handle(core: Core, event: Event, now_s: float = 0.0) -> list[Instruction]:
    return core.handle(event, now_s)


def core_of(capacity: int, *, max_queue: int = 1000) -> Core:
    return Core(policy=Fifo(), max_queue=max_queue, capacities={"engine": capacity})


def test_turns_are_granted_up_to_the_capacity_and_then_in_order_of_arrival() -> None:
    core = core_of(2)
    granted = [handle(core, Arrive(ticket(n, pid=n))) for n in range(1, 6)]
    assert granted == [[Grant(1)], [Grant(2)], [], [], []]
    assert handle(core, Leave(2)) == [Grant(3)]
    assert handle(core, Leave(1)) == [Grant(4)]


def test_a_ticket_that_left_the_queue_is_never_granted() -> None:
    core = core_of(1)
    for n in (1, 2, 3):
        handle(core, Arrive(ticket(n)))
    assert handle(core, Leave(2)) == []
    assert handle(core, Leave(1)) == [Grant(3)]


def test_a_full_queue_refuses_and_says_how_long_it_is() -> None:
    core = core_of(1, max_queue=2)
    for n in (1, 2, 3):
        handle(core, Arrive(ticket(n)))
    assert handle(core, Arrive(ticket(4))) == [Refuse(4, 2)]
    assert handle(core, Arrive(ticket(5, pid=2))) == [], "who floods keeps nobody else out"
    assert handle(core, Arrive(ticket(6, pid=2))) == [Refuse(6, 3)]
    core.check_invariants()


def test_a_stopped_process_yields_its_turn_and_gets_none_until_it_goes_on() -> None:
    core = core_of(1)
    handle(core, Arrive(ticket(1, pid=7)))
    handle(core, Arrive(ticket(2, pid=7)))
    assert handle(core, Hold(Pid(7))) == [Yield(1)]
    assert handle(core, Leave(1)) == []
    assert handle(core, Arrive(ticket(3, pid=8))) == [Grant(3)]
    assert handle(core, Leave(3)) == []
    assert handle(core, Unhold(Pid(7))) == [Grant(2)]


def test_a_renewed_ticket_keeps_its_rank() -> None:
    core = core_of(1)
    handle(core, Arrive(ticket(1)))
    handle(core, Arrive(ticket(2)))
    assert handle(core, Renew(1)) == [Grant(1)]


def test_a_larger_capacity_grants_at_once_and_a_smaller_one_lets_turns_end() -> None:
    core = core_of(1)
    for n in (1, 2, 3):
        handle(core, Arrive(ticket(n)))
    assert handle(core, Resize("engine", 2)) == [Grant(2)]
    assert handle(core, Resize("engine", 1)) == []
    assert handle(core, Leave(1)) == []
    assert handle(core, Leave(2)) == [Grant(3)]


def full_of_long_calls(*, is_preemptible: bool = True) -> Core:
    core = Core(policy=Mlfq(), max_queue=100)
    handle(core, Resize("engine", 2, is_preemptible=is_preemptible))
    for n in (1, 2):
        handle(core, Arrive(ticket(n, pid=n, n_tokens=600)), float(n))
    return core


def test_a_newcomer_that_is_better_by_far_ends_the_worst_turn_at_once() -> None:
    core = full_of_long_calls()
    assert handle(core, Arrive(ticket(3, pid=3, n_tokens=20)), 3.0) == [Yield(2)]
    assert handle(core, Arrive(ticket(4, pid=4, n_tokens=500)), 3.0) == [], "not better by far"
    assert handle(core, Arrive(ticket(5, pid=5, n_tokens=20)), 3.0) == [Yield(1)]
    assert handle(core, Arrive(ticket(6, pid=6, n_tokens=20)), 3.0) == [], "all yield already"
    assert handle(core, Renew(2), 3.1) == [Grant(3, is_urgent=True)]
    core.check_invariants()


def test_an_engine_that_cannot_suspend_is_not_asked_to() -> None:
    core = full_of_long_calls(is_preemptible=False)
    assert handle(core, Arrive(ticket(3, pid=3, n_tokens=20)), 3.0) == []
    assert handle(core, Spend(1, 10_000), 4.0) == []


def test_a_turn_that_cannot_end_early_is_not_asked_to_and_keeps_nobody_else_from_it() -> None:
    core = Core(policy=Priority(), max_queue=100, capacities={"engine": 2})
    handle(core, Arrive(Ticket(1, Pid(1), "engine", nice=19, is_preemptible=False)))
    handle(core, Arrive(Ticket(2, Pid(2), "engine", nice=10)))
    assert handle(core, Arrive(Ticket(3, Pid(3), "engine"))) == [Yield(2)]
    assert handle(core, Renew(2)) == [Grant(3)]
    core.check_invariants()


def test_what_would_be_begun_anew_yields_to_nobody_better_but_to_a_stop() -> None:
    core = Core(policy=Mlfq(), max_queue=100, capacities={"engine": 1})
    handle(core, Arrive(Ticket(1, Pid(1), "engine", n_prompt_tokens=600, is_whole=True)))
    assert handle(core, Arrive(ticket(2, pid=2, n_tokens=20)), 1.0) == []
    assert handle(core, Spend(1, 10_000), 2.0) == []
    assert handle(core, Hold(Pid(1)), 3.0) == [Yield(1)]
    core.check_invariants()


def test_who_is_preempted_keeps_its_age_and_cannot_be_preempted_for_ever() -> None:
    core = full_of_long_calls()
    now_s, n_preempted = 3.0, 0
    for number in range(10, 100):
        now_s += 1.0
        if Yield(2) not in handle(core, Arrive(ticket(number, pid=number, n_tokens=20)), now_s):
            handle(core, Leave(number), now_s)
            continue
        n_preempted += 1
        assert Grant(number, is_urgent=True) in handle(core, Renew(2), now_s)
        assert handle(core, Leave(number), now_s) == [Grant(2)]
    assert 10 <= n_preempted <= 60, "a newcomer must be better than it was when it came, at 2.0"


def test_a_new_nice_value_ranks_those_that_wait_at_once_without_taking_their_age() -> None:
    core = Core(policy=Priority(), max_queue=100, capacities={"engine": 1})
    for number, now_s in ((1, 0.0), (2, 1.0), (3, 2.0)):
        handle(core, Arrive(ticket(number, pid=number, nice=5)), now_s)
    assert handle(core, Renice(Pid(3), 0), 9.0) == [Yield(1)], "better than the holder, by far"
    assert handle(core, Renew(1), 9.0) == [Grant(3)]
    handle(core, Renice(Pid(3), 19), 9.0)
    handle(core, Renice(Pid(2), 6), 9.0)
    assert handle(core, Leave(3), 9.0) == [Grant(1)], "it kept its age when it was preempted"
    core.check_invariants()


def test_what_the_kernel_does_for_a_process_keeps_its_own_nice_value() -> None:
    core = Core(policy=Priority(), max_queue=100, capacities={"engine": 1})
    summary = Ticket(2, Pid(2), "engine", nice=19, is_background=True)
    for wish in (ticket(1), summary, ticket(3, pid=2, nice=3)):
        handle(core, Arrive(wish))
    assert handle(core, Renice(Pid(2), 5)) == []
    assert handle(core, Leave(1)) == [Grant(3)]


class AnySequenceOfEvents(RuleBasedStateMachine):
    """Whatever happens, no ticket is lost or doubled and no turn is idle while somebody may have it."""

    tickets: Bundle[int] = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.core = Core(policy=Fifo(), max_queue=5, capacities={"a": 2, "b": 1})
        self.now_s = 0.0
        self.last = 0
        self.granted: set[int] = set()
        self.stopped: set[int] = set()
        self.pids: dict[int, int] = {}

    def handle(self, event: Event) -> list[Instruction]:
        instructions = handle(self.core, event, self.now_s)
        for instruction in instructions:
            if isinstance(instruction, Grant):
                number = instruction.ticket_id
                assert number not in self.granted, "granted twice"
                assert self.pids[number] not in self.stopped, "a stopped process got a turn"
                self.granted.add(number)
        return instructions

    @rule(
        target=tickets,
        pid=st.integers(1, 4),
        resource=st.sampled_from(["a", "b"]),
        nice=st.integers(-20, 19),
        n_tokens=st.sampled_from([0, 20, 100, 1000]),
    )
    def arrive(self, pid: int, resource: str, nice: int, n_tokens: int) -> int:
        self.last += 1
        self.pids[self.last] = pid
        wish = ticket(self.last, pid, resource, nice=nice, n_tokens=n_tokens)
        instructions = self.handle(Arrive(wish))
        for instruction in instructions:
            if isinstance(instruction, Yield):
                assert instruction.ticket_id in self.granted, "only a turn can be ended"
        return -1 if any(isinstance(i, Refuse) for i in instructions) else self.last

    @rule(number=consumes(tickets))
    def leave(self, number: int) -> None:
        if number > 0:
            self.granted.discard(number)
            self.handle(Leave(number))

    @rule(number=tickets)
    def renew(self, number: int) -> None:
        if number in self.granted:
            self.granted.remove(number)
            self.handle(Renew(number))

    @rule(number=tickets, n_tokens=st.integers(1, 200))
    def spend(self, number: int, n_tokens: int) -> None:
        if number in self.granted:
            for instruction in self.handle(Spend(number, n_tokens)):
                assert instruction == Yield(number), "only the spender is asked to yield"

    @rule(name=st.sampled_from(sorted(POLICIES)))
    def change_policy(self, name: str) -> None:
        self.handle(SetPolicy(POLICIES[name](SchedulerConfig())))

    @rule(pid=st.integers(1, 4), nice=st.integers(-20, 19))
    def renice(self, pid: int, nice: int) -> None:
        for instruction in self.handle(Renice(Pid(pid), nice)):
            assert isinstance(instruction, Yield)
            assert instruction.ticket_id in self.granted

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(pid=st.integers(1, 4))
    def hold(self, pid: int) -> None:
        self.stopped.add(pid)
        holders = {number for number in self.granted if self.pids[number] == pid}
        yielded = {i.ticket_id for i in self.handle(Hold(Pid(pid))) if isinstance(i, Yield)}
        assert yielded == holders

    @rule(pid=st.integers(1, 4))
    def unhold(self, pid: int) -> None:
        self.stopped.discard(pid)
        self.handle(Unhold(Pid(pid)))

    @rule(
        resource=st.sampled_from(["a", "b"]),
        capacity=st.integers(1, 4),
        is_preemptible=st.booleans(),
        budget_tokens=st.sampled_from([None, 0, 500, 5000]),
    )
    def resize(
        self, resource: str, capacity: int, *, is_preemptible: bool, budget_tokens: int | None
    ) -> None:
        self.handle(Resize(resource, capacity, is_preemptible, budget_tokens))

    @invariant()
    def check(self) -> None:
        self.core.check_invariants()


AnySequenceOfEvents.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestAnySequenceOfEvents = AnySequenceOfEvents.TestCase


@pytest.mark.parametrize("event", [SetPolicy(Priority()), Renice(Pid(3), -5)])
def test_who_comes_first_by_a_new_ranking_is_served_at_once_if_there_is_room(event: Event) -> None:
    core = Core(policy=Priority(), max_queue=100)
    if isinstance(event, SetPolicy):
        core.handle(SetPolicy(Fifo()), 0.0)
    rank_of_third = 1 if isinstance(event, SetPolicy) else 3
    handle(core, Resize("engine", 2, budget_tokens=100))
    handle(core, Arrive(ticket(1, pid=1, n_tokens=60)))
    assert handle(core, Arrive(ticket(2, pid=2, nice=2, n_tokens=60))) == [], "no room"
    assert handle(core, Arrive(ticket(3, pid=3, nice=rank_of_third, n_tokens=30))) == []
    assert handle(core, event) == [Grant(3)]
    core.check_invariants()


def test_places_count_from_the_holder_of_a_turn_and_a_process_has_its_best() -> None:
    core = core_of(1)
    for number, pid in enumerate((2, 3, 4, 3), start=1):
        handle(core, Arrive(Ticket(number, Pid(pid), "engine")))
    assert core.standings() == {2: (0, None), 3: (1, None), 4: (2, None)}
    handle(core, Hold(Pid(3)))
    assert core.standings() == {2: (0, None), 4: (1, None)}, "a stopped process waits for no turn"
    handle(core, SetPolicy(Mlfq()))
    assert core.standings()[Pid(4)] == (1, 0)
    handle(core, Leave(1))
    assert core.standings() == {4: (0, 0)}


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(POLICIES)),
    sizes=st.lists(st.integers(1, 2000), min_size=1, max_size=25),
    budget_tokens=st.integers(0, 3000),
    capacity=st.integers(1, 4),
)
def test_all_are_served_and_the_working_set_keeps_to_its_budget(
    name: str, sizes: list[int], budget_tokens: int, capacity: int
) -> None:
    """Each call takes three quanta and is queued again between them; one that is alone may be larger than the budget."""
    core = Core(policy=POLICIES[name](SchedulerConfig()), max_queue=100)
    handle(core, Resize("engine", capacity, budget_tokens=budget_tokens))
    left = dict.fromkeys(range(len(sizes)), 3)
    running = [
        grant.ticket_id
        for number, n_tokens in enumerate(sizes)
        for grant in handle(core, Arrive(ticket(number, pid=number, n_tokens=n_tokens)), number)
        if isinstance(grant, Grant)
    ]
    while left:
        working_set = core.lanes["engine"].working_set_tokens
        begun = [number for number in left if number in running or left[number] < 3]
        assert working_set <= budget_tokens or len(begun) == 1, begun
        holder = running.pop(0)
        handle(core, Spend(holder, 32), 100.0)
        left[holder] -= 1
        instructions = handle(core, Renew(holder) if left[holder] else Leave(holder), 100.0)
        if not left[holder]:
            del left[holder]
        running += [each.ticket_id for each in instructions if isinstance(each, Grant)]
        core.check_invariants()
