import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.types import Pid
from aios.config import SchedulerConfig
from aios.kernel.scheduler.core import (
    Arrive,
    Core,
    Forget,
    Grant,
    Leave,
    Renew,
    SetPolicy,
    Spend,
    Yield,
)
from aios.kernel.scheduler.fair import BorrowedVirtualTime, Fair
from aios.kernel.scheduler.policies import POLICIES, make_policy
from aios.kernel.scheduler.policy import (
    LATELY_TOKENS,
    N_LEVELS,
    Edf,
    Fifo,
    Mlfq,
    Policy,
    Priority,
    RoundRobin,
    Ticket,
)

CONFIG = SchedulerConfig()
QUANTUM_TOKENS, NICE_STEP_S = CONFIG.quantum_tokens, CONFIG.nice_step_s
LEVEL_STEP_S = CONFIG.level_step_s


def ticket(
    number: int, pid: int = 0, *, nice: int = 0, owner: str = "", due: float | None = None
) -> Ticket:
    return Ticket(number, Pid(pid or number), "engine", nice, owner, due)


def core_of(policy: Policy, capacity: int = 1) -> Core:
    return Core(policy=policy, max_queue=100_000, capacities={"engine": capacity})


def order_of(policy: Policy, *arrivals: tuple[Ticket, float]) -> list[int]:
    """The order in which tickets are served when one that came before all of them leaves."""
    core = core_of(policy)
    core.handle(Arrive(ticket(1000)), 0.0)
    for arrived, now_s in arrivals:
        core.handle(Arrive(arrived), now_s)
    served, last = [], 1000
    for _ in arrivals:
        (grant,) = core.handle(Leave(last), 0.0)
        last = grant.ticket_id
        served.append(last)
    return served


def test_fifo_serves_in_order_of_arrival_whatever_else_is_said() -> None:
    assert order_of(Fifo(), (ticket(1, nice=19), 0.0), (ticket(2, nice=-20), 9.0)) == [1, 2]


def test_priority_serves_the_less_nice_first() -> None:
    assert order_of(Priority(), (ticket(1, nice=5), 0.0), (ticket(2), 0.0)) == [2, 1]


def test_priority_ages_so_that_the_nice_do_not_starve() -> None:
    late = NICE_STEP_S * 5 + 1
    assert order_of(Priority(), (ticket(1, nice=5), 0.0), (ticket(2), late)) == [1, 2]


def test_edf_serves_the_earliest_deadline_first() -> None:
    assert order_of(
        Edf(), (ticket(1), 0.0), (ticket(2, due=50.0), 0.0), (ticket(3, due=20.0), 0.0)
    ) == [3, 2, 1]


def sized(number: int, n_prompt_tokens: int) -> Ticket:
    return Ticket(number, Pid(number), "engine", n_prompt_tokens=n_prompt_tokens)


def test_mlfq_serves_the_short_call_before_the_long_one_and_ages() -> None:
    long, short = sized(1, 100), sized(2, 10)
    assert [Mlfq().level(call) for call in (long, short)] == [1, 0]
    assert order_of(Mlfq(), (long, 0.0), (short, LEVEL_STEP_S - 1)) == [2, 1]
    assert order_of(Mlfq(), (long, 0.0), (short, LEVEL_STEP_S + 1)) == [1, 2]


def test_a_call_sinks_in_mlfq_as_it_is_served() -> None:
    policy, call = Mlfq(), sized(1, 60)
    assert policy.level(call) == 0
    policy.spent(call, 5)
    assert policy.level(call) == 1
    policy.done(call)
    assert policy.level(sized(1, 0)) == 0, "the next call of the program begins anew"


def test_a_program_that_took_much_of_late_by_many_short_calls_sinks_until_others_were_served() -> (
    None
):
    policy = Mlfq()
    for number in range(100):
        call = ticket(number, pid=7)
        policy.spent(call, 40)
        policy.done(call)
    level = policy.level(ticket(200, pid=7))
    assert level >= 3
    for _ in range(5):
        policy.spent(ticket(300, pid=8), LATELY_TOKENS)
    assert policy.level(ticket(200, pid=7)) < level
    policy.forget(Pid(7))
    assert policy.lately_tokens(Pid(7)) == 0


@pytest.mark.parametrize(
    "policy", [RoundRobin(), Priority(), Mlfq(), Edf(), Fair(), BorrowedVirtualTime()]
)
def test_a_turn_ends_after_its_quantum_only_if_somebody_better_waits(policy: Policy) -> None:
    core = core_of(policy)
    core.handle(Arrive(ticket(1, owner="a", nice=5)), 0.0)
    assert core.handle(Spend(1, 10 * QUANTUM_TOKENS), 0.0) == []
    if core.handle(Arrive(ticket(2, owner="b", due=1.0)), 0.0) == []:
        assert core.handle(Spend(1, 1), 1.0) == [Yield(1)]
    assert core.handle(Spend(1, 1), 1.0) == [], "it is asked once"
    assert [grant.ticket_id for grant in core.handle(Renew(1), 1.0)] == [2]
    core.check_invariants()


def test_fifo_never_ends_a_turn() -> None:
    core = core_of(Fifo())
    core.handle(Arrive(ticket(1)), 0.0)
    core.handle(Arrive(ticket(2, nice=-20)), 0.0)
    assert core.handle(Spend(1, 10_000), 0.0) == []


def test_a_free_turn_makes_nobody_yield() -> None:
    core = core_of(RoundRobin(), capacity=2)
    core.handle(Arrive(ticket(1)), 0.0)
    assert core.handle(Spend(1, 1000), 0.0) == []


def test_a_change_of_policy_ranks_all_that_wait_anew() -> None:
    core = core_of(Fifo())
    for number, nice in ((1, 0), (2, 10), (3, 0)):
        core.handle(Arrive(ticket(number, nice=nice)), 0.0)
    core.handle(SetPolicy(Priority()), 0.0)
    core.check_invariants()
    assert core.handle(Leave(1), 0.0) == [Grant(3)]


HEAD_START_S = {
    "priority": 39 * NICE_STEP_S,
    "mlfq": (N_LEVELS - 1) * LEVEL_STEP_S + 39 * NICE_STEP_S,
    "edf": 60.0,
}
"""As the policies' docstrings say."""


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from([name for name in POLICIES if name not in {"fair", "bvt"}]),
    n_rivals=st.integers(1, 4),
    capacity=st.integers(1, 3),
    nice=st.integers(-20, 19),
    size=st.sampled_from([0, 50, 500, 5000]),
    n_spent=st.integers(1, 100),
)
def test_nobody_waits_longer_than_for_those_that_came_before_its_head_start_was_over(
    *, name: str, n_rivals: int, capacity: int, nice: int, size: int, n_spent: int
) -> None:
    """The worst case for each policy: rivals that are better in every respect keep coming, more than can be served."""
    policy = make_policy(SchedulerConfig(policy=name, no_deadline_s=60.0))
    core = core_of(policy, capacity)
    running = list(range(2, 2 + capacity))
    for number in running:
        core.handle(Arrive(ticket(number)), 0.0)
    victim = Ticket(1, Pid(1), "engine", nice=19, deadline_s=1e6, n_prompt_tokens=size)
    core.handle(Arrive(victim), 0.0)
    n_before, n_turns, now_s, number = capacity, 0, 0.0, 10
    while 1 not in running:
        now_s += 1.0
        for _ in range(n_rivals):
            number += 1
            n_before += now_s <= HEAD_START_S.get(name, 0.0)
            core.handle(Arrive(ticket(number, nice=nice, due=now_s + 5)), now_s)
        holder = running.pop(0)
        core.handle(Spend(holder, n_spent), now_s)
        n_turns += 1
        assert n_turns <= n_before, f"{name}: {n_turns} turns, {n_before} came in time"
        running += [
            grant.ticket_id
            for grant in core.handle(Leave(holder), now_s)
            if isinstance(grant, Grant)
        ]
        core.handle(Forget(Pid(holder)), now_s)
    core.check_invariants()
