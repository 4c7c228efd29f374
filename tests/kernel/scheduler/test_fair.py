"""Owners get their shares, whatever they do; under bvt their short calls go first all the same."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.types import Pid
from aios.config import SchedulerConfig
from aios.kernel.scheduler.core import (
    Arrive,
    Core,
    Grant,
    Hold,
    Instruction,
    Leave,
    Renew,
    Spend,
    Unhold,
    Yield,
)
from aios.kernel.scheduler.fair import LIFT, BorrowedVirtualTime, Fair
from aios.kernel.scheduler.policy import N_LEVELS, Policy, Ticket

CONFIG = SchedulerConfig()
QUANTUM_TOKENS, WARP_TOKENS = CONFIG.quantum_tokens, CONFIG.warp_tokens
LONG_TOKENS = 4000
"""A prompt of so many is at level 6."""
BOTH = pytest.mark.parametrize("make", [Fair, BorrowedVirtualTime])


STOPPED = range(5000, 5040)
Make = Callable[..., Fair]


def ticket(
    number: int, pid: int = 0, *, nice: int = 0, owner: str = "", n_prompt_tokens: int = 0
) -> Ticket:
    return Ticket(
        number, Pid(pid or number), "engine", nice, owner, n_prompt_tokens=n_prompt_tokens
    )


def core_of(policy: Policy, capacity: int = 1) -> Core:
    return Core(policy=policy, max_queue=100_000, capacities={"engine": capacity})


def granted(instructions: list[Instruction]) -> list[int]:
    return [each.ticket_id for each in instructions if isinstance(each, Grant)]


def service(core: Core, tickets: list[Ticket], *, n_tokens: int) -> dict[str, int]:
    """Tokens that each owner gets while everyone always wants more, in turns of a quantum."""
    got: dict[str, int] = {}
    by_id = {t.id: t for t in tickets}
    running = [each for t in tickets for each in granted(core.handle(Arrive(t), 0.0))]
    while sum(got.values()) < n_tokens:
        holder = running.pop(0)
        owner = by_id[holder].owner
        got[owner] = got.get(owner, 0) + QUANTUM_TOKENS
        core.handle(Spend(holder, QUANTUM_TOKENS), 0.0)
        running += granted(core.handle(Renew(holder), 0.0))
        core.check_invariants()
    return got


def jain(shares: list[float]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


@BOTH
def test_equal_owners_get_equal_service_when_one_has_ten_times_the_agents(make: Make) -> None:
    tickets = [ticket(n, owner="big") for n in range(1, 21)]
    tickets += [ticket(100 + n, owner="small") for n in range(2)]
    got = service(core_of(make(), capacity=4), tickets, n_tokens=20_000)
    assert jain([got["big"], got["small"]]) >= 0.95, got


@BOTH
def test_weights_hold(make: Make) -> None:
    tickets = [ticket(n, owner="a") for n in (1, 2, 3, 4)] + [
        ticket(n, owner="b") for n in (5, 6, 7, 8)
    ]
    got = service(
        core_of(make(SchedulerConfig(weights={"a": 3.0})), capacity=2), tickets, n_tokens=20_000
    )
    assert got["a"] / got["b"] == pytest.approx(3.0, rel=0.1)


def test_an_owner_that_was_idle_gains_nothing_from_it() -> None:
    core = core_of(Fair())
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


@BOTH
def test_calls_of_a_process_that_was_stopped_pass_no_more_than_if_they_came_only_then(
    make: Make,
) -> None:
    stopped = [ticket(n, pid=9, owner="a", n_prompt_tokens=100) for n in STOPPED]

    def owners_after(*, is_queued_before: bool) -> list[str]:
        core, order = core_of(make()), []
        core.handle(Arrive(ticket(1, owner="b", n_prompt_tokens=100)), 0.0)
        if is_queued_before:
            for each in stopped:
                core.handle(Arrive(each), 0.0)
            core.handle(Hold(Pid(9)), 0.0)
        for n in range(1, 400):
            core.handle(Spend(n, 100), 0.0)
            core.handle(Arrive(ticket(n + 1, pid=1, owner="b", n_prompt_tokens=100)), 0.0)
            core.handle(Leave(n), 0.0)
        if not is_queued_before:
            core.handle(Hold(Pid(9)), 0.0)
            for each in stopped:
                core.handle(Arrive(each), 0.0)
        core.handle(Unhold(Pid(9)), 0.0)
        holder, n = 400, 1000
        for _ in range(60):
            n += 1
            core.handle(Spend(holder, 100), 0.0)
            if holder not in STOPPED:
                core.handle(Arrive(ticket(n, pid=1, owner="b", n_prompt_tokens=100)), 0.0)
            (holder,) = granted(core.handle(Leave(holder), 0.0))
            order.append("a" if holder in STOPPED else "b")
            core.check_invariants()
        return order

    assert owners_after(is_queued_before=True) == owners_after(is_queued_before=False)


@BOTH
def test_new_owners_without_end_do_not_keep_an_old_one_from_its_turn(make: Make) -> None:
    """Each new owner begins at the present; the present moves on all the same."""
    core = core_of(make())
    core.handle(Arrive(ticket(1, owner="old")), 0.0)
    core.handle(Spend(1, 1000), 0.0)
    core.handle(Renew(1), 0.0)
    holder, number = 1, 10
    core.handle(Arrive(ticket(2, owner="old")), 0.0)
    while holder != 2:
        number += 1
        assert number < 200, "the old one starves"
        core.handle(Arrive(ticket(number, owner=f"new{number}")), 0.0)
        core.handle(Spend(holder, QUANTUM_TOKENS), 0.0)
        (grant,) = core.handle(Leave(holder), 0.0)
        holder = grant.ticket_id


def test_a_preempted_call_goes_on_within_its_charge_and_not_behind_all_of_its_owner() -> None:
    """Else all calls of a flood would end up in one place in virtual time, and a newcomer behind all of them."""
    core = core_of(Fair())
    for number in range(1, 6):
        flood = Ticket(number, Pid(number), "engine", owner="flooder", n_prompt_tokens=200)
        core.handle(Arrive(flood), 0.0)
    assert core.handle(Spend(1, QUANTUM_TOKENS), 0.0) == [], "the others of its owner come later"
    core.handle(Arrive(ticket(100, owner="other")), 0.0)
    assert core.handle(Spend(1, QUANTUM_TOKENS), 0.0) == [Yield(1)]
    assert core.handle(Renew(1), 0.0) == [Grant(100)]
    assert core.handle(Leave(100), 0.0) == [Grant(1)]


@BOTH
def test_owners_that_are_gone_are_forgotten(make: Make) -> None:
    core, policy = core_of(policy := make()), policy
    for number in range(1, 2000):
        core.handle(Arrive(ticket(number, owner=f"owner{number}")), 0.0)
        core.handle(Spend(number, 40), 0.0)
        core.handle(Leave(number), 0.0)
    assert len(policy._finish) < 20
    assert not policy._n_active
    assert not policy._charges
    assert len(policy._costs) < 20


@BOTH
@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_call_that_is_given_up_while_it_waits_again_is_charged_for_its_turn(
    make: Make, *, is_stopped: bool
) -> None:
    core, policy = core_of(policy := make()), policy
    for number in (1, 2):
        core.handle(Arrive(ticket(number, owner="a")), 0.0)
    if is_stopped:
        core.handle(Hold(Pid(1)), 0.0)
    core.handle(Spend(1, 100), 0.0)
    assert core.handle(Renew(1), 0.0) == [Grant(2, is_urgent=make is BorrowedVirtualTime)]
    before = policy._now
    assert core.handle(Spend(1, 500), 0.0) == []
    core.handle(Leave(1), 0.0)
    core.check_invariants()
    assert policy._now == before + LIFT * 500
    assert policy._costs["a"] == 600
    assert policy._n_active == {"a": 1}


@settings(max_examples=40, deadline=None)
@given(
    n_owners=st.integers(1, 6),
    n_ahead=st.integers(0, 5),
    n_spent=st.integers(16, 200),  # each of a few tokens takes thousands of turns
    are_new=st.booleans(),
    make=st.sampled_from([Fair, BorrowedVirtualTime]),
    n_prompt=st.sampled_from([0, LONG_TOKENS]),
)
def test_the_head_start_ends_when_the_present_reaches_the_rank(
    *, n_owners: int, n_ahead: int, n_spent: int, are_new: bool, make: Make, n_prompt: int
) -> None:
    """Under bvt what the victim may borrow less than the best is in its rank, and claims of others come on top of it."""
    policy = make()
    core = core_of(policy)
    core.handle(Arrive(ticket(2, owner="first")), 0.0)
    for number in range(3, 3 + n_ahead):
        core.handle(Arrive(ticket(number, owner="victim")), 0.0)
    victim = ticket(1, owner="victim", nice=19, n_prompt_tokens=n_prompt)
    last = policy.rank(victim, number=0, now_s=0.0)[0] + policy.most_borrowed
    core.handle(Arrive(victim), 0.0)
    holder, number, n_before, n_turns, n_tokens = 2, 10, 1 + n_ahead, 0, 0
    most_active = 1.0
    while holder != 1:
        for each in range(n_owners + 1 - core.n_queued("engine") + n_ahead):
            number += 1
            owner = f"new{number}" if are_new else f"rival{each}"
            n_before += policy._now <= last
            core.handle(Arrive(ticket(number, owner=owner, nice=-20)), 0.0)
        most_active = max(most_active, policy._active_weight)
        if policy._now <= last:
            n_tokens += n_spent
        core.handle(Spend(holder, n_spent), 0.0)
        n_turns += 1
        assert n_turns <= n_before
        assert n_tokens <= last * most_active / LIFT + n_spent
        (grant,) = core.handle(Leave(holder), 0.0)
        holder = grant.ticket_id


# --- borrowed virtual time ---------------------------------------------------------------------------------------


def served_first(core: Core, holder: int, number: int) -> int:
    """How many turns, each to its end, are given before a ticket gets its own."""
    n_turns = 0
    while holder != number:
        core.handle(Spend(holder, QUANTUM_TOKENS), 0.0)
        (holder,) = granted(core.handle(Leave(holder), 0.0))
        n_turns += 1
    return n_turns


@pytest.mark.parametrize("owner", ["same", "other"])
def test_a_short_call_passes_the_long_ones_of_its_owner_and_of_others(owner: str) -> None:
    core = core_of(BorrowedVirtualTime())
    for number in range(1, 21):
        core.handle(Arrive(ticket(number, owner="same", n_prompt_tokens=LONG_TOKENS)), 0.0)
    short = core.handle(Arrive(ticket(100, owner=owner)), 0.0)
    assert short == [Yield(1)], "at once: it is several levels better"
    assert granted(core.handle(Renew(1), 0.0)) == [100]


def test_under_fair_it_waits_for_all_that_its_owner_has_queued() -> None:
    core = core_of(Fair())
    for number in range(1, 21):
        core.handle(Arrive(ticket(number, owner="same", n_prompt_tokens=LONG_TOKENS)), 0.0)
    core.handle(Arrive(ticket(100, owner="same")), 0.0)
    assert served_first(core, 1, 100) == 20


def test_among_calls_of_a_level_owners_take_turns_though_one_floods() -> None:
    core = core_of(BorrowedVirtualTime())
    for number in range(1, 101):
        core.handle(Arrive(ticket(number, owner="flood", n_prompt_tokens=100)), 0.0)
    core.handle(Arrive(ticket(200, owner="other", n_prompt_tokens=100)), 0.0)
    assert served_first(core, 1, 200) <= 2


@settings(max_examples=25, deadline=None)
@given(
    prompts=st.tuples(st.integers(0, 5000), st.integers(0, 5000)),
    nices=st.tuples(st.integers(-20, 19), st.integers(-20, 19)),
    n_alone=st.integers(0, 100),
)
def test_what_is_borrowed_is_paid_back(
    prompts: tuple[int, int], nices: tuple[int, int], n_alone: int
) -> None:
    """Of two owners with work without end, neither gets more of it than the head start and what is charged beforehand.

    It makes no difference for how long one of them was alone.
    """
    core = core_of(BorrowedVirtualTime())
    wishes = dict(zip(("ann", "bob"), zip(prompts, nices, strict=True), strict=True))
    got, number = dict.fromkeys(wishes, 0), 0
    owner_of: dict[int, str] = {}

    def come(owner: str) -> list[int]:
        nonlocal number
        number += 1
        owner_of[number] = owner
        n_prompt, nice = wishes[owner]
        call = ticket(number, owner=owner, nice=nice, n_prompt_tokens=n_prompt)
        return granted(core.handle(Arrive(call), 0.0))

    running = come("ann") + come("ann")
    for turn in range(600 + n_alone):
        if turn == n_alone:
            got = dict.fromkeys(wishes, 0)
            assert come("bob") + come("bob") == []
        (holder,) = running
        core.handle(Spend(holder, QUANTUM_TOKENS), 0.0)
        got[owner_of[holder]] += QUANTUM_TOKENS
        running = granted(core.handle(Leave(holder), 0.0)) + come(owner_of[holder])
    head_start = WARP_TOKENS * (N_LEVELS + 39 * CONFIG.nice_step_s / CONFIG.level_step_s)
    charged = 2 * sum(prompts) + 10 * QUANTUM_TOKENS
    assert abs(got["ann"] - got["bob"]) <= head_start + charged


def test_niceness_shifts_a_call_among_its_like() -> None:
    core = core_of(BorrowedVirtualTime())
    for number, nice in ((1, 0), (2, 5), (3, 0), (4, -5)):
        owner = f"owner{number}"
        core.handle(Arrive(ticket(number, owner=owner, nice=nice)), 0.0)
    order = [1]
    while len(order) < 4:
        order += granted(core.handle(Leave(order[-1]), 0.0))
    assert order == [1, 4, 3, 2]
