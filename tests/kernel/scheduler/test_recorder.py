"""Records of calls become traces in which every call and every token is there once, and nothing else is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.calls import chat
from tests.kernel.conftest import OpenKernel

from aios.abi.trace import SchedTrace, TracedAgent
from aios.abi.types import Pid, Usage
from aios.config import SchedulerConfig
from aios.engine.scripted import ScriptedEngine
from aios.errors import AccessDenied
from aios.kernel.scheduler.recorder import Recorder, ServedCall, to_trace
from aios.kernel.scheduler.trace import decode_trace, encode_trace


def served(
    pid: int, begun_s: float, ended_s: float, *, usage: Usage = Usage(100, 40, 8), **more: float
) -> ServedCall:
    return ServedCall(Pid(pid), f"p{pid}", "ann", 0, begun_s, ended_s, usage, **more)


def test_the_time_between_two_calls_of_a_process_is_its_gap() -> None:
    calls = [served(7, 12.5, 13.0, deadline_s=22.5), served(7, 10.0, 11.0), served(8, 11.0, 11.5)]
    first, second = to_trace(calls)
    assert (first.arrives_s, first.owner, first.kind) == (0.0, "ann", "p7")
    assert [call.gap_s for call in first.calls] == [1.5, 0.0]
    assert [call.deadline_s for call in first.calls] == [None, 10.0]
    assert (second.arrives_s, second.kind) == (1.0, "p8")
    assert (second.calls[0].prompt_tokens, second.calls[0].cached_tokens) == (100, 40)
    assert second.calls[0].output_tokens == 8


def test_calls_that_a_process_makes_side_by_side_are_agents_of_their_own() -> None:
    calls = [served(7, 0.0, 10.0), served(7, 1.0, 2.0), served(7, 3.0, 4.0)]
    assert [len(agent.calls) for agent in to_trace(calls)] == [1, 2]


times = st.floats(0, 1e6).map(lambda at_s: round(at_s, 3))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 4), times, times, st.integers(0, 99), st.integers(1, 99)),
        max_size=20,
    )
)
def test_every_call_is_in_the_trace_once_at_its_time(
    rows: list[tuple[int, float, float, int, int]],
) -> None:
    calls = [
        served(pid, at_s, at_s + took_s, usage=Usage(n_prompt, 200, n_output))
        for pid, at_s, took_s, n_prompt, n_output in rows
    ]
    agents = to_trace(calls)
    asked = sorted((call.usage.prompt_tokens, call.usage.completion_tokens) for call in calls)
    assert sorted((c.prompt_tokens, c.output_tokens) for a in agents for c in a.calls) == asked
    assert decode_trace(encode_trace(agents)) == agents
    if calls:
        begins_s = min(call.begun_s for call in calls)
        arrivals = {round(call.begun_s - begins_s, 4) for call in calls}
        assert {agent.arrives_s for agent in agents} <= arrivals
        assert agents[0].arrives_s == 0.0


def test_the_oldest_are_dropped_and_what_wrote_nothing_is_not_noted() -> None:
    recorder = Recorder(2)
    for number in range(5):
        recorder.note(served(number, float(number), number + 0.5))
    recorder.note(served(9, 9.0, 9.5, usage=Usage(10)))
    assert [agent.kind for agent in recorder.trace()] == ["p3", "p4"]
    assert recorder.n_dropped == 3
    nothing = Recorder(0)
    nothing.note(served(1, 0.0, 1.0))
    assert (nothing.trace(), nothing.n_dropped) == ((), 1)


@pytest.mark.anyio
async def test_a_kernel_records_what_it_served_and_none_of_what_was_said(
    booted: OpenKernel,
) -> None:
    async with booted(ScriptedEngine(), scheduler=SchedulerConfig(trace_calls=3)) as kernel:
        guest, _ = kernel.admit("gus")
        for _ in range(4):
            await kernel.gate(guest.pid).call(chat("a secret", max_tokens=4))
        traced = (await kernel.init_gate().call(SchedTrace())).value
        (agent,) = traced.agents
        assert isinstance(agent, TracedAgent)
        assert (agent.owner, agent.kind, len(agent.calls), traced.n_dropped) == ("gus", "gus", 3, 1)
        assert all(call.prompt_tokens and call.output_tokens for call in agent.calls)
        assert b"secret" not in encode_trace(traced.agents)
        with pytest.raises(AccessDenied, match=r"scheduler\.set"):
            await kernel.gate(guest.pid).call(SchedTrace())
