from contextlib import suppress

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sdk.serving import served

from aios.abi.types import Message, Role, ToolCall
from aios.engine.base import ChatPrompt, Job
from aios.engine.script import Reply, Script
from aios.errors import EngineFailed
from aios.sdk.agent import Agent, Ending
from aios.sdk.agent_context import fault_tool
from aios.sdk.client import connect
from aios.sdk.tools import tool

pytestmark = pytest.mark.anyio


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
async def hang() -> str:
    """Never end."""
    await anyio.sleep_forever()
    return ""


def calling(name: str, arguments: str = "{}") -> Reply:
    return Reply(tool_calls=(ToolCall("a", name, arguments),))


def roles(messages: tuple[Message, ...]) -> str:
    return "".join(message.role.value[0] for message in messages)


async def test_an_agents_conversation_lives_in_the_kernel() -> None:
    seen: list[int] = []
    said = [calling("add", '{"a":1,"b":2}'), Reply("three"), Reply("you are welcome"), Reply("yes")]
    replies = iter(said)

    def answer(job: Job) -> Reply:
        assert isinstance(job.prompt, ChatPrompt)
        seen.append(len(job.prompt.messages))
        return next(replies)

    with anyio.fail_after(30):
        async with (
            served(Script(answer=answer)) as kernel,
            connect(kernel.urls[0], kernel.owner_token) as client,
            client.context() as context,
        ):
            agent = Agent(client, instructions="be brief", tools=[add], context=context)
            assert (await agent.run("1 + 2?")).text == "three"
            assert (await agent.run("thanks")).text == "you are welcome"
            assert seen == [2, 4, 6], "the model saw all"
            assert await context.messages() == agent.messages
            another = Agent(
                client, instructions="ignored: the context has its own", context=context
            )
            assert roles(await context.messages()) == "suataua"
            assert (await another.run("and?")).text == "yes"
            assert seen[-1] == 8
            assert roles(await context.messages()) == "suatauaua"


async def test_a_run_that_is_cut_short_leaves_a_context_to_go_on_with() -> None:
    script = Script(replies=(calling("hang"), "never mind", calling("hang"), "well"))
    with anyio.fail_after(30):
        async with (
            served(script) as kernel,
            connect(kernel.urls[0], kernel.owner_token) as client,
            client.context() as context,
        ):
            agent = Agent(client, tools=[hang], context=context)
            with anyio.move_on_after(0.2):
                await agent.run("wait")
            assert (await context.stat()).unanswered
            assert (await agent.run("still there?")).text == "never mind"
            kept = await context.messages()
            assert kept == agent.messages
            assert "interrupted" in kept[2].text()
            # Another agent, which knows nothing of the calls that the first has left open.
            with anyio.move_on_after(0.2):
                await agent.run("wait again")
            assert (await Agent(client, context=context).run("you?")).text == "well"
            assert "interrupted" in (await context.messages())[-3].text()


async def test_a_budget_that_ends_a_run_answers_its_last_calls() -> None:
    with anyio.fail_after(30):
        async with (
            served(Script(replies=(calling("add", '{"a":1,"b":2}'), "ok"))) as kernel,
            connect(kernel.urls[0], kernel.owner_token) as client,
            client.context() as context,
        ):
            agent = Agent(client, tools=[add], max_turns=1, context=context)
            assert (await agent.run("1 + 2?")).finish is Ending.MAX_TURNS
            assert (await context.stat()).unanswered == ()
            assert await context.messages() == agent.messages
            await agent.run("go on")
            assert await context.messages() == agent.messages


@pytest.mark.parametrize("comes_in_a_call", [False, True])
async def test_an_urgent_letter_outlives_the_thought_that_it_was_told_in(
    comes_in_a_call: bool,
) -> None:
    failing = [Reply("", fail_after_tokens=0)]
    if comes_in_a_call:
        failing.insert(0, calling("look"))
    script = Script(replies=("ok", *failing, "yes"))
    with anyio.fail_after(30):
        async with (
            served(script) as kernel,
            connect(kernel.urls[0], kernel.owner_token) as client,
            client.context() as context,
        ):

            @tool
            async def look() -> str:
                await client.mail.send(1, "the bridge is closed", is_urgent=True)
                await agent.client.getpid()  # with whose answer it is heard
                return "a bridge"

            agent = Agent(client, instructions="be brief", tools=[look], context=context)
            await agent.run("hello")
            if not comes_in_a_call:
                await look()
            with pytest.raises(EngineFailed):
                await agent.run("go")
            assert (await agent.run("and?")).text == "yes"
            kept = await context.messages()
            assert kept == agent.messages
            assert sum("the bridge is closed" in message.text() for message in kept) == 1
            agent.transcript.check_invariants()


async def test_a_model_reads_back_what_left_its_window() -> None:
    with anyio.fail_after(30):
        async with (
            served(
                Script(replies=("ok", calling("context_fault", '{"pointer":1}'), "sea"))
            ) as kernel,
            connect(kernel.urls[0], kernel.owner_token) as client,
            client.context(window="page-to-memory") as context,
        ):
            agent = Agent(client, tools=[fault_tool(context)], context=context)
            await agent.run("the word is sea " + "x " * 60)
            await context.append("next")
            await context.compact(target_tokens=60)
            assert "pointer 1" in (await context.messages())[0].text()
            await agent.run("what was the word?")
            assert "the word is sea" in agent.messages[-2].text()
            assert (await context.stat()).n_faults == 1


@given(st.lists(st.sampled_from(["say", "call", "hang", "fail"]), min_size=1, max_size=6))
@settings(max_examples=15, deadline=None)
def test_whatever_becomes_of_its_runs_the_context_is_what_the_agent_remembers(
    plan: list[str],
) -> None:
    replies: dict[str, list[str | Reply]] = {
        "say": ["yes"],
        "call": [calling("add", '{"a":1,"b":2}'), "three"],
        "hang": [calling("hang")],
        "fail": [calling("add", "{}"), Reply("", fail_after_tokens=0)],
    }

    async def work() -> None:
        script = Script(replies=tuple(reply for what in plan for reply in replies[what]))
        async with (
            served(script) as kernel,
            connect(kernel.urls[0], kernel.owner_token) as client,
            client.context() as context,
        ):
            agent = Agent(client, instructions="be brief", tools=[add, hang], context=context)
            for what in plan:
                with anyio.move_on_after(0.1 if what == "hang" else 10), suppress(EngineFailed):
                    await agent.run(what)
            agent.transcript.check_invariants()
            assert agent.tether is not None
            await agent.tether.begin(agent.messages)
            kept = await context.messages()
            unsent = agent.messages[len(kept) :]
            assert (*kept, *unsent) == agent.messages
            assert all(message.role is Role.TOOL for message in unsent)

    anyio.run(work)
