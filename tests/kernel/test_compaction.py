from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.kernel.conftest import NOBODY, UNASKED, OpenKernel

from aios.abi.calls import Chat
from aios.abi.contexts import (
    ContextAppend,
    ContextCompact,
    ContextFault,
    ContextId,
    ContextInfo,
    ContextOpen,
    ContextRead,
    ContextStat,
    ContextUndo,
    WindowPolicy,
)
from aios.abi.gate import Token
from aios.abi.types import Message, Role, Sampling, ToolCall
from aios.config import Config, ContextConfig, Home
from aios.engine.base import Ability, Capabilities, ChatPrompt, Job
from aios.engine.script import Reply, Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import Conflict, ContextWindowExceeded, NotFound, TooLarge, Unsupported
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import open_kernel

pytestmark = pytest.mark.anyio

WINDOW = 256


def user(text: str) -> Message:
    return Message(Role.USER, text)


def turns(n: int, n_words: int = 20) -> tuple[Message, ...]:
    pairs = [
        (user(f"question {i} " + "word " * n_words), Message(Role.ASSISTANT, f"answer {i}"))
        for i in range(n)
    ]
    return (Message(Role.SYSTEM, "be brief"), *(each for pair in pairs for each in pair))


def talker(seen: list[tuple[Message, ...]]) -> ScriptedEngine:
    def answer(job: Job) -> str | Reply:
        assert isinstance(job.prompt, ChatPrompt)
        seen.append(job.prompt.messages)
        is_summary = job.prompt.messages[0].text().startswith("Summarise")
        return "they spoke of words" if is_summary else "yes"

    return ScriptedEngine(window_tokens=WINDOW, script=Script(answer=answer))


async def opened(gate: LocalGate, policy: WindowPolicy, *messages: Message) -> ContextId:
    return (await gate.call(ContextOpen(messages=messages, window=policy))).value.id


async def say(gate: LocalGate, context: ContextId, text: str) -> str:
    call = Chat(context=context, messages=(user(text),), sampling=Sampling(seed=1))
    return (await gate.call(call)).value.message.text()


async def kept(gate: LocalGate, context: ContextId) -> tuple[Message, ...]:
    return (await gate.call(ContextRead(context=context))).value.messages


async def info_of(gate: LocalGate, context: ContextId) -> ContextInfo:
    return (await gate.call(ContextStat(context=context))).value


async def test_without_a_policy_too_much_is_refused_with_the_numbers(booted: OpenKernel) -> None:
    async with booted(talker([])) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.NONE, *turns(20))
        with pytest.raises(ContextWindowExceeded, match=str(WINDOW)):
            await say(gate, context, "more")
        assert await kept(gate, context) == turns(20)


@pytest.mark.parametrize("policy", [p for p in WindowPolicy if p is not WindowPolicy.NONE])
async def test_a_full_window_is_compacted_and_can_be_undone(
    booted: OpenKernel, policy: WindowPolicy
) -> None:
    seen: list[tuple[Message, ...]] = []
    async with booted(talker(seen)) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, policy, *turns(20))
        async with gate.open_call(
            Chat(context=context, messages=(user("more"),), sampling=Sampling(seed=1))
        ) as frames:
            streamed = [frame.text async for frame in frames if isinstance(frame, Token)]
        assert "".join(streamed) == "yes", "nothing of a summary is shown to the caller"
        assert seen[-1][0].text() == "be brief"
        assert seen[-1][-1].text().endswith("more")
        info = await info_of(gate, context)
        [compaction] = info.compactions
        assert compaction.what == policy.value
        assert compaction.n_tokens_after <= WINDOW / 2 < WINDOW < compaction.n_tokens_before
        assert not compaction.is_estimated
        log = "".join(line.text for line in kernel.init.log.read(0)[0])
        assert f"context {context}: {policy.value}" in log
        restored = (await gate.call(ContextUndo(context=context))).value
        assert restored.compactions == ()
        whole = (*turns(20), user("more"), Message(Role.ASSISTANT, "yes"))
        assert await kept(gate, context) == whole
        with pytest.raises(Conflict):
            await gate.call(ContextUndo(context=context))


async def test_a_summary_stands_for_what_left(booted: OpenKernel) -> None:
    seen: list[tuple[Message, ...]] = []
    async with booted(talker(seen)) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.SUMMARISE, *turns(20))
        await say(gate, context, "more")
        assert "User: question 0" in seen[-2][1].text(), "what was to be summarised"
        note = (await kept(gate, context))[1]
        assert "they spoke of words" in note.text()
        assert kernel.init.usage.completion_tokens > 4, "a summary is paid for by its process"


async def test_a_summary_is_made_of_what_was_called_too_and_its_pages_are_nobody_s(
    booted: OpenKernel,
) -> None:
    seen: list[tuple[Message, ...]] = []
    call = ToolCall("c", "write", '{"path": "/a"}')
    spoken = (
        user("write it"),
        Message(Role.ASSISTANT, "", (call,)),
        Message(Role.TOOL, "done", tool_call_id="c"),
        Message(Role.ASSISTANT, "I have."),
    )
    async with booted(talker(seen)) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.SUMMARISE, *spoken, *turns(20)[1:])
        kernel.init.pages = (b"of its context",)
        compact = ContextCompact(context=context, target_tokens=150)
        assert (await gate.call(compact)).value.compaction.n_messages > 4
        assert '[calls write({"path": "/a"})]' in seen[-1][1].text()
        assert kernel.init.pages == (b"of its context",)


async def test_a_summary_leaves_room_for_what_must_stay_in_a_small_window(
    booted: OpenKernel,
) -> None:
    async with booted(talker([])) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.SUMMARISE, *turns(20))
        assert await say(gate, context, "word " * 120) == "yes"
        assert "they spoke of words" in (await kept(gate, context))[1].text()


async def test_what_was_paged_out_can_be_read_back_and_put_back(booted: OpenKernel) -> None:
    async with booted(talker([])) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.PAGE_TO_MEMORY, *turns(20))
        await say(gate, context, "more")
        after = await kept(gate, context)
        assert "pointer 1" in after[1].text()
        assert 'They begin: "question 0' in after[1].text()
        page = (await gate.call(ContextFault(context=context, pointer=1))).value.messages
        assert page == turns(20)[1 : 1 + len(page)]
        assert await kept(gate, context) == after
        with pytest.raises(NotFound):
            await gate.call(ContextFault(context=context, pointer=2))
        await gate.call(ContextFault(context=context, pointer=1, is_restoring=True))
        assert (await kept(gate, context))[: len(turns(20))] == turns(20)
        info = await info_of(gate, context)
        assert (info.n_pages, info.n_faults, info.compactions[0].what) == (1, 2, "fault")
        assert (await gate.call(ContextUndo(context=context))).value.n_pages == 1
        assert await kept(gate, context) == after
        assert (await gate.call(ContextUndo(context=context))).value.n_pages == 0


async def test_a_chat_that_fails_after_a_compaction_undoes_that_too(booted: OpenKernel) -> None:
    script = Script(replies=(Reply("no", fail_after_tokens=0), "yes"))
    async with booted(ScriptedEngine(window_tokens=WINDOW, script=script)) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.DROP_OLDEST, *turns(20))
        before = await info_of(gate, context)
        with pytest.raises(Exception, match="engine"):
            await say(gate, context, "more")
        assert await info_of(gate, context) == before
        assert await say(gate, context, "more") == "yes"


async def test_compaction_on_demand_reaches_its_target_and_keeps_pins(booted: OpenKernel) -> None:
    async with booted(talker([])) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.NONE, *turns(3))
        await gate.call(ContextAppend(context=context, messages=(user("rule"),), is_pinned=True))
        await say(gate, context, "and?")
        compact = ContextCompact(context=context, target_tokens=60)
        done = (await gate.call(compact)).value.compaction
        assert done.n_tokens_after <= 60 < done.n_tokens_before
        assert user("rule") in await kept(gate, context)
        assert (await gate.call(compact)).value.compaction.n_messages == 0


async def test_a_compaction_that_would_make_a_context_longer_changes_nothing(
    booted: OpenKernel,
) -> None:
    async with booted(talker([])) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.PAGE_TO_MEMORY, *turns(2, n_words=1))
        done = (await gate.call(ContextCompact(context=context, target_tokens=5))).value
        assert (done.compaction.n_messages, done.pointer) == (0, 0)
        assert await kept(gate, context) == turns(2, n_words=1)


async def test_a_large_share_still_leaves_room_for_an_answer(tmp_path: Path) -> None:
    config = Config(context=ContextConfig(target_share=0.95), access=UNASKED, approvals=NOBODY)
    async with open_kernel(config, Home(tmp_path), engines={"local": talker([])}) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.DROP_OLDEST, *turns(20))
        await say(gate, context, "more")
        for _ in range(20):
            assert await say(gate, context, "and " * 10) == "yes"
            n_prompt = (await info_of(gate, context)).n_tokens
            assert n_prompt <= WINDOW * 3 / 4 + 1, "a quarter is for the answer"


async def test_what_must_stay_and_does_not_fit_is_refused(booted: OpenKernel) -> None:
    async with booted(talker([])) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.DROP_OLDEST, *turns(2))
        with pytest.raises(ContextWindowExceeded, match=f"holds {WINDOW}"):
            await say(gate, context, "word " * 300)
        assert await kept(gate, context) == turns(2)


async def test_what_must_stay_and_fits_is_not_refused(booted: OpenKernel) -> None:
    async with booted(talker([])) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.DROP_OLDEST, Message(Role.SYSTEM, "be brief"))
        call = ContextCompact(context=context, target_tokens=1)
        assert (await gate.call(call)).value.compaction.n_messages == 0
        assert await say(gate, context, "word " * 220) == "yes"
        assert WINDOW * 3 / 4 < (await info_of(gate, context)).n_tokens < WINDOW


class Blind(ScriptedEngine):
    """An engine that cannot count and tells no window, as many endpoints do."""

    @property
    def capabilities(self) -> Capabilities:
        offer = super().capabilities
        return replace(offer, window_tokens=0, abilities=offer.abilities - {Ability.TOKENIZE})

    async def count_tokens(self, _: ChatPrompt) -> int:
        raise Unsupported("no tokenizer here")


async def test_an_engine_that_cannot_count_is_believed_when_it_refuses(booted: OpenKernel) -> None:
    engine = Blind(window_tokens=WINDOW, script=Script(replies=("yes",)))
    async with booted(engine) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.DROP_OLDEST, *turns(16))
        assert await say(gate, context, "more") == "yes"
        [compaction] = (await info_of(gate, context)).compactions
        assert compaction.is_estimated


async def test_what_cannot_leave_is_not_said_to_fill_a_window_that_nobody_knows(
    booted: OpenKernel,
) -> None:
    async with booted(Blind(window_tokens=WINDOW)) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.DROP_OLDEST, user("hello"))
        call = ContextCompact(context=context, target_tokens=1)
        assert (await gate.call(call)).value.compaction.n_messages == 0


class Short(ScriptedEngine):
    """An engine that counts no more than 4,000 characters, as the embedded one does with 4 million."""

    async def count_tokens(self, prompt: ChatPrompt) -> int:
        if sum(len(message.text()) for message in prompt.messages) > 4_000:
            raise TooLarge("too long to be counted")
        return await super().count_tokens(prompt)


async def test_a_context_that_is_too_long_to_be_counted_is_compacted(booted: OpenKernel) -> None:
    async with booted(Short(window_tokens=WINDOW, script=Script(replies=("yes",)))) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.DROP_OLDEST, *turns(60))
        assert await say(gate, context, "more") == "yes"
        info = await info_of(gate, context)
        [compaction] = info.compactions
        assert compaction.is_estimated
        assert info.n_messages > 3, "what is left was counted"


@pytest.mark.no_cover
async def test_many_chats_in_a_small_window_go_on_for_ever(booted: OpenKernel) -> None:
    async with booted(talker([])) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.PAGE_TO_MEMORY, *turns(1))
        for i in range(40):
            assert await say(gate, context, f"question {i} " + "word " * 20) == "yes"
        info = await info_of(gate, context)
        assert info.n_pages >= 5
        assert info.n_tokens <= WINDOW


async def test_a_context_that_pages_out_goes_on_when_its_memory_is_full(tmp_path: Path) -> None:
    config = Config(context=ContextConfig(max_bytes=8_000), access=UNASKED, approvals=NOBODY)
    async with open_kernel(config, Home(tmp_path), engines={"local": talker([])}) as kernel:
        gate = kernel.init_gate()
        context = await opened(gate, WindowPolicy.PAGE_TO_MEMORY, *turns(1))
        for i in range(40):
            assert await say(gate, context, f"question {i} " + "word " * 20) == "yes"
        info = await info_of(gate, context)
        assert info.size_bytes <= 8_000
        with pytest.raises(NotFound, match="leads nowhere any more"):
            await gate.call(ContextFault(context=context, pointer=1))
