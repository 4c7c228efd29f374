import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.types import Pid
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
from aios.kernel.scheduler.policy import (
    LEVEL_STEP_S,
    N_LEVELS,
    NICE_STEP_S,
    POLICIES,
    QUANTUM_TOKENS,
    Edf,
    Fair,
    Fifo,
    Mlfq,
    Policy,
    Priority,
    RoundRobin,
    Ticket,
)


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


def test_mlfq_serves_a_new_program_before_one_that_has_used_much_and_ages() -> None:
    policy = Mlfq()
    policy.spent(ticket(1), 100)
    assert policy.level(Pid(1)) == 1
    assert order_of(policy, (ticket(1), 0.0), (ticket(2), 1.0)) == [2, 1]
    assert order_of(policy, (ticket(1), 0.0), (ticket(2), LEVEL_STEP_S + 1)) == [1, 2]


def test_mlfq_counts_a_program_by_all_its_calls_and_forgets_it_at_its_end() -> None:
    policy = Mlfq()
    for number in range(5):
        policy.spent(ticket(number, pid=7), 50)
    assert policy.level(Pid(7)) == 2
    policy.forget(Pid(7))
    assert policy.level(Pid(7)) == 0


@pytest.mark.parametrize("policy", [RoundRobin(), Priority(), Mlfq(), Edf(), Fair()])
def test_a_turn_ends_after_its_quantum_only_if_somebody_better_waits(policy: Policy) -> None:
    core = core_of(policy)
    core.handle(Arrive(ticket(1, owner="a", nice=5)), 0.0)
    assert core.handle(Spend(1, 10 * QUANTUM_TOKENS), 0.0) == []
    core.handle(Arrive(ticket(2, owner="b", due=1.0)), 0.0)
    assert core.handle(Spend(1, 1), 1.0) == [Yield(1)]
    assert core.handle(Spend(1, 1), 1.0) == [], "it is asked once"
    assert core.handle(Renew(1), 1.0) == [Grant(2)]
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


def service(core: Core, tickets: list[Ticket], *, n_tokens: int) -> dict[str, int]:
    """Tokens that each owner gets while everyone always wants more, in turns of a quantum."""
    got: dict[str, int] = {}
    by_id = {t.id: t for t in tickets}
    running = [g.ticket_id for t in tickets for g in core.handle(Arrive(t), 0.0)]
    while sum(got.values()) < n_tokens:
        holder = running.pop(0)
        owner = by_id[holder].owner
        got[owner] = got.get(owner, 0) + QUANTUM_TOKENS
        core.handle(Spend(holder, QUANTUM_TOKENS), 0.0)
        running += [grant.ticket_id for grant in core.handle(Renew(holder), 0.0)]
        core.check_invariants()
    return got


def jain(shares: list[float]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def test_fair_gives_equal_owners_equal_service_when_one_has_ten_times_the_agents() -> None:
    tickets = [ticket(n, owner="big") for n in range(1, 21)]
    tickets += [ticket(100 + n, owner="small") for n in range(2)]
    got = service(core_of(Fair(), capacity=4), tickets, n_tokens=20_000)
    assert jain([got["big"], got["small"]]) >= 0.95, got


def test_fair_follows_weights() -> None:
    tickets = [ticket(n, owner="a") for n in (1, 2, 3, 4)] + [
        ticket(n, owner="b") for n in (5, 6, 7, 8)
    ]
    got = service(core_of(Fair({"a": 3.0}), capacity=2), tickets, n_tokens=20_000)
    assert got["a"] / got["b"] == pytest.approx(3.0, rel=0.1)


def test_an_owner_that_was_idle_gains_nothing_from_it() -> None:
    policy = Fair()
    core = core_of(policy)
    core.handle(Arrive(ticket(1, owner="busy")), 0.0)
    for _ in range(100):
        core.handle(Spend(1, QUANTUM_TOKENS), 0.0)
        core.handle(Renew(1), 0.0)
    core.handle(Arrive(ticket(2, owner="idle")), 0.0)
    core.handle(Arrive(ticket(3, owner="busy")), 0.0)
    got = {1: 0, 2: 0, 3: 0}
    holder = 1
    for _ in range(60):
        got[holder] += 1
        core.handle(Spend(holder, QUANTUM_TOKENS), 0.0)
        (grant,) = core.handle(Renew(holder), 0.0)
        holder = grant.ticket_id
    assert got[2] == pytest.approx(30, abs=4), "half of what was served since it came"


def test_a_change_of_policy_ranks_all_that_wait_anew() -> None:
    core = core_of(Fifo())
    for number, nice in ((1, 0), (2, 10), (3, 0)):
        core.handle(Arrive(ticket(number, nice=nice)), 0.0)
    core.handle(SetPolicy(Priority()), 0.0)
    core.check_invariants()
    assert core.handle(Leave(1), 0.0) == [Grant(3)]


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from([name for name in POLICIES if name != "fifo"]),
    rivals=st.integers(1, 3),
    nice=st.integers(-20, 19),
    level=st.integers(0, 5000),
)
def test_nobody_starves_under_any_policy(name: str, rivals: int, nice: int, level: int) -> None:
    """Only those that come within `head_start_s` can be served before a ticket, however many keep coming."""
    head_start_s = max(39 * NICE_STEP_S + N_LEVELS * LEVEL_STEP_S, 60.0)
    policy = POLICIES[name]()
    if isinstance(policy, Edf):
        policy.no_deadline_s = 60.0
    core = core_of(policy)
    victim = ticket(1, nice=19, owner="victim")
    policy.spent(victim, level)
    core.handle(Arrive(ticket(2, owner="first")), 0.0)
    core.handle(Arrive(victim), 0.0)
    now_s, number, holder = 0.0, 10, 2
    while holder != 1:
        now_s += 1.0
        assert now_s < head_start_s * rivals + 10, f"{name} starves"
        for _ in range(rivals):
            number += 1
            rival = ticket(number, nice=nice, owner=f"rival{number % rivals}", due=now_s + 5)
            core.handle(Arrive(rival), now_s)
        core.handle(Spend(holder, QUANTUM_TOKENS), now_s)
        (grant,) = core.handle(Leave(holder), now_s)
        core.handle(Forget(Pid(holder)), now_s)
        holder = grant.ticket_id
    core.check_invariants()
