from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.mail.test_post import idle
from tests.sdk.serving import calling, scripted
from tests.sdk.test_agent_memory import own_client

from aios.abi.interactions import MAX_RECORD_CHARS
from aios.abi.types import ImagePart, Message, Role, TextPart, ToolCall
from aios.config import Config, Home
from aios.engine.script import Reply, Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import EngineFailed, ResourceExhausted
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.replay import Replay
from aios.sdk import agent_log
from aios.sdk.agent import Agent, Ending
from aios.sdk.agent_log import cut, text_of
from aios.sdk.agent_memory import AgentMemory
from aios.sdk.client import Client
from aios.sdk.memory import Memory
from aios.sdk.tools import tool

pytestmark = pytest.mark.anyio

TOOL_TURN = [
    ("asked", "2 + 3?"),
    ("said", 'Let me see.\nadd({"a":2,"b":3})'),
    ("got", "add: 5"),
]


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
async def hang() -> None:
    """Never end."""
    await anyio.sleep_forever()


def booted(home: Path, script: Script) -> AbstractAsyncContextManager[Kernel]:
    engines = {"test": ScriptedEngine(script=script)}
    return open_kernel(Config(), Home(home), engines=engines)


async def logged(memory: Memory) -> list[tuple[str, str]]:
    return [(each.kind, each.text) for each in (await memory.read(limit=100)).records]


def logging(memory: Memory) -> AgentMemory:
    return AgentMemory(memory, is_recording=False, is_logging=True)


async def test_what_is_asked_said_and_got_is_logged_in_its_order_without_what_was_recalled(
    tmp_path: Path,
) -> None:
    script = scripted(calling(("add", '{"a":2,"b":3}'), text="Let me see."), "It is 5.", "Yes.")
    with anyio.fail_after(30):
        async with own_client(tmp_path, script) as client:
            note = await client.memory.remember("2 + 3 is more than 4")
            agent = Agent(client, instructions="help", tools=[add], memory=logging(client.memory))
            result = await agent.run("2 + 3?")
            assert result.recalled == (note,)
            assert await logged(client.memory) == [*TOOL_TURN, ("said", "It is 5.")]
            assert (result.logged, result.n_unlogged) == ((1, 2, 3, 4), 0)
            assert (await agent.run("Is that so?")).logged == (5, 6)
            assert (await logged(client.memory))[4:] == [("asked", "Is that so?"), ("said", "Yes.")]


async def test_a_run_that_fails_has_logged_the_turns_that_were_settled(
    tmp_path: Path,
) -> None:
    script = scripted(
        calling(("add", '{"a":2,"b":3}'), text="Let me see."), Reply("no", fail_after_tokens=0)
    )
    with anyio.fail_after(30):
        async with own_client(tmp_path, script) as client:
            agent = Agent(client, tools=[add], memory=logging(client.memory))
            with pytest.raises(EngineFailed):
                await agent.run("2 + 3?")
            assert await logged(client.memory) == TOOL_TURN


async def test_a_run_that_is_cancelled_has_logged_the_call_that_was_cut_short(
    tmp_path: Path,
) -> None:
    script = scripted(calling(("hang", "")))
    with anyio.fail_after(30):
        async with own_client(tmp_path, script) as client:
            agent = Agent(client, tools=[hang], memory=logging(client.memory))
            async with agent.stream("go") as events:
                async for event in events:
                    if type(event).__name__ == "ToolStarted":
                        break
            (_, asked), (_, said), (kind, got) = await logged(client.memory)
            assert (asked, said, kind) == ("go", "hang({})", "got")
            assert got.startswith("hang: error: interrupted")
            assert not agent.is_running


async def test_urgent_letters_are_logged_also_if_no_turn_has_answered_them(tmp_path: Path) -> None:
    with anyio.fail_after(30):
        async with booted(
            tmp_path, scripted(Reply("no", fail_after_tokens=0), "Then I wait.")
        ) as kernel:
            pid = kernel.spawn_task("b", idle)
            bob, owner = Client(kernel.gate(pid)), Client(kernel.init_gate())
            agent = Agent(bob, memory=logging(bob.memory))
            await owner.mail.send(pid, "the bridge is closed", is_urgent=True)
            await agent.client.getpid()
            with pytest.raises(EngineFailed):
                await agent.run("Cross it.")
            ((kind, text),) = await logged(bob.memory)
            assert kind == "asked"
            assert "the bridge is closed" in text
            assert (await agent.run("Cross it.")).n_unlogged == 0
            assert (await logged(bob.memory))[1:] == [
                ("asked", "Cross it."),
                ("said", "Then I wait."),
            ]


class Refusing(Memory):
    """A memory that refuses its first calls of `log`."""

    n_refused = 0

    async def log(self, text: str, kind: str = "said") -> int:
        if self.n_refused:
            self.n_refused -= 1
            raise ResourceExhausted(f"no room for {text}", hint="forget some")
        return await super().log(text, kind)


async def test_what_could_not_be_logged_is_logged_later_in_its_order_and_costs_no_answer(
    tmp_path: Path,
) -> None:
    turn = calling(("add", '{"a":2,"b":3}'), text="Let me see.")
    with anyio.fail_after(30):
        async with own_client(tmp_path, scripted(turn, "It is 5.", turn, "It is 5.")) as client:
            memory = Refusing(client.gate)
            memory.n_refused = 1
            result = await Agent(client, tools=[add], memory=logging(memory)).run("2 + 3?")
            assert await logged(memory) == [*TOOL_TURN, ("said", "It is 5.")]
            assert (result.logged, result.n_unlogged) == ((1, 2, 3, 4), 0)
            memory.n_refused = 1000
            result = await Agent(client, tools=[add], memory=logging(memory)).run("2 + 3?")
            assert (result.text, result.finish) == ("It is 5.", Ending.DONE)
            assert (result.logged, result.n_unlogged) == ((), 4)
            assert 1000 - memory.n_refused == 3, "one try a turn, and one in the end"


async def test_a_cancel_waits_for_a_record_but_not_for_ever(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent_log, "LONGEST_S", 0.05)

    class Stuck(Memory):
        is_stuck = False

        async def log(self, text: str, kind: str = "said") -> int:
            reached.set()
            await (anyio.sleep_forever() if self.is_stuck else go_on.wait())
            return await super().log(text, kind)

    for is_stuck, n_logged in ((True, 0), (False, 2)):
        reached, go_on = anyio.Event(), anyio.Event()
        with anyio.fail_after(30):
            async with own_client(tmp_path, scripted("Yes.")) as client:
                memory = Stuck(client.gate)
                memory.is_stuck = is_stuck
                agent = Agent(client, memory=logging(memory))
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(agent.run, "Is it so?")
                    await reached.wait()
                    tasks.cancel_scope.cancel()
                    go_on.set()
                assert len(await logged(memory)) == n_logged
                assert not agent.is_running


async def test_it_is_off_unless_asked_for_and_makes_no_call(
    tmp_path: Path,
) -> None:
    script = scripted(calling(("add", '{"a":2,"b":3}')), "5", "Yes.")
    with anyio.fail_after(30):
        async with booted(tmp_path, script) as kernel:
            pid = kernel.spawn_task("a", idle)
            client = Client(kernel.gate(pid))
            memory = AgentMemory(client.memory)
            result = await Agent(client, tools=[add], memory=memory).run("2 + 3?")
            assert (result.logged, result.n_unlogged, result.recent) == ((), 0, ())
            calls = [each.call for each in kernel.journal.records(pid)]
            assert calls == ["recall", "chat", "chat", "remember"]


async def test_a_program_that_runs_again_is_told_the_same(tmp_path: Path) -> None:
    def answer(_: object) -> Reply:
        return next(replies)

    turn = calling(("add", '{"a":2,"b":3}'), ("add", '{"a":1,"b":3}'), text="Let me see.")
    replies = iter([turn, Reply("5 and 4")])
    engines = {"test": ScriptedEngine(script=Script(answer=answer))}
    async with open_kernel(Config(), Home(tmp_path), engines=engines, is_durable=True) as kernel:
        pid = kernel.spawn_task("bob", idle)

        async def live() -> Sequence[int]:
            client = Client(kernel.gate(pid))
            memory = AgentMemory(client.memory, is_logging=True, recent=5)
            return (await Agent(client, tools=[add], memory=memory).run("2 + 3?")).logged

        first = await live()
        assert first == (1, 2, 3, 4, 5)
        disk = kernel.journal.disk
        assert disk is not None
        replay = Replay(await disk.load(pid))
        kernel.table.get(pid).replay = replay
        assert await live() == first
        assert replay.n_left == 0


def test_a_record_says_what_a_message_holds() -> None:
    image = ImagePart("data:image/png;base64,AAAA")
    assert text_of(Message(Role.USER, (TextPart("What is "), image))) == "What is [image]"
    assert text_of(Message(Role.ASSISTANT, "", (ToolCall("c", "f", "{}"),))) == "f({})"
    assert text_of(Message(Role.ASSISTANT, " \n")) == ""
    long = text_of(Message(Role.TOOL, "x" * 70_000, tool_call_id="c", name="f"))
    assert MAX_RECORD_CHARS - 2 <= len(long) <= MAX_RECORD_CHARS
    assert long.startswith("f: xxx")
    assert long.endswith(" more characters]")


@given(st.text(), st.integers(30, 60))
def test_a_text_that_is_cut_says_how_much_is_missing(text: str, n_chars: int) -> None:
    shown = cut(text * 7, n_chars)
    assert len(shown) <= n_chars
    if shown != text * 7:
        kept, _, mark = shown.rpartition(" [")
        assert (text * 7).startswith(kept)
        assert len(kept) + int(mark.split(maxsplit=1)[0]) == len(text * 7)
