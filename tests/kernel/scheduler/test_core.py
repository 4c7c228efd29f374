from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from aios.abi.types import Pid
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
    Resize,
    SetPolicy,
    Spend,
    Unhold,
    Yield,
)
from aios.kernel.scheduler.policy import POLICIES, Fifo, Ticket


def ticket(number: int, pid: int = 1, resource: str = "engine") -> Ticket:
    return Ticket(number, Pid(pid), resource)


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


class AnySequenceOfEvents(RuleBasedStateMachine):
    """Whatever happens, no ticket is lost or doubled and no turn is idle while somebody may have it."""

    tickets: Bundle[int] = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.core = Core(policy=Fifo(), max_queue=5, capacities={"a": 2, "b": 1})
        self.last = 0
        self.granted: set[int] = set()
        self.stopped: set[int] = set()
        self.pids: dict[int, int] = {}

    def handle(self, event: Event) -> list[Instruction]:
        instructions = handle(self.core, event)
        for instruction in instructions:
            if isinstance(instruction, Grant):
                number = instruction.ticket_id
                assert number not in self.granted, "granted twice"
                assert self.pids[number] not in self.stopped, "a stopped process got a turn"
                self.granted.add(number)
        return instructions

    @rule(target=tickets, pid=st.integers(1, 4), resource=st.sampled_from(["a", "b"]))
    def arrive(self, pid: int, resource: str) -> int:
        self.last += 1
        self.pids[self.last] = pid
        refused = [
            i
            for i in self.handle(Arrive(ticket(self.last, pid, resource)))
            if isinstance(i, Refuse)
        ]
        return -1 if refused else self.last

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
        self.handle(SetPolicy(POLICIES[name]()))

    @rule(pid=st.integers(1, 4))
    def hold(self, pid: int) -> None:
        self.stopped.add(pid)
        yielded = {i.ticket_id for i in self.handle(Hold(Pid(pid))) if isinstance(i, Yield)}
        assert yielded == {number for number in self.granted if self.pids[number] == pid}

    @rule(pid=st.integers(1, 4))
    def unhold(self, pid: int) -> None:
        self.stopped.discard(pid)
        self.handle(Unhold(Pid(pid)))

    @rule(resource=st.sampled_from(["a", "b"]), capacity=st.integers(1, 4))
    def resize(self, resource: str, capacity: int) -> None:
        self.handle(Resize(resource, capacity))

    @invariant()
    def check(self) -> None:
        self.core.check_invariants()


AnySequenceOfEvents.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestAnySequenceOfEvents = AnySequenceOfEvents.TestCase
