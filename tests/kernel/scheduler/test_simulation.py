"""The simulator serves every token once, whatever comes; and the policies keep their promises in it."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from aios.abi.trace import TracedAgent, TracedCall
from aios.config import SchedulerConfig
from aios.kernel.scheduler.engine_model import EngineModel
from aios.kernel.scheduler.outcome import Outcome
from aios.kernel.scheduler.policies import POLICIES
from aios.kernel.scheduler.policy import Policy
from aios.kernel.scheduler.residence import MemoryModel
from aios.kernel.scheduler.simulation import simulate

USUAL = EngineModel()
ALONE = EngineModel(n_slots=1)
FREE = EngineModel(suspend_s=0.0, resume_s=0.0, page_in_s=0.0)


def policy_of(name: str | None) -> Policy | None:
    return None if name is None else POLICIES[name](SchedulerConfig(policy=name))


def run(agents: list[TracedAgent], name: str | None, engine: EngineModel = USUAL) -> Outcome:
    return simulate(agents, policy_of(name), engine, check=True)


@st.composite
def calls(draw: st.DrawFn) -> TracedCall:
    n_prompt = draw(st.integers(0, 400))
    n_cached = draw(st.integers(0, n_prompt))
    due_s = draw(st.none() | st.floats(0.5, 60))
    return TracedCall(n_prompt, draw(st.integers(1, 120)), n_cached, draw(st.floats(0, 5)), due_s)


@st.composite
def crowds(draw: st.DrawFn) -> list[TracedAgent]:
    return [
        TracedAgent(
            draw(st.floats(0, 20)),
            tuple(draw(st.lists(calls(), max_size=3))),
            draw(st.sampled_from(["ann", "bob", "eve"])),
            draw(st.integers(-20, 19)),
        )
        for _ in range(draw(st.integers(0, 12)))
    ]


names = st.sampled_from([None, *POLICIES])
memories = st.builds(
    MemoryModel, ram_tokens=st.none() | st.integers(0, 2000), foresees=st.booleans()
)
engines = st.builds(
    EngineModel,
    n_slots=st.integers(1, 9),
    chunk_tokens=st.integers(1, 300),
    memory=memories,
    budget_tokens=st.none() | st.integers(1, 2000),
)


@settings(deadline=None, max_examples=40)
@given(crowds(), names, engines)
def test_every_call_ends_once_and_every_token_is_served_once(
    agents: list[TracedAgent], name: str | None, engine: EngineModel
) -> None:
    outcome = run(agents, name, engine)
    made = Counter((i, n) for i, agent in enumerate(agents) for n in range(len(agent.calls)))
    assert Counter((call.agent, call.call) for call in outcome.calls) == made
    asked: Counter[str] = Counter()
    for agent in agents:
        asked[agent.owner] += sum(call.n_computed for call in agent.calls)
    assert Counter(outcome.served) == asked
    assert all(outcome.contended[owner] <= n for owner, n in outcome.served.items())


@settings(deadline=None, max_examples=40)
@given(crowds(), names, engines)
def test_time_only_passes_and_nobody_is_faster_than_alone(
    agents: list[TracedAgent], name: str | None, engine: EngineModel
) -> None:
    outcome = run(agents, name, engine)
    ended = {(call.agent, call.call): call for call in outcome.calls}
    for call in outcome.calls:
        assert call.arrived_s >= agents[call.agent].arrives_s
        assert 0 <= call.longest_wait_s <= call.waited_s + 1e-9
        assert call.turnaround_s >= call.waited_s - 1e-9
        assert call.slowdown >= 1 - 1e-9
        before = ended.get((call.agent, call.call - 1))
        if before is not None:
            gap_s = agents[call.agent].calls[before.call].gap_s
            assert call.arrived_s >= before.ended_s + gap_s - 1e-9
    assert outcome.makespan_s >= max((call.ended_s for call in outcome.calls), default=0.0)


@settings(deadline=None, max_examples=40)
@given(crowds(), names, engines)
def test_the_same_crowd_fares_the_same_again(
    agents: list[TracedAgent], name: str | None, engine: EngineModel
) -> None:
    assert run(agents, name, engine) == run(agents, name, engine)


@settings(deadline=None, max_examples=40)
@given(crowds(), st.sampled_from(list(POLICIES)))
def test_the_engine_never_idles_while_somebody_waits(agents: list[TracedAgent], name: str) -> None:
    """With one slot and free switches, all policies are done with a crowd without pauses at the same time."""
    engine = replace(FREE, n_slots=1)
    flat = [
        TracedAgent(agent.arrives_s, agent.calls[:1], agent.owner, agent.nice) for agent in agents
    ]
    assert run(flat, name, engine).makespan_s == pytest.approx(run(flat, "fifo", engine).makespan_s)


def test_a_call_alone_takes_what_the_rates_say() -> None:
    call = TracedCall(314, 128)
    (outcome,) = run([TracedAgent(3.0, (call,))], "fifo").calls
    assert outcome.turnaround_s == pytest.approx(2.0)
    assert outcome.slowdown == pytest.approx(1.0)
    assert outcome.waited_s == 0.0


def test_decoding_together_is_faster_in_all_and_slower_for_each() -> None:
    engine = EngineModel()
    rates = [engine.decode_rate(n) for n in (1, 2, 4, 8, 16, 99)]
    assert rates == [128.0, 151.0, 197.0, 224.0, 231.0, 231.0]
    four = run([TracedAgent(0.0, (TracedCall(0, 197),))] * 4, "fifo")
    assert four.makespan_s == pytest.approx(4.0)


def test_an_empty_trace_takes_no_time() -> None:
    assert run([], "fair").makespan_s == 0.0


def test_switches_cost_time() -> None:
    two = [TracedAgent(0.0, (TracedCall(0, 64),), str(i)) for i in range(2)]
    dear, free = run(two, "rr", ALONE), run(two, "rr", replace(FREE, n_slots=1))
    assert dear.n_preemptions == free.n_preemptions == 2
    assert free.makespan_s == pytest.approx(1.0)
    at_least_s = 2 * (ALONE.suspend_s + ALONE.resume_s)
    assert dear.makespan_s - free.makespan_s >= at_least_s


def test_with_a_limit_to_the_working_set_nothing_is_computed_again() -> None:
    crowd = [TracedAgent(0.0, (TracedCall(100, 100),), str(i)) for i in range(12)]
    small = EngineModel(n_slots=2, memory=MemoryModel(ram_tokens=200, disk_tokens=200))
    limited = replace(small, budget_tokens=400)
    ample = replace(small, memory=MemoryModel(ram_tokens=200))
    found = [run(crowd, "rr", engine) for engine in (small, limited, ample)]
    lost, *kept = [outcome.n_recomputed for outcome in found]
    assert lost > 0
    assert kept == [0, 0]
    assert found[1].peak_tokens <= 400 < found[0].peak_tokens
    assert found[1].makespan_s < found[0].makespan_s
    assert found[0].held_back_s == 0.0


def test_time_in_which_a_slot_is_free_and_a_call_waits_for_room_is_told() -> None:
    crowd = [TracedAgent(0.0, (TracedCall(0, 128),)) for _ in range(2)]
    outcome = run(crowd, "fifo", EngineModel(n_slots=2, budget_tokens=128))
    assert outcome.held_back_s == pytest.approx(1.0)
    assert outcome.peak_tokens == 128


def test_without_a_scheduler_calls_come_back_until_a_slot_is_free() -> None:
    crowd = [TracedAgent(0.0, (TracedCall(0, 128),)) for _ in range(4)]
    outcome = run(crowd, None, ALONE)
    assert outcome.n_refusals >= 3
    assert outcome.makespan_s > run(crowd, "fifo", ALONE).makespan_s


@settings(deadline=None, max_examples=40)
@given(crowds(), st.integers(1, 1500), engines)
def test_what_fails_for_want_of_memory_is_computed_again_until_every_call_has_ended(
    agents: list[TracedAgent], memory_tokens: int, engine: EngineModel
) -> None:
    outcome = simulate(agents, None, engine, memory_tokens=memory_tokens, check=True)
    wanted = [call for agent in agents for call in agent.calls]
    assert len(outcome.calls) == len({(call.agent, call.call) for call in outcome.calls})
    assert len(outcome.calls) == len(wanted)
    n_served = sum(outcome.served.values())
    assert n_served == sum(call.n_computed for call in wanted) + outcome.n_lost_tokens
    assert all(call.waited_s <= call.turnaround_s + 1e-6 for call in outcome.calls)


def test_two_calls_that_outgrow_memory_do_not_both_end_at_the_first_try() -> None:
    crowd = [TracedAgent(0.0, (TracedCall(10, 100),)) for _ in range(2)]
    enough = simulate(crowd, None, memory_tokens=220)
    assert (enough.n_refusals, enough.n_lost_tokens) == (0, 0)
    short = simulate(crowd, None, memory_tokens=219)
    assert short.n_refusals >= 1
    assert short.n_lost_tokens > 100


# --- what the policies promise -----------------------------------------------------------------------------------


def crowd_of(n: int, call: TracedCall, owner: str = "", nice: int = 0) -> list[TracedAgent]:
    return [TracedAgent(0.0, (call,), owner, nice) for _ in range(n)]


def test_fifo_ends_equal_calls_in_the_order_of_arrival() -> None:
    crowd = [TracedAgent(0.01 * i, (TracedCall(20, 20),)) for i in range(30)]
    assert [call.agent for call in run(crowd, "fifo", ALONE).calls] == list(range(30))


def test_rr_lets_a_short_call_pass_long_ones() -> None:
    crowd = [*crowd_of(4, TracedCall(0, 640)), TracedAgent(0.1, (TracedCall(0, 16),))]

    def short_s(name: str) -> float:
        return next(c.turnaround_s for c in run(crowd, name, ALONE).calls if c.agent == 4)

    assert short_s("rr") < short_s("fifo") / 5


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-20, 19), min_size=2, max_size=12, unique=True))
def test_priority_starts_with_the_least_nice(nices: list[int]) -> None:
    """All wait behind a first call; short calls, so that ageing plays no part."""
    crowd = [TracedAgent(0.0, (TracedCall(0, 8),), "", -20)]
    crowd += [TracedAgent(0.001, (TracedCall(0, 8),), "", nice) for nice in nices]
    ended = [call.agent - 1 for call in run(crowd, "priority", ALONE).calls if call.agent]
    assert [nices[i] for i in ended] == sorted(nices)


def test_mlfq_serves_short_calls_first_and_costs_the_long_ones_little() -> None:
    crowd = crowd_of(16, TracedCall(300, 200))
    crowd += [TracedAgent(2.0 + i, (TracedCall(40, 16),), kind="short") for i in range(20)]
    ours, fifo = run(crowd, "mlfq"), run(crowd, "fifo")
    assert ours.turnaround_s("short").p50 < fifo.turnaround_s("short").p50 / 5
    assert ours.makespan_s < fifo.makespan_s * 1.05


@settings(deadline=None, max_examples=8)
@given(st.integers(20, 300), st.integers(32, 120), st.integers(4, 8))
def test_fair_gives_equal_owners_equal_shares_however_many_agents_they_have(
    n_prompt: int, n_output: int, n_slots: int
) -> None:
    """At 0.9: the first calls of an owner, of which 10 times as many wait at once, are charged by a guess (0.949 was seen)."""
    first, later = TracedCall(n_prompt, n_output), TracedCall(n_prompt + 40, n_output, n_prompt)
    counts = {"many": 20 * n_slots, "ann": 2 * n_slots, "bob": 2 * n_slots}
    crowd = [
        TracedAgent(0.0, (first, *[later] * 8), owner)
        for owner, n in counts.items()
        for _ in range(n)
    ]
    engine = EngineModel(n_slots=n_slots)
    assert simulate(crowd, policy_of("fair"), engine).jain >= 0.9
    assert simulate(crowd, policy_of("rr"), engine).jain < 0.6


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0, 4)), min_size=1, max_size=10))
def test_edf_meets_every_deadline_that_can_be_met(wishes: list[tuple[int, float]]) -> None:
    """Calls that come together, each with the time that those due before it need, and its own slack."""
    engine = replace(FREE, n_slots=1)
    needed_s = slack_s = 0.0
    crowd = []
    for n_tokens, more_s in wishes:
        needed_s += n_tokens / engine.decode_rate(1)
        slack_s += more_s
        # for a deadline less than a second earlier a turn ends after its quantum of 32, told in pieces of 8
        due_s = needed_s + slack_s + 40 / engine.decode_rate(1)
        crowd.append(TracedAgent(0.0, (TracedCall(0, n_tokens, deadline_s=due_s),)))
    outcome = run(crowd[::-1], "edf", engine)
    assert outcome.late_share == 0.0


@settings(deadline=None, max_examples=40)
@given(crowds(), st.sampled_from(list(POLICIES)))
def test_nobody_waits_longer_than_all_the_work_and_the_pauses_take(
    agents: list[TracedAgent], name: str
) -> None:
    outcome = run(agents, name)
    assert all(call.longest_wait_s <= outcome.makespan_s for call in outcome.calls)
    rest_s = max((agent.arrives_s for agent in agents), default=0.0)
    engine = EngineModel()
    work_s = sum(engine.alone_s(call) for agent in agents for call in agent.calls)
    pauses_s = sum(call.gap_s for agent in agents for call in agent.calls)
    switches_s = outcome.n_preemptions * (
        engine.suspend_s + engine.resume_s + 520 * engine.page_in_s
    )
    assert outcome.makespan_s <= rest_s + work_s + pauses_s + switches_s + 1e-6
