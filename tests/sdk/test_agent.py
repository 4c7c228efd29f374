from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sdk.serving import calling, own_client, scripted

from aios.abi.types import Message, Role, Sampling, ToolCall
from aios.engine.base import ChatPrompt, Job
from aios.engine.script import Reply, Script
from aios.errors import Conflict, EngineFailed, InvalidCall
from aios.sdk.agent import (
    Agent,
    Ended,
    Ending,
    Event,
    TextPiece,
    ToolEnded,
    ToolStarted,
    TurnEnded,
)
from aios.sdk.client import Client
from aios.sdk.tools import tool

pytestmark = pytest.mark.anyio


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def fail(word: str) -> str:
    """Fail."""
    raise ValueError(word)


@tool
async def hang() -> str:
    """Never end."""
    await anyio.sleep_forever()
    return ""


def texts(messages: Sequence[Message], role: Role = Role.TOOL) -> list[str]:
    return [message.text() for message in messages if message.role is role]


async def read_all(agent: Agent, task: str) -> list[Event]:
    async with agent.stream(task) as events:
        return [event async for event in events]


@asynccontextmanager
async def agent_with(
    script: Script, *, max_turns: int = 8, max_total_tokens: int | None = None
) -> AsyncIterator[Agent]:
    with anyio.fail_after(30):
        async with own_client(script) as client:
            agent = Agent(
                client,
                instructions="help",
                tools=[add, fail, hang],
                max_turns=max_turns,
                max_total_tokens=max_total_tokens,
                sampling=Sampling(temperature=0),
            )
            yield agent
            agent.transcript.check_invariants()
            assert not agent.is_running
            assert (await client.info()).engines[0].n_running == 0


async def test_an_agent_thinks_calls_tools_and_answers() -> None:
    script = scripted(calling(("add", '{"a":2,"b":3}')), "It is 5.")
    async with agent_with(script) as agent:
        result = await agent.run("2 + 3?")
        assert (result.text, result.finish, result.n_turns) == ("It is 5.", Ending.DONE, 2)
        assert result.messages == (
            Message(Role.USER, "2 + 3?"),
            Message(Role.ASSISTANT, "", (ToolCall("c0", "add", '{"a":2,"b":3}'),)),
            Message(Role.TOOL, "5", tool_call_id="c0", name="add"),
            Message(Role.ASSISTANT, "It is 5."),
        )
        assert agent.messages == (Message(Role.SYSTEM, "help"), *result.messages)
        assert result.usage.prompt_tokens > 0
        assert result.usage.completion_tokens > 0


async def test_the_model_sees_the_tools_and_the_whole_conversation() -> None:
    prompts: list[ChatPrompt] = []
    said = iter([calling(("add", '{"a":1,"b":1}')), Reply("2"), Reply("again")])

    def answer(job: Job) -> Reply:
        assert isinstance(job.prompt, ChatPrompt)
        assert job.max_tokens == 1024
        assert job.sampling.temperature == 0
        prompts.append(job.prompt)
        return next(said)

    async with agent_with(Script(answer=answer)) as agent:
        await agent.run("first")
        await agent.run(Message(Role.USER, "second"))
        roles = "".join(message.role.value[0] for message in prompts[2].messages)
        assert roles == "suatau"
        assert [len(prompt.messages) for prompt in prompts] == [2, 4, 6]
        assert prompts[0].tools == (add.spec, fail.spec, hang.spec)


async def test_tools_of_one_turn_run_side_by_side_and_answer_in_order() -> None:
    both_run = anyio.Event()
    order: list[str] = []

    @tool
    async def first() -> str:
        await both_run.wait()
        order.append("first")
        return "1"

    @tool
    async def second() -> str:
        both_run.set()
        order.append("second")
        return "2"

    with anyio.fail_after(30):
        async with own_client(scripted(calling(("first", ""), ("second", "")), "ok")) as client:
            result = await Agent(client, tools=[first, second]).run("go")
    assert order == ["second", "first"]
    assert texts(result.messages) == ["1", "2"]


async def test_failures_of_tools_are_told_to_the_model() -> None:
    script = scripted(
        calling(
            ("fail", '{"word":"no ink"}'),
            ("add", '{"a":"2"}'),
            ("add", "two and three"),
            ("sing", "{}"),
        ),
        "I see.",
    )
    async with agent_with(script) as agent:
        result = await agent.run("try")
        told = texts(result.messages)
        assert told[0] == "error: ValueError: no ink"
        assert "Expected `int`, got `str`" in told[1]
        assert "two and three" in told[2]
        assert told[3] == "error: there is no tool 'sing'; there are: add, fail, hang"
        assert result.text == "I see."


async def test_a_turn_budget_ends_a_run_and_says_so() -> None:
    ran: list[int] = []

    @tool
    def act() -> None:
        ran.append(1)

    async with own_client(Script(answer=lambda _: calling(("act", "{}"), text="more"))) as client:
        agent = Agent(client, tools=[act], max_turns=3)
        result = await agent.run("loop")
    assert (result.finish, result.n_turns, result.text) == (Ending.MAX_TURNS, 3, "more")
    assert len(ran) == 2, "what nobody will read is not run"
    assert texts(result.messages)[-1] == "error: not run: max_turns is used up"
    agent.transcript.check_invariants()


async def test_a_token_budget_ends_a_run_and_says_so() -> None:
    script = Script(answer=lambda _: calling(("add", '{"a":1,"b":2}')))
    async with agent_with(script, max_turns=50, max_total_tokens=300) as agent:
        result = await agent.run("loop")
        assert result.finish is Ending.MAX_TOTAL_TOKENS
        assert 1 < result.n_turns < 50
        assert "not run: max_total_tokens" in texts(result.messages)[-1]


async def test_the_last_answer_is_cut_at_what_the_token_budget_leaves() -> None:
    async with agent_with(Script(answer_tokens=4000), max_total_tokens=100) as agent:
        result = await agent.run("tell")
        assert result.finish is Ending.MAX_TOTAL_TOKENS
        assert result.usage.completion_tokens == 100


async def test_an_answer_that_is_cut_is_not_called_done() -> None:
    with anyio.fail_after(30):
        async with own_client(Script(answer_tokens=400)) as client:
            result = await Agent(client, max_tokens=20).run("tell")
    assert result.finish is Ending.LENGTH


async def test_events_tell_what_happens() -> None:
    script = scripted(
        calling(("add", '{"a":1,"b":2}'), ("fail", '{"word":"x"}'), text="Let me see."), "3"
    )
    async with agent_with(script) as agent, agent.stream("1 + 2?") as events:
        seen: list[Event] = [event async for event in events]
        kinds = [type(event) for event in seen if not isinstance(event, ToolStarted | ToolEnded)]
        assert kinds == [TextPiece, TurnEnded, TextPiece, TurnEnded, Ended]
        started = [event.call.name for event in seen if isinstance(event, ToolStarted)]
        ended = {event.call.name: event.outcome for event in seen if isinstance(event, ToolEnded)}
        assert started == ["add", "fail"]
        assert ended["add"].text == "3"
        assert ended["fail"].is_error
        last = seen[-1]
        assert isinstance(last, Ended)
        assert last.result.text == "3"
        assert last.result.messages == agent.messages[1:]


async def test_text_comes_while_the_model_speaks() -> None:
    script = Script(answer_tokens=30, token_delay_s=0.001)
    async with agent_with(script) as agent, agent.stream("tell") as events:
        pieces = [event.text async for event in events if isinstance(event, TextPiece)]
        assert len(pieces) > 1
        assert "".join(pieces) == agent.messages[-1].text()


async def test_a_stream_that_was_not_entered_says_how_and_does_not_wait() -> None:
    async with agent_with(scripted("well")) as agent:
        with pytest.raises(InvalidCall, match="inside of the stream's block") as refused:
            async for _ in agent.stream("go"):
                pass
        assert "async with agent.stream" in refused.value.hint
        assert (await agent.run("go")).text == "well"


async def test_leaving_a_stream_early_cancels_the_run_and_leaves_the_transcript_valid() -> None:
    script = scripted(calling(("add", '{"a":1,"b":2}'), ("hang", "{}")), "well")
    async with agent_with(script) as agent:
        async with agent.stream("go") as events:
            async for event in events:
                if isinstance(event, ToolEnded):
                    break
        agent.transcript.check_invariants()
        told = texts(agent.messages)
        assert told[0] == "3"
        assert "interrupted" in told[1]
        assert (await agent.run("and now?")).text == "well"


async def test_errors_of_the_reader_leave_a_stream_bare() -> None:
    async with agent_with(Script(answer_tokens=1000, token_delay_s=0.01)) as agent:

        async def read() -> None:
            async with agent.stream("go") as events:
                async for _ in events:
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await read()


async def test_a_failed_call_raises_and_the_task_is_forgotten() -> None:
    script = scripted(
        Reply("never", fail_after_tokens=0), Reply("x y z", fail_after_tokens=1), "fine"
    )
    async with agent_with(script) as agent:
        with pytest.raises(EngineFailed):
            await agent.run("one")
        with pytest.raises(EngineFailed):
            await read_all(agent, "two")
        assert agent.messages == (Message(Role.SYSTEM, "help"),)
        assert (await agent.run("three")).text == "fine"
        assert texts(agent.messages, Role.USER) == ["three"]


async def test_a_second_run_at_the_same_time_is_refused() -> None:
    script = Script(answer_tokens=1000, token_delay_s=0.01)
    async with agent_with(script) as agent:
        async with agent.stream("one") as events:
            await anext(events)
            with pytest.raises(Conflict, match="already running"):
                await agent.run("two")
            with pytest.raises(Conflict, match="already running"):
                async with agent.stream("three") as others:
                    await anext(others)
            assert agent.is_running


async def test_a_cancelled_run_keeps_the_turns_that_were_completed() -> None:
    script = scripted(calling(("add", '{"a":1,"b":2}')), calling(("hang", "{}")), "end")
    async with agent_with(script) as agent:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.run, "go")
            while len(agent.messages) < 4:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        agent.transcript.check_invariants()
        assert texts(agent.messages)[0] == "3"
        assert (await agent.run("again")).finish is Ending.DONE


async def test_wrong_settings_are_refused_at_once() -> None:
    async with own_client() as client:
        with pytest.raises(InvalidCall, match="two tools are called add"):
            Agent(client, tools=[add, add])
        with pytest.raises(InvalidCall, match="not a tool"):
            Agent(client, tools=[print])  # type: ignore[list-item]  # the point of the test
        with pytest.raises(InvalidCall, match="budget"):
            Agent(client, max_turns=0)
        with pytest.raises(InvalidCall, match="budget"):
            Agent(client, max_total_tokens=0)


wanted_calls = st.lists(
    st.builds(
        ToolCall,
        st.sampled_from(["", "a", "b", "call_1"]),
        st.sampled_from(["", "add", "fail", "brief", "slow", "nobody"]),
        st.sampled_from(['{"a":1,"b":2}', '{"word":"x"}', "{}", "", "{", "[]", "null", "what?"]),
    ),
    max_size=4,
)
replies = st.lists(
    st.builds(
        lambda calls, text, fails: Reply(text, tuple(calls), 0 if fails else None),
        wanted_calls,
        st.sampled_from(["", "hm", "one two three"]),
        st.sampled_from([False, False, False, False, True]),
    ),
    max_size=6,
)


@tool(timeout_s=0.001)
async def brief() -> str:
    """Ask for more time than there is."""
    await anyio.sleep_forever()
    return ""


@tool
async def slow() -> str:
    """Take a few turns of the event loop."""
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
    return "slow"


async def leave_after(agent: Agent, task: str, n_events: int) -> None:
    """Run a task and leave after so many events."""
    with suppress(EngineFailed):
        async with agent.stream(task) as events:
            seen = count(1)
            async for _ in events:
                agent.transcript.check_invariants()
                if next(seen) >= n_events:
                    return


@settings(max_examples=60, deadline=None)
@given(replies, st.lists(st.integers(1, 12), min_size=1, max_size=3), st.integers(1, 4))
async def test_no_interleaving_of_failures_cancels_and_budgets_spoils_the_transcript(
    said: list[Reply], leave: list[int], max_turns: int
) -> None:
    with anyio.fail_after(30):
        async with own_client(scripted(*said)) as client:
            agent = Agent(
                client, instructions="x", tools=[add, fail, brief, slow], max_turns=max_turns
            )
            for i, n_events in enumerate(leave):
                await leave_after(agent, f"task {i}", n_events)
                agent.transcript.check_invariants()
                assert not agent.is_running
                assert texts(agent.messages, Role.USER) == sorted(texts(agent.messages, Role.USER))
            assert (await client.info()).engines[0].n_running == 0


@settings(max_examples=40, deadline=None)
@given(replies, st.integers(0, 60))
async def test_no_moment_of_a_cancel_spoils_the_transcript(said: list[Reply], n_steps: int) -> None:
    async def work(agent: Agent) -> None:
        with suppress(EngineFailed):
            await agent.run("task")

    with anyio.fail_after(30):
        async with own_client(scripted(*said)) as client:
            agent = Agent(client, tools=[add, fail, brief, slow], max_turns=3)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(work, agent)
                for _ in range(n_steps):
                    await anyio.lowlevel.checkpoint()
                    agent.transcript.check_invariants()
                tasks.cancel_scope.cancel()
            agent.transcript.check_invariants()
            assert not agent.is_running


async def test_an_agent_speaks_for_the_process_of_its_client() -> None:
    async with own_client(scripted("hi")) as client:
        assert isinstance(client, Client)
        await Agent(client).run("x")
        row = next(row for row in await client.ps() if row.name == "test")
        assert row.usage.completion_tokens > 0
