import random
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from tests.kernel.calls import slow_engine
from tests.kernel.conftest import OpenKernel

from aios.abi.call import Answer, Call
from aios.abi.calls import Chat
from aios.abi.contexts import (
    ContextAppend,
    ContextClose,
    ContextCompact,
    ContextFault,
    ContextFork,
    ContextId,
    ContextInfo,
    ContextList,
    ContextOpen,
    ContextRead,
    ContextRestore,
    ContextSnapshot,
    ContextStat,
    ContextUndo,
    WindowPolicy,
)
from aios.abi.types import Message, Role, Sampling, ToolCall, ToolSpec
from aios.config import Config, EngineConfig, Home
from aios.engine.base import ChatPrompt, Job
from aios.engine.models import find_model
from aios.engine.script import Reply, Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import (
    AccessDenied,
    AiosError,
    Conflict,
    DeadlineExceeded,
    EngineFailed,
    InvalidCall,
    KernelBug,
    NotFound,
    ProcessGone,
)
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel

pytestmark = pytest.mark.anyio

SYSTEM = Message(Role.SYSTEM, "be brief")
CLOCK = ToolSpec("clock", "tells the time", {"type": "object", "properties": {}})


def user(text: str) -> Message:
    return Message(Role.USER, text)


def say(context: ContextId, *messages: Message, deadline_s: float | None = None) -> Chat:
    return Chat(
        context=context, messages=messages, sampling=Sampling(seed=1), deadline_s=deadline_s
    )


async def opened(gate: LocalGate, *messages: Message) -> ContextId:
    return (await gate.call(ContextOpen(messages=messages, tools=(CLOCK,)))).value.id


async def kept(gate: LocalGate, context: ContextId) -> list[str]:
    messages = (await gate.call(ContextRead(context=context))).value.messages
    return [f"{message.role.value}: {message.text()}" for message in messages]


def recorder(seen: list[list[str]], reply: str | Reply = "yes") -> ScriptedEngine:
    """An engine that notes what it is shown."""

    def answer(job: Job) -> str | Reply:
        assert isinstance(job.prompt, ChatPrompt)
        seen.append([message.text() for message in job.prompt.messages])
        return reply

    return ScriptedEngine(script=Script(answer=answer))


async def test_only_new_messages_are_sent_and_the_answer_is_kept(booted: OpenKernel) -> None:
    seen: list[list[str]] = []
    async with booted(recorder(seen)) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, SYSTEM)
        await gate.call(say(context, user("one")))
        answer = (await gate.call(say(context, user("two")))).value
        assert answer.message.content == "yes"
        assert seen == [["be brief", "one"], ["be brief", "one", "yes", "two"]]
        assert await kept(gate, context) == [
            "system: be brief", "user: one", "assistant: yes", "user: two", "assistant: yes",
        ]  # fmt: skip
        usage = answer.usage
        info = (await gate.call(ContextStat(context=context))).value
        assert info.n_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_what_was_appended_needs_no_new_message(booted: OpenKernel) -> None:
    async with booted(ScriptedEngine(script=Script(replies=("yes",)))) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, user("well?"))
        await gate.call(say(context))
        with pytest.raises(InvalidCall, match="nothing to answer"):
            await gate.call(say(context))


async def test_tool_calls_must_be_answered_and_have_ids_of_their_own(booted: OpenKernel) -> None:
    wild = Reply(tool_calls=(ToolCall("x", "clock", "{}"), ToolCall("x", "clock", "{}")))
    engine = ScriptedEngine(script=Script(replies=(wild, "noon")))
    async with booted(engine) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate)
        first = (await gate.call(say(context, user("time?")))).value.message
        ids = [call.id for call in first.tool_calls]
        assert len(set(ids)) == 2
        with pytest.raises(InvalidCall, match="no results yet"):
            await gate.call(say(context, user("and?")))
        with pytest.raises(InvalidCall, match="no results yet"):
            await gate.call(say(context))
        results = [Message(Role.TOOL, "12:00", tool_call_id=each) for each in ids]
        assert (await gate.call(say(context, *results))).value.message.content == "noon"


async def test_a_second_writer_is_refused_and_a_reader_is_not(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted(slow_engine()) as kernel:
            gate = kernel.init_gate()
            context = await opened(gate, SYSTEM)
            async with gate.open_call(say(context, user("one"))) as frames:
                await frames.__aiter__().__anext__()
                for call in (
                    say(context, user("two")),
                    ContextAppend(context=context, messages=(user("two"),)),
                ):
                    with pytest.raises(Conflict, match="writes in context"):
                        await gate.call(call)
                assert (await gate.call(ContextStat(context=context))).value.writer == 1
                assert await kept(gate, context) == ["system: be brief"]


async def test_what_ends_a_chat_early_leaves_the_context_as_it_was(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted(slow_engine()) as kernel:
            gate = kernel.init_gate()
            context = await opened(gate, SYSTEM)
            with pytest.raises(DeadlineExceeded):
                await gate.call(say(context, user("one"), deadline_s=0.05))
            async with gate.open_call(say(context, user("two"))) as frames:
                await frames.__aiter__().__anext__()
            with pytest.raises(NotFound):
                await gate.call(say(ContextId(99), user("one")))
            assert await kept(gate, context) == ["system: be brief"]
            assert (await gate.call(ContextStat(context=context))).value.writer is None


async def test_an_engine_that_breaks_leaves_the_context_as_it_was(booted: OpenKernel) -> None:
    script = Script(replies=(Reply("one two three", fail_after_tokens=2), "fine"))
    async with booted(ScriptedEngine(script=script, tokens_per_read=1)) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, SYSTEM)
        with pytest.raises(EngineFailed):
            await gate.call(say(context, user("one")))
        await gate.call(say(context, user("two")))
        assert await kept(gate, context) == ["system: be brief", "user: two", "assistant: fine"]


async def test_a_context_that_ends_under_its_writer_fails_that_call_alone(
    booted: OpenKernel,
) -> None:
    async def idle(_: LocalGate) -> None:
        await anyio.sleep_forever()

    with anyio.fail_after(30):
        async with booted(slow_engine(n_tokens=50)) as kernel:
            pid = kernel.spawn_task("agent", idle)
            context = await opened(kernel.gate(pid))
            gate = kernel.init_gate()
            async with gate.open_call(say(context, user("one"))) as frames:
                await frames.__aiter__().__anext__()
                await kernel.signals.kill(kernel.table.get(pid), reason="test")
                with pytest.raises(NotFound, match="was closed, or its process"):
                    await frames.result()
            with pytest.raises(ProcessGone):
                await kernel.gate(pid).call(say(context, user("one")))


async def test_a_context_can_be_closed_under_its_writer(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted(slow_engine(n_tokens=50)) as kernel:
            gate = kernel.init_gate()
            context = await opened(gate)
            async with gate.open_call(say(context, user("one"))) as frames:
                await frames.__aiter__().__anext__()
                await gate.call(ContextClose(context=context))
                with pytest.raises(NotFound, match="was closed"):
                    await frames.result()


async def test_nobody_chats_in_the_context_of_another(booted: OpenKernel) -> None:
    async with booted(ScriptedEngine()) as kernel:
        context = await opened(kernel.init_gate())
        eve = kernel.gate(kernel.admit("eve")[0].pid)
        with pytest.raises(AccessDenied):
            await eve.call(say(context, user("tell me")))
        own = await opened(eve)
        await eve.call(say(own, user("hi")))


class Crowd:
    """Processes that do anything with their contexts while others stop, kill and cancel them."""

    def __init__(self, kernel: Kernel, seed: int) -> None:
        self.kernel = kernel
        self.dice = random.Random(seed)  # noqa: S311 - the same disturbances in each run
        self.contexts: list[ContextId] = [ContextId(1)]
        self.pids = [kernel.spawn_task(f"agent{i}", self.idle) for i in range(3)]
        self.n_done = 0

    async def idle(self, _: LocalGate) -> None:
        await anyio.sleep_forever()

    def call(self) -> Call[Answer]:
        """Any call on any context, sensible or not."""
        context = self.dice.choice(self.contexts)
        text = user("word " * self.dice.randrange(12))
        results = [Message(Role.TOOL, "12:00", tool_call_id=each) for each in ("a", "b")]
        said = self.dice.choice([(text,), (text, text), tuple(results), (results[0],), ()])
        return self.dice.choice(
            [
                ContextOpen(messages=(SYSTEM,), window=self.dice.choice(list(WindowPolicy))),
                say(context, *said, deadline_s=self.dice.choice([None, 0.001, 0.01])),
                say(context, *said),
                say(context, *results),
                ContextAppend(
                    context=context, messages=said or (text,), is_pinned=self.dice.random() < 0.2
                ),
                ContextFork(context=context),
                ContextCompact(context=context, target_tokens=self.dice.randrange(1, 120)),
                ContextUndo(context=context),
                ContextFault(context=context, pointer=1, is_restoring=self.dice.random() < 0.7),
                ContextSnapshot(context=context, name="x", is_replacing=True),
                ContextRestore(name="x"),
                ContextClose(context=context),
            ]
        )

    async def work(self, gate: LocalGate) -> None:
        """Make calls one after the other; some are given up in the middle."""
        for _ in range(25):
            try:
                with anyio.move_on_after(self.dice.choice([0.002, 1.0])):
                    answer = (await gate.call(self.call())).value
                    self.n_done += 1
                    if isinstance(answer, ContextInfo):
                        self.contexts.append(answer.id)
            except KernelBug:
                raise
            except AiosError:
                pass
            await anyio.lowlevel.checkpoint()
            self.kernel.context_table.check_invariants()

    async def disturb(self) -> None:
        """Stop, continue and in the end kill."""
        for _ in range(10):
            target = self.kernel.table.get(self.dice.choice(self.pids))
            with suppress(Conflict):
                await self.kernel.signals.stop(target)
                self.kernel.context_table.check_invariants()
                self.kernel.signals.cont(target)
            await anyio.sleep(0.002)
        await self.kernel.signals.kill(self.kernel.table.get(self.pids[0]), reason="test")


@pytest.mark.parametrize("seed", range(6))
async def test_contexts_stay_valid_whatever_is_killed_cancelled_stopped_and_compacted(
    booted: OpenKernel, seed: int
) -> None:
    calls = Reply(tool_calls=(ToolCall("a", "clock", "{}"), ToolCall("b", "clock", "{}")))
    dice = random.Random(seed)  # noqa: S311

    def answer(_: Job) -> Reply:
        text = "word " * 8
        return dice.choice([Reply(text), Reply(text), calls, Reply(text, fail_after_tokens=3)])

    script = Script(answer=answer, token_delay_s=0.0005)
    engine = ScriptedEngine(window_tokens=160, script=script, tokens_per_read=1)
    with anyio.fail_after(30):
        async with booted(engine) as kernel:
            crowd = Crowd(kernel, seed)
            gates = [kernel.init_gate(), *(kernel.gate(pid) for pid in crowd.pids)]
            async with anyio.create_task_group() as tasks:
                for gate in gates:
                    tasks.start_soon(crowd.work, gate)
                    tasks.start_soon(crowd.work, gate)
                tasks.start_soon(crowd.disturb)
            assert crowd.n_done > 5
            rows = (await kernel.init_gate().call(ContextList())).value.contexts
            assert all(row.writer is None for row in rows)
            for pid in crowd.pids[1:]:
                await kernel.signals.kill(kernel.table.get(pid), reason="test")
            assert {c.owner.pid for c in kernel.context_table._by_id.values()} <= {1}


@pytest.mark.model
async def test_a_fork_and_a_restored_snapshot_cost_no_model_work(tmp_path: Path) -> None:
    config = Config(
        engine=EngineConfig(
            kind="llama", model=str(find_model("")), n_slots=2, window_tokens=1024, n_threads=1
        )
    )
    page_tokens = 32  # what is no full page is computed again
    long = user("The kernel keeps conversations, and forks share them. " * 30)

    async def computed(kernel: Kernel) -> int:
        [row] = kernel.cores.infos()
        return row.n_prompt_tokens_computed

    async def ask(kernel: Kernel, context: ContextId, text: str) -> tuple[int, int]:
        """Prompt tokens of a short chat, and how many of them were computed."""
        before = await computed(kernel)
        call = Chat(
            context=context,
            messages=(user(text),),
            sampling=Sampling(temperature=0.0, seed=1),
            max_tokens=4,
        )
        usage = (await kernel.init_gate().call(call)).value.usage
        return usage.prompt_tokens, await computed(kernel) - before

    with anyio.fail_after(120):
        async with open_kernel(config, Home(tmp_path)) as kernel:
            gate = kernel.init_gate()
            trunk = await opened_plain(gate, long)
            n_trunk = (await gate.call(Chat(context=trunk, messages=(), max_tokens=4))).value.usage
            assert n_trunk.prompt_tokens >= 300, "several times what is computed again"
            at_start = await computed(kernel)
            forks = [(await gate.call(ContextFork(context=trunk))).value.id for _ in range(3)]
            assert await computed(kernel) == at_start
            for i, fork in enumerate(forks):
                n_tokens, n_computed = await ask(kernel, fork, f"Which is number {i}?")
                n_new = n_tokens - n_trunk.prompt_tokens
                assert n_computed <= n_new + page_tokens, (n_computed, n_new)
            await gate.call(ContextSnapshot(context=forks[0], name="talk"))
        async with open_kernel(config, Home(tmp_path)) as kernel:
            restored = (await kernel.init_gate().call(ContextRestore(name="talk"))).value
            n_tokens, n_computed = await ask(kernel, restored.id, "And now?")
            assert n_computed <= n_tokens - restored.n_tokens + 2 * page_tokens
            assert n_computed < 100


async def opened_plain(gate: LocalGate, *messages: Message) -> ContextId:
    return (await gate.call(ContextOpen(messages=messages))).value.id
