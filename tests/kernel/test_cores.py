from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest
from tests.kernel.calls import chat
from tests.kernel.conftest import OpenKernel

from aios.abi.calls import Chat, Embed, Wait
from aios.abi.contexts import (
    ContextCompact,
    ContextFork,
    ContextId,
    ContextOpen,
    ContextRestore,
    ContextSnapshot,
    WindowPolicy,
)
from aios.abi.gate import Token
from aios.abi.types import EngineState, ImagePart, Message, Role, TextPart, ToolSpec
from aios.engine.base import Ability, ChatPrompt, Engine, Job, Suspended
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine, ScriptedSequence
from aios.errors import EngineFailed, EngineUnavailable, NotFound, RateLimited
from aios.kernel.cores import LONGEST_DELAY_S, MAX_ERRORS, Core, CoreConfig, restart_delay_s
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("model", ["", "default", "engine0", "scripted"])
async def test_a_model_is_found_by_default_by_engine_and_by_model_name(
    booted: OpenKernel, model: str
) -> None:
    call = Chat(messages=(Message(Role.USER, "hi"),), model=model)
    async with booted(ScriptedEngine()) as kernel:
        assert (await kernel.init_gate().call(call)).value.model == "scripted"


async def test_an_unknown_model_is_named_together_with_the_known_ones(booted: OpenKernel) -> None:
    call = Chat(messages=(Message(Role.USER, "hi"),), model="gpt-9")
    async with booted(ScriptedEngine()) as kernel:
        await kernel.init_gate().call(chat())
        with pytest.raises(NotFound, match="gpt-9") as caught:
            await kernel.init_gate().call(call)
        assert "scripted" in caught.value.hint


async def test_a_kernel_without_an_engine_says_so(booted: OpenKernel) -> None:
    async with booted() as kernel:
        with pytest.raises(EngineUnavailable, match="no engine"):
            await kernel.init_gate().call(chat())


async def test_calls_wait_while_an_engine_loads_and_learn_why_it_failed(booted: OpenKernel) -> None:
    loaded = anyio.Event()

    async def make() -> Engine:
        await loaded.wait()
        raise EngineUnavailable("no weights", hint="aios pull")

    with anyio.fail_after(30):
        async with booted() as kernel, anyio.create_task_group() as tasks:
            core = Core("slow", "llama", make)
            kernel.cores.add(core)
            tasks.start_soon(kernel.cores.run, core)
            failures: list[str] = []

            async def ask() -> None:
                with pytest.raises(EngineUnavailable) as caught:
                    await kernel.init_gate().call(chat())
                failures.append(caught.value.hint)

            for _ in range(2):
                tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert kernel.cores.infos()[0].note == "loading"
            loaded.set()
        assert failures == ["aios pull", "aios pull"]
        assert kernel.cores.infos()[0].note == "no weights; aios pull"


# --- several engines -------------------------------------------------------------------------------------------------


Makers = dict[str, Callable[[], Awaitable[Engine]]]


def made(*engines: Engine) -> Callable[[], Awaitable[Engine]]:
    """Makes these engines, one a start; after the last, the endpoint is gone."""
    left = iter(engines)

    async def make() -> Engine:
        engine = next(left, None)
        if engine is None:
            raise EngineUnavailable("nobody answers", hint="start the endpoint")
        await engine.start()
        return engine

    return make


@asynccontextmanager
async def fleet(
    booted: OpenKernel, makers: Makers, *, max_restarts: int = 3, **fallback: tuple[str, ...]
) -> AsyncIterator[Kernel]:
    with anyio.fail_after(30):
        async with booted() as kernel:
            for name, make in makers.items():
                config = CoreConfig(
                    fallback=fallback.get(name, ()),
                    max_restarts=max_restarts,
                    delay_s=lambda _: 0.01,
                )
                kernel.add_engine(Core(name, "scripted", make, config=config))
            yield kernel


def state_of(kernel: Kernel, name: str) -> EngineState:
    return next(info.state for info in kernel.cores.infos() if info.name == name)


def says(text: str, *, fail_after_tokens: int | None = None) -> ScriptedEngine:
    def answer(_: Job) -> str:
        return text

    script = Script(answer=answer, fail_after_tokens=fail_after_tokens)
    return ScriptedEngine(model=text, script=script, tokens_per_read=1)


async def text_of(kernel: Kernel, call: Chat) -> str:
    return (await kernel.init_gate().call(call)).value.message.text()


async def test_an_engine_that_never_starts_gives_its_calls_to_the_fallback(
    booted: OpenKernel,
) -> None:
    makers = {"a": made(), "b": made(says("other"))}
    async with fleet(booted, makers, max_restarts=1, a=("b",)) as kernel:
        assert await text_of(kernel, chat()) == "other"
        while kernel.cores.infos()[0].n_failures < 2:
            await anyio.sleep(0.01)
        assert "given up after 2 failures" in kernel.cores.infos()[0].note
        with pytest.raises(EngineUnavailable, match="engine a: nobody answers"):
            await text_of(kernel, msgspec.structs.replace(chat(), may_move=False))


async def test_an_engine_whose_start_breaks_in_a_way_of_its_own_ends_no_kernel(
    booted: OpenKernel,
) -> None:
    async def make() -> Engine:
        raise OverflowError("signed integer is greater than maximum")

    makers = {"a": make, "b": made(says("other"))}
    async with fleet(booted, makers, max_restarts=1, a=("b",)) as kernel:
        while kernel.cores.infos()[0].n_failures < 2:
            await anyio.sleep(0.01)
        assert "OverflowError: signed integer" in kernel.cores.infos()[0].note
        assert await text_of(kernel, chat()) == "other"


async def test_an_engine_that_never_becomes_ready_is_given_up_in_time(booted: OpenKernel) -> None:
    async def make() -> Engine:
        await anyio.sleep_forever()
        raise AssertionError

    with anyio.fail_after(30):
        async with booted() as kernel:
            kernel.add_engine(
                Core("a", "x", make, config=CoreConfig(("m",), ("b",), start_timeout_s=0.05))
            )
            kernel.add_engine(Core("b", "x", made(says("other"))))
            assert await text_of(kernel, chat()) == "other"
            assert "not ready within 0.05 s" in kernel.cores.infos()[0].note


async def test_a_call_moves_when_its_engine_breaks_before_the_first_token(
    booted: OpenKernel,
) -> None:
    broken, other = says("never", fail_after_tokens=0), says("other")
    makers = {"a": made(broken), "b": made(other)}
    async with fleet(booted, makers, a=("b",)) as kernel:
        async with kernel.init_gate().open_call(chat()) as frames:
            seen = "".join([frame.text async for frame in frames if isinstance(frame, Token)])
            result = await frames.result()
        assert seen == result.value.message.text() == "other"
        assert result.value.model == "other"


async def test_a_break_in_mid_stream_fails_the_call_once_something_was_handed_out(
    booted: OpenKernel,
) -> None:
    makers = {"a": made(says("one two three", fail_after_tokens=1)), "b": made(says("other"))}
    async with fleet(booted, makers, a=("b",)) as kernel:
        async with kernel.init_gate().open_call(chat()) as frames:
            with pytest.raises(EngineFailed, match="engine a: "):
                await frames.result()
        assert await text_of(kernel, chat()) == "other", "nobody saw the beginning of this one"


@pytest.mark.parametrize("policy", list(WindowPolicy))
async def test_a_chat_in_a_context_moves_whatever_its_window_policy(
    booted: OpenKernel, policy: WindowPolicy
) -> None:
    first = says("first")
    makers = {"a": made(first), "b": made(says("other"))}
    clock = ToolSpec("clock", "tells the time", {"type": "object", "properties": {}})
    async with fleet(booted, makers, max_restarts=1, a=("b",)) as kernel:
        gate = kernel.init_gate()
        context = (await gate.call(ContextOpen(window=policy, tools=(clock,)))).value.id
        call = msgspec.structs.replace(chat(), context=context)
        assert await text_of(kernel, call) == "first"
        await first.aclose()  # it dies, and nobody has noticed
        assert await text_of(kernel, call) == "other"
        assert state_of(kernel, "a") is EngineState.DOWN
        assert await text_of(kernel, call) == "other"
        with pytest.raises(EngineUnavailable, match="engine a"):
            await text_of(kernel, msgspec.structs.replace(call, may_move=False))


class Throttled(ScriptedEngine):
    """An engine whose endpoint is asked too often."""

    async def count_tokens(self, _: ChatPrompt) -> int:
        raise RateLimited("ask less often")

    async def open(self, _: Job, __: Suspended | None = None) -> ScriptedSequence:
        raise RateLimited("ask less often")


async def test_a_chat_in_a_context_moves_when_its_endpoint_is_asked_too_often(
    booted: OpenKernel,
) -> None:
    makers = {"a": made(Throttled()), "b": made(says("other"))}
    clock = ToolSpec("clock", "tells the time", {"type": "object", "properties": {}})
    async with fleet(booted, makers, a=("b",)) as kernel:
        opened = ContextOpen(window=WindowPolicy.DROP_OLDEST, tools=(clock,))
        context = (await kernel.init_gate().call(opened)).value.id
        assert await text_of(kernel, msgspec.structs.replace(chat(), context=context)) == "other"


@pytest.mark.parametrize("policy", [WindowPolicy.DROP_OLDEST, WindowPolicy.SUMMARISE])
async def test_a_window_is_measured_by_the_engine_that_serves_the_call(
    booted: OpenKernel, policy: WindowPolicy
) -> None:
    """The first engine is small and blind: chats that show an image go to the other one, which has room for all."""
    small = ScriptedEngine(model="small", window_tokens=200)
    seeing = ScriptedEngine(
        model="seeing", abilities=small.capabilities.abilities | {Ability.IMAGES}
    )
    image = Message(Role.USER, (TextPart("What is this?"), ImagePart("https://example.org/a.png")))
    roles = (Role.ASSISTANT, Role.USER)
    told = tuple(Message(roles[i % 2], "word " * 10) for i in range(21))
    async with fleet(booted, {"a": made(small), "b": made(seeing)}, a=("b",)) as kernel:
        gate = kernel.init_gate()
        opened = ContextOpen(messages=(image, *told), window=policy)
        context = (await gate.call(opened)).value.id
        call = msgspec.structs.replace(chat(max_tokens=4), context=context)
        answer = (await gate.call(call)).value
        assert answer.model == "seeing"
        assert not answer.cuts
        assert not (await gate.call(ContextCompact(context=context))).value.compaction.n_messages
        blind = (
            await gate.call(
                ContextOpen(messages=(Message(Role.USER, "Hello."), *told), window=policy)
            )
        ).value.id
        answer = (await gate.call(msgspec.structs.replace(call, context=blind))).value
        assert answer.model == "small"
        assert answer.cuts, "here it is the small window that counts"


async def test_contexts_are_saved_and_restored_while_their_engine_is_down(
    booted: OpenKernel,
) -> None:
    first = says("first")
    async with fleet(booted, {"a": made(first)}, max_restarts=1) as kernel:
        gate = kernel.init_gate()
        context = (await gate.call(ContextOpen())).value.id
        await text_of(kernel, msgspec.structs.replace(chat(), context=context))
        await first.aclose()
        with pytest.raises(EngineUnavailable):
            await text_of(kernel, chat())
        assert state_of(kernel, "a") is EngineState.DOWN
        saved = (await gate.call(ContextSnapshot(context=context, name="talk"))).value
        assert saved.fingerprint == "scripted:first"
        assert (await gate.call(ContextRestore(name="talk"))).value.n_messages == 2


async def test_a_broken_engine_is_started_again_and_serves(booted: OpenKernel) -> None:
    first, second = says("first"), says("second")
    async with fleet(booted, {"a": made(first, second)}) as kernel:
        assert await text_of(kernel, chat()) == "first"
        await first.aclose()  # it dies
        with pytest.raises(EngineUnavailable, match="engine a: "):
            await text_of(kernel, chat())
        while state_of(kernel, "a") is not EngineState.READY:
            await anyio.sleep(0.01)
        assert await text_of(kernel, chat()) == "second"
        assert kernel.cores.infos()[0].n_failures == 0


async def test_an_engine_that_fails_call_after_call_counts_as_broken(booted: OpenKernel) -> None:
    makers = {"a": made(says("x", fail_after_tokens=0)), "b": made(says("other"))}
    async with fleet(booted, makers, a=("b",)) as kernel:
        for _ in range(MAX_ERRORS):
            assert state_of(kernel, "a") is not EngineState.DOWN
            assert await text_of(kernel, chat()) == "other"
        assert state_of(kernel, "a") is EngineState.DOWN


async def test_the_only_engine_that_is_able_is_down_and_the_call_is_told_so(
    booted: OpenKernel,
) -> None:
    async def gone() -> Engine:
        raise EngineUnavailable("nobody answers")

    plain = ScriptedEngine(model="a", abilities=frozenset({Ability.CHAT}))
    makers = {"a": made(plain), "b": gone}
    call = msgspec.structs.replace(chat(), tools=(ToolSpec("clock", "", {}),))
    async with fleet(booted, makers, max_restarts=0, a=("b",)) as kernel:
        assert await text_of(kernel, chat())
        with pytest.raises(EngineUnavailable, match="engine b: nobody answers"):
            await text_of(kernel, call)


@pytest.mark.no_cover
async def test_no_call_is_lost_or_answered_twice_while_engines_break(booted: OpenKernel) -> None:
    def answer(job: Job) -> str:
        assert isinstance(job.prompt, ChatPrompt)
        return f"{job.prompt.messages[0].text()} of the answer"

    def flaky(fail_after: int | None) -> ScriptedEngine:
        script = Script(answer=answer, fail_after_tokens=fail_after, token_delay_s=0.001)
        return ScriptedEngine(model="m", script=script, n_slots=2)

    makers = {
        "a": made(flaky(1), flaky(None), flaky(None), flaky(None)),
        "b": made(flaky(None)),
    }
    answers: list[str] = []
    async with fleet(booted, makers, a=("b",)) as kernel:

        async def ask(number: int) -> None:
            answers.append(await text_of(kernel, chat(f"call {number}")))
            if number == 20:
                engine = kernel.cores.get("a").engine
                if engine is not None:
                    await engine.aclose()

        async with anyio.create_task_group() as tasks:
            for number in range(60):
                tasks.start_soon(ask, number)
    assert sorted(answers) == sorted(f"call {number} of the answer" for number in range(60))


async def test_engines_of_one_model_share_its_calls_and_a_process_keeps_to_one(
    booted: OpenKernel,
) -> None:
    engines = [
        ScriptedEngine(model="m", script=Script(answer_tokens=5), n_slots=1) for _ in range(2)
    ]
    with anyio.fail_after(30):
        async with booted(*engines) as kernel:
            call = Chat(messages=(Message(Role.USER, "word " * 200),), model="m", max_tokens=5)
            for _ in range(6):
                await kernel.init_gate().call(call)
            assert sorted(e.statistics().n_sequences for e in engines) == [0, 6]
            async with anyio.create_task_group() as tasks:
                for _ in range(40):
                    tasks.start_soon(kernel.init_gate().call, call)
            assert min(e.statistics().n_sequences for e in engines) > 5


async def test_vectors_do_not_move_a_process_from_its_home(booted: OpenKernel) -> None:
    engines = [ScriptedEngine(model="m") for _ in range(2)]
    with anyio.fail_after(30):
        async with booted(*engines) as kernel:
            gate = kernel.init_gate()
            await gate.call(msgspec.structs.replace(chat(), model="m"))
            before = dict(kernel.init.homes)
            await gate.call(Embed(texts=("a b",), model="m"))
            assert kernel.init.homes == before
            assert before["m"].n_tokens > 0


async def test_the_home_of_a_process_is_forgotten_with_it(booted: OpenKernel) -> None:
    async def once(gate: LocalGate) -> None:
        await gate.call(chat())

    with anyio.fail_after(30):
        async with booted(ScriptedEngine()) as kernel:
            pid = kernel.spawn_task("once", once)
            await kernel.init_gate().call(Wait(pid=pid))
            assert not kernel.table.get(pid).homes


async def test_each_context_stays_where_its_pages_are_and_a_fork_with_it(
    booted: OpenKernel,
) -> None:
    engines = [
        ScriptedEngine(model="m", script=Script(answer_tokens=5), n_slots=1) for _ in range(2)
    ]
    with anyio.fail_after(30):
        async with booted(*engines) as kernel:
            gate = kernel.init_gate()

            async def served_by(context: ContextId) -> list[int]:
                before = [engine.statistics().n_sequences for engine in engines]
                asked = (Message(Role.USER, "word " * 100),)
                await gate.call(Chat(context=context, messages=asked, max_tokens=5))
                after = [engine.statistics().n_sequences for engine in engines]
                return [b - a for a, b in zip(before, after, strict=True)]

            first, second = [(await gate.call(ContextOpen(model="m"))).value.id for _ in range(2)]
            async with anyio.create_task_group() as tasks:  # one slot each: they part
                tasks.start_soon(served_by, first)
                tasks.start_soon(served_by, second)
            assert [engine.statistics().n_sequences for engine in engines] == [1, 1]
            for _ in range(3):
                assert await served_by(first) == [1, 0]
                assert await served_by(second) == [0, 1]
            fork = (await gate.call(ContextFork(context=second))).value.id
            assert await served_by(fork) == [0, 1]


def test_a_broken_engine_rests_longer_each_time_but_not_for_ever() -> None:
    delays = [restart_delay_s(n) for n in range(1, 30)]
    assert delays[:4] == [1, 2, 4, 8]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY_S
