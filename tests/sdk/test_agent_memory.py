from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.sdk.serving import scripted

from aios.abi.types import ImagePart, Message, Role, TextPart
from aios.config import Config, Home
from aios.engine.base import ChatPrompt, Job
from aios.engine.script import Reply, Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import InvalidCall, ResourceExhausted
from aios.kernel.kernel import open_kernel
from aios.sdk.agent import Agent, Ending
from aios.sdk.agent_memory import HEADING, RECENT_HEADING, AgentMemory, Preface, prefaced
from aios.sdk.client import Client
from aios.sdk.memory import Memory

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def own_client(home: Path, script: Script) -> AsyncIterator[Client]:
    """The client of a guest of a kernel that keeps what it is told under `home`."""
    engines = {"test": ScriptedEngine(script=script)}
    async with open_kernel(Config(), Home(home), engines=engines) as kernel:
        yield Client(kernel.gate(kernel.admit("test")[0].pid))


def heard() -> tuple[list[str], Script]:
    """A script that writes down the last message of each prompt."""
    prompts: list[str] = []

    def note(job: Job) -> Reply:
        assert isinstance(job.prompt, ChatPrompt)
        prompts.append(job.prompt.messages[-1].text())
        return Reply("Lentil soup.")

    return prompts, Script(answer=note)


async def test_what_fits_is_recalled_before_a_run_and_the_exchange_is_kept_after_it(
    tmp_path: Path,
) -> None:
    prompts, script = heard()
    with anyio.fail_after(30):
        async with own_client(tmp_path, script) as client:
            note = await client.memory.remember("The user eats no meat, only vegetarian food")
            agent = Agent(client, memory=AgentMemory(client.memory))
            first = await agent.run("Which vegetarian food shall I cook?")
            assert first.recalled == (note,)
            assert prompts[0].startswith(f"{HEADING}\n- The user eats no meat")
            assert prompts[0].endswith("\n\nWhich vegetarian food shall I cook?")
            assert first.recorded is not None
            kept = (await client.memory.get(first.recorded)).note
            assert kept.text == "Asked: Which vegetarian food shall I cook?\nAnswered: Lentil soup."
            second = await agent.run("Which vegetarian food did you name?")
            assert first.recorded in second.recalled
            agent.transcript.check_invariants()


async def test_without_a_memory_nothing_is_recalled_and_nothing_kept(tmp_path: Path) -> None:
    prompts, script = heard()
    with anyio.fail_after(30):
        async with own_client(tmp_path, script) as client:
            await client.memory.remember("The user eats no meat")
            result = await Agent(client).run("What does the user eat?")
            assert (result.recalled, result.recorded) == ((), None)
            assert prompts == ["What does the user eat?"]
            assert [note.text async for note in client.memory.notes()] == ["The user eats no meat"]


async def test_the_notes_never_take_more_than_the_allowance(tmp_path: Path) -> None:
    prompts, script = heard()
    with anyio.fail_after(30):
        async with own_client(tmp_path, script) as client:
            for number in range(20):
                await client.memory.remember(
                    f"The boat has the number {number} " + "and more " * 20
                )
            for tokens in (1, 100, 250):
                memory = AgentMemory(client.memory, tokens=tokens, limit=20, is_recording=False)
                result = await Agent(client, memory=memory).run("Which number has the boat?")
                front = prompts[-1].partition("\n\nWhich")[0] if result.recalled else ""
                count = await client.count_tokens([Message(Role.USER, front)])
                empty = await client.count_tokens([Message(Role.USER, "")])
                assert count.n_tokens <= max(tokens, empty.n_tokens)
                assert (len(result.recalled) > 0) == (tokens > 1)
                assert result.recorded is None


async def test_a_run_that_is_cut_short_is_not_kept_and_a_full_memory_costs_no_answer(
    tmp_path: Path,
) -> None:
    class Full(Memory):
        async def remember(self, text: str, **_: object) -> int:
            raise ResourceExhausted(f"no room for {text}", hint="forget some")

    script = scripted("one two three four five", "Done.")
    with anyio.fail_after(30):
        async with own_client(tmp_path, script) as client:
            agent = Agent(client, memory=AgentMemory(client.memory), max_tokens=2)
            cut = await agent.run("Count.")
            assert (cut.finish, cut.recorded) == (Ending.LENGTH, None)
            full = Agent(client, memory=AgentMemory(Full(client.gate)))
            result = await full.run("And now?")
            assert (result.finish, result.recorded) == (Ending.DONE, None)


def test_a_task_with_an_image_keeps_it() -> None:
    image = ImagePart("data:image/png;base64,AAAA")
    task = Message(Role.USER, (TextPart("What is this?"), image))
    found = prefaced(task, Preface("Notes", (1,)))
    assert found.content == (TextPart("Notes\n\n"), *task.content)
    assert prefaced(task, Preface()) is task


async def test_an_allowance_of_nothing_is_refused(tmp_path: Path) -> None:
    async with own_client(tmp_path, scripted()) as client:
        with pytest.raises(InvalidCall):
            AgentMemory(client.memory, tokens=0)
        with pytest.raises(InvalidCall, match="recent"):
            AgentMemory(client.memory, recent=101)


async def test_an_agent_that_begins_anew_is_shown_its_last_records_once(tmp_path: Path) -> None:
    prompts, script = heard()
    with anyio.fail_after(30):
        async with own_client(tmp_path, script) as client:
            memory = AgentMemory(client.memory, recent=2, is_logging=True, is_recording=False)
            agent = Agent(client, memory=memory)
            assert (await agent.run("What shall I cook?")).recent == ()
            assert (await agent.run("And then?")).recent == ()
            assert prompts == ["What shall I cook?", "And then?"]
        async with own_client(tmp_path, script) as client:
            await client.memory.remember("The user eats no meat")
            memory = AgentMemory(client.memory, recent=3, is_logging=True, is_recording=False)
            agent = Agent(client, memory=memory)
            first = await agent.run("What did I eat?")
            assert (len(first.recalled), first.recent, first.logged) == (1, (2, 3, 4), (5, 6))
            assert prompts[2] == (
                f"{HEADING}\n- The user eats no meat\n\n{RECENT_HEADING}\n- said: Lentil soup.\n"
                "- asked: And then?\n- said: Lentil soup.\n\nWhat did I eat?"
            )
            second = await agent.run("What did I eat?")
            assert (len(second.recalled), second.recent) == (1, ())
            off = Agent(client, memory=AgentMemory(client.memory, is_recording=False))
            assert (await off.run("And?")).recent == ()


async def test_records_take_what_the_notes_leave_of_the_allowance(tmp_path: Path) -> None:
    prompts, script = heard()
    with anyio.fail_after(30):
        async with own_client(tmp_path, script) as client:
            await client.memory.remember("The boat is white")
            for number in range(1, 21):
                await client.memory.log(f"{number} " + "x " * 600, "got")
            shown = []
            for tokens in (1, 40, 700, 7_000):
                memory = AgentMemory(client.memory, tokens=tokens, recent=20, is_recording=False)
                result = await Agent(client, memory=memory).run("Is the boat white?")
                front = prompts[-1].removesuffix("\n\nIs the boat white?")
                count = await client.count_tokens([Message(Role.USER, front)])
                assert count.n_tokens <= tokens or not (result.recalled or result.recent)
                assert result.recent == tuple(range(21 - len(result.recent), 21))
                shown.append((len(result.recalled), len(result.recent)))
            assert shown[:2] == [(0, 0), (1, 0)]
            assert shown[2][0] == 1
            assert 0 < shown[2][1] < 20
            assert shown[3] == (1, 20)


async def test_a_context_that_holds_a_conversation_is_no_new_beginning(tmp_path: Path) -> None:
    prompts, script = heard()
    with anyio.fail_after(30):
        async with own_client(tmp_path, script) as client:
            await client.memory.log("a boat", "got")
            context = await client.contexts.open()
            for recent in ((1,), ()):
                memory = AgentMemory(client.memory, recent=10, is_recording=False)
                agent = Agent(client, context=context, memory=memory)
                assert (await agent.run("And?")).recent == recent
            assert prompts == [f"{RECENT_HEADING}\n- got: a boat\n\nAnd?", "And?"]
