"""Made-up crowds are the same for the same seed, and what their names say."""

from random import Random

import pytest

from aios.bench.sched_traces import (
    BATCH,
    INTERACTIVE,
    WORKLOADS,
    Talk,
    conversation,
    evaluation,
    make_workload,
    paper,
    poisson,
)
from aios.kernel.scheduler.trace import decode_trace, encode_trace


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_crowd_follows_from_its_seed_and_can_be_written_as_a_trace(name: str) -> None:
    agents = make_workload(name, 3)
    assert agents == make_workload(name, 3) != make_workload(name, 4)
    assert decode_trace(encode_trace(agents)) == tuple(agents)


def test_a_conversation_grows_and_its_past_is_kept() -> None:
    first, second = conversation(Talk(2, 100, 30, (5, 5)), Random(1))  # noqa: S311 - a workload, no secret
    assert (first.prompt_tokens, first.cached_tokens) == (100, 0)
    assert (second.prompt_tokens, second.cached_tokens) == (135, 105)


def test_arrivals_come_one_after_another_at_their_rate() -> None:
    times = list(poisson(2000, 4.0, Random(1)))  # noqa: S311
    assert times == sorted(times)
    assert 2000 / times[-1] == pytest.approx(4.0, rel=0.1)


def test_crowds_have_whom_they_are_named_after() -> None:
    kinds = [agent.kind for agent in make_workload("interactive")]
    assert (kinds.count(INTERACTIVE), kinds.count(BATCH)) == (30, 24)
    assert {agent.owner for agent in make_workload("one-owner")} == {"me"}
    owners = [agent.owner for agent in make_workload("ten-times")]
    assert owners.count("many") == 10 * owners.count("ann")
    assert any(call.deadline_s for agent in make_workload("deadlines") for call in agent.calls)
    assert len(paper(250)) == 250
    assert {agent.kind for agent in evaluation(6)} == {"react", "reflexion", "coder"}
