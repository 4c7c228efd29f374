"""Every policy can be named, in the configuration and in calls; each resource has its own account."""

from collections import Counter
from itertools import count
from typing import get_args

import pytest

from aios.abi.sched import PolicyName
from aios.abi.types import Pid
from aios.config import SchedulerConfig
from aios.configload import load
from aios.kernel.scheduler.core import (
    Arrive,
    Core,
    Forget,
    Hold,
    Leave,
    Renew,
    SetPolicy,
    Spend,
    Unhold,
)
from aios.kernel.scheduler.policies import POLICIES, make_policy
from aios.kernel.scheduler.policy import Ticket


@pytest.mark.parametrize("name", POLICIES)
def test_the_configuration_names_the_policy(name: str) -> None:
    config = load(env={"AIOS_SCHEDULER_POLICY": name}).config.scheduler
    assert make_policy(config).name == name


def test_a_call_can_name_each_of_them() -> None:
    assert get_args(PolicyName) == tuple(POLICIES)


def test_the_default_is_one_of_them() -> None:
    assert SchedulerConfig().policy in POLICIES


@pytest.mark.parametrize("is_set_later", [False, True])
@pytest.mark.parametrize("name", ["fair", "bvt"])
def test_who_is_alone_on_one_engine_takes_no_shares_on_another(
    name: str, *, is_set_later: bool
) -> None:
    policy = make_policy(SchedulerConfig(policy=name))
    first = make_policy(SchedulerConfig(policy="rr")) if is_set_later else policy
    core = Core(policy=first, max_queue=100, capacities={"busy": 1, "shared": 1})
    tickets: dict[int, Ticket] = {}
    got, numbers = Counter[str](), count(1)

    def arrive(owner: str, pid: int, resource: str) -> None:
        ticket = Ticket(next(numbers), Pid(pid), resource, owner=owner, n_prompt_tokens=100)
        tickets[ticket.id] = ticket
        core.handle(Arrive(ticket), 0.0)

    for n in range(22):
        arrive("big" if n < 20 else "small", 10 + n, "shared")
    arrive("alone", 40, "busy")
    if is_set_later:
        core.handle(SetPolicy(policy), 0.0)
    for _ in range(600):
        for resource, n_calls in (("busy", 4), ("shared", 1)):
            for _ in range(n_calls):
                (holder,) = core.lanes[resource].granted
                ticket = tickets[holder]
                got[ticket.owner] += 100
                core.handle(Spend(holder, 100), 0.0)
                core.handle(Leave(holder), 0.0)
                arrive(ticket.owner, ticket.pid, resource)
    core.check_invariants()
    big, small = got["big"], got["small"]
    assert (big + small) ** 2 / (2 * (big**2 + small**2)) >= 0.95, got


@pytest.mark.parametrize("name", ["mlfq", "bvt"])
def test_a_program_sinks_where_it_was_served_until_it_has_ended(name: str) -> None:
    policy = make_policy(SchedulerConfig(policy=name))
    core = Core(policy=policy, max_queue=100, capacities={"a": 1, "b": 1})
    for number, resource in enumerate("ab", 1):
        core.handle(Arrive(Ticket(number, Pid(1), resource)), 0.0)
    core.handle(Spend(1, 8000), 0.0)
    core.handle(Leave(1), 0.0)
    core.handle(Leave(2), 0.0)
    next_ones = [Ticket(3, Pid(1), resource) for resource in "ab"]
    assert [policy.level(each) for each in next_ones] == [4, 0]
    core.handle(Forget(Pid(1)), 0.0)
    assert [policy.level(each) for each in next_ones] == [0, 0]


@pytest.mark.parametrize("name", POLICIES)
def test_calls_that_are_cut_off_before_their_first_token_starve_nobody(name: str) -> None:
    policy = make_policy(SchedulerConfig(policy=name))
    core = Core(policy=policy, max_queue=100, capacities={"e": 1})
    numbers = count(1)

    def come(owner: str, n_prompt_tokens: int, now_s: float = 0.0) -> int:
        pid = Pid(2 if owner == "flood" else 3)
        ticket = Ticket(next(numbers), pid, "e", owner=owner, n_prompt_tokens=n_prompt_tokens)
        core.handle(Arrive(ticket), now_s)
        return ticket.id

    first = come("other", 500)
    for _ in range(3):
        come("flood", 10)
    core.handle(Spend(first, 500), 0.0)
    waiting = come("other", 500)
    core.handle(Leave(first), 0.0)
    for now_s in map(float, range(1000)):
        (holder,) = core.lanes["e"].granted
        if holder == waiting:
            return
        come("flood", 10, now_s)
        core.handle(Leave(holder), now_s)
        core.check_invariants()
    pytest.fail("it starves")


@pytest.mark.parametrize("is_held_long", [True, False])
@pytest.mark.parametrize("name", [each for each in POLICIES if each != "fifo"])
def test_processes_that_are_stopped_before_their_first_token_starve_nobody(
    name: str, *, is_held_long: bool
) -> None:
    """Whose parent stops each as it gets a turn, and lets it go on after it gave that back, or before. Under fifo who came first stays first."""
    core = Core(
        policy=make_policy(SchedulerConfig(policy=name)), max_queue=100, capacities={"e": 1}
    )

    def come(number: int, owner: str, n_prompt_tokens: int) -> None:
        core.handle(
            Arrive(Ticket(number, Pid(number), "e", owner=owner, n_prompt_tokens=n_prompt_tokens)),
            0.0,
        )

    come(1, "other", 500)
    for number in (2, 3, 4):
        come(number, "flood", 10)
    core.handle(Spend(1, 500), 0.0)
    come(5, "other", 500)
    core.handle(Leave(1), 0.0)
    for now_s in map(float, range(1000)):
        (holder,) = core.lanes["e"].granted
        if holder == 5:
            return
        let_go = [Renew(holder), Unhold(Pid(holder))]
        for event in (Hold(Pid(holder)), *(let_go if is_held_long else reversed(let_go))):
            core.handle(event, now_s)
        core.check_invariants()
    pytest.fail("it starves")
