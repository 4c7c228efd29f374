"""The ablation: what having no scheduler costs, and that policies are compared on the same work."""

from pathlib import Path

import pytest
from tests.bench.pages import printed_by

from aios.bench.paper_ablation import (
    MEMORY,
    REFUSED,
    in_a_kernel,
    in_virtual_time,
    largest_context,
)
from aios.bench.sched_traces import evaluation
from aios.kernel.scheduler.engine_model import BackOff, EngineModel
from aios.kernel.scheduler.policies import POLICIES

AGENTS = evaluation(60)


def test_calls_that_fail_for_want_of_memory_cost_what_was_computed_for_them() -> None:
    fifo, memory = (in_virtual_time(AGENTS, name) for name in ("fifo", MEMORY))
    assert memory.makespan_s > 1.2 * fifo.makespan_s
    assert "computed in vain" in memory.note
    assert " 0 tokens" not in memory.note


def test_a_refusal_alone_costs_little_but_the_slowest_wait_longer() -> None:
    fifo, refused = (in_virtual_time(AGENTS, name) for name in ("fifo", REFUSED))
    assert fifo.makespan_s <= refused.makespan_s < 1.2 * fifo.makespan_s
    assert refused.wait_p90_s > fifo.wait_p90_s
    assert ", 0 tokens computed in vain" in refused.note


def test_with_memory_for_all_nothing_fails() -> None:
    plenty = in_virtual_time(AGENTS, MEMORY, memory_share=20.0)
    assert plenty.note == "0 preemptions"
    assert plenty.wait_p90_s == 0


def test_who_comes_back_later_loses_less_of_the_memory() -> None:
    hasty = in_virtual_time(AGENTS, MEMORY, back_off=BackOff(0.1, 1.0))
    patient = in_virtual_time(AGENTS, MEMORY, back_off=BackOff(0.5, 60.0))
    assert patient.makespan_s < hasty.makespan_s


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_keeps_the_engine_busy(policy: str) -> None:
    found = in_virtual_time(AGENTS, policy, engine=EngineModel(n_slots=4))
    fifo = in_virtual_time(AGENTS, "fifo", engine=EngineModel(n_slots=4))
    assert found.makespan_s < 1.1 * fifo.makespan_s


def test_the_largest_context_is_that_of_a_call() -> None:
    assert largest_context(AGENTS) == max(
        call.prompt_tokens + call.output_tokens for agent in AGENTS for call in agent.calls
    )


@pytest.mark.anyio
@pytest.mark.parametrize("name", [REFUSED, "fifo", "rr"])
async def test_a_real_kernel_runs_the_same_agents(name: str, tmp_path: Path) -> None:
    found = await in_a_kernel(evaluation(12), name, tmp_path)
    least_s = sum(call.output_tokens for agent in evaluation(12) for call in agent.calls) / 8 / 1000
    assert least_s <= found.makespan_s < 30
    assert 0 < found.wait_mean_s <= found.wait_p90_s < found.makespan_s


def test_the_page_shows_what_comes_out() -> None:
    page = Path(__file__).parents[2] / "docs" / "concepts" / "the-paper.md"
    made = printed_by("aios.bench.paper_ablation")
    assert made in page.read_text(), "run `python -m aios.bench.paper_ablation`"
