import contextlib
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace
from tests.kernel.calls import chat, slow_engine
from tests.kernel.conftest import OpenKernel

from aios.abi.budget import Budget, Limits, SetBudget
from aios.abi.calls import Chat, Complete, Cont, CountTokens, Embed, Kill, Stop, Tokenize
from aios.abi.gate import Token
from aios.abi.types import (
    EngineState,
    Finish,
    Message,
    Pid,
    Regex,
    Role,
    Sampling,
    ToolCall,
    ToolChoice,
    ToolSpec,
    Usage,
)
from aios.config import Config, EngineConfig, Home, SchedulerConfig
from aios.engine.base import ChatPrompt
from aios.engine.models import find_model
from aios.engine.script import Reply, Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError, ContextWindowExceeded, EngineFailed, InvalidCall, ProcessGone
from aios.kernel.cores import MAX_ERRORS
from aios.kernel.kernel import open_kernel
from aios.kernel.scheduler.policy import Mlfq, Priority

pytestmark = pytest.mark.anyio


async def test_a_chat_brings_a_message_its_usage_and_its_times(booted: OpenKernel) -> None:
    async with booted(ScriptedEngine(script=Script(replies=("Hello there.",)))) as kernel:
        result = await kernel.init_gate().call(chat("hi"))
        assert result.value.message == Message(Role.ASSISTANT, "Hello there.")
        assert result.value.finish is Finish.STOP
        assert result.value.model == "scripted"
        assert result.value.usage.completion_tokens > 0
        assert result.ran_s > 0
        assert kernel.init.usage == result.value.usage


async def test_streamed_pieces_add_up_to_the_message(booted: OpenKernel) -> None:
    async with booted(slow_engine(n_tokens=30, token_delay_s=0.001)) as kernel:
        async with kernel.init_gate().open_call(chat()) as frames:
            tokens = [frame async for frame in frames if isinstance(frame, Token)]
            result = await frames.result()
        assert "".join(token.text for token in tokens) == result.value.message.content
        assert sum(token.n_tokens for token in tokens) == result.value.usage.completion_tokens == 30


async def test_a_tool_call_comes_back_whole(booted: OpenKernel) -> None:
    tool = ToolSpec("clock", "tells the time", {"type": "object", "properties": {}})
    call = Chat(
        messages=(Message(Role.USER, "what time is it"),),
        tools=(tool,),
        tool_choice=ToolChoice("required"),
    )
    async with booted(ScriptedEngine()) as kernel:
        answer = (await kernel.init_gate().call(call)).value
    assert answer.finish is Finish.TOOL_CALLS
    assert [made.name for made in answer.message.tool_calls] == ["clock"]


async def test_no_more_generations_run_at_once_than_the_engine_has_slots(
    booted: OpenKernel,
) -> None:
    engine = slow_engine(n_slots=2, n_tokens=10)
    most = 0
    with anyio.fail_after(30):
        async with booted(engine) as kernel:

            async def talk() -> None:
                nonlocal most
                async with kernel.init_gate().open_call(chat()) as frames:
                    async for _ in frames:
                        most = max(most, engine.statistics().n_running)

            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(talk)
    assert most == 2


async def test_waiting_and_running_times_are_told_apart(booted: OpenKernel) -> None:
    with anyio.fail_after(30):
        async with booted(slow_engine(n_tokens=20, token_delay_s=0.005)) as kernel:
            waited: list[float] = []

            async def talk() -> None:
                result = await kernel.init_gate().call(chat())
                waited.append(result.waited_s)
                assert result.ran_s >= 0.08

            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(talk)
    first, second, third = sorted(waited)
    assert first < 0.05
    assert second >= 0.08
    assert third >= 0.17


async def test_an_engine_that_breaks_in_the_middle_faults_the_call_and_frees_its_slot(
    booted: OpenKernel,
) -> None:
    script = Script(replies=(Reply("one two three four", fail_after_tokens=2), "fine"))
    async with booted(ScriptedEngine(n_slots=1, script=script, tokens_per_read=1)) as kernel:
        gate = kernel.init_gate()
        with pytest.raises(EngineFailed):
            await gate.call(chat())
        assert kernel.init.usage.completion_tokens == 2, "what was generated is accounted for"
        assert kernel.init.usage.prompt_tokens > 0
        assert (await gate.call(chat())).value.message.content == "fine"


async def test_a_prompt_that_is_too_long_is_refused_and_frees_its_turn(booted: OpenKernel) -> None:
    async with booted(ScriptedEngine(window_tokens=64, n_slots=1)) as kernel:
        with pytest.raises(ContextWindowExceeded):
            await kernel.init_gate().call(chat("word " * 100))
        await kernel.init_gate().call(chat("hi", max_tokens=2))


async def test_completions_embeddings_and_tokens(booted: OpenKernel) -> None:
    async with booted(ScriptedEngine()) as kernel:
        gate = kernel.init_gate()
        completed = (await gate.call(Complete(prompt="Once", max_tokens=4))).value
        assert completed.usage.completion_tokens == 4
        embedded = (await gate.call(Embed(texts=("a b", "c")))).value
        assert [round(sum(x * x for x in vector), 6) for vector in embedded.vectors] == [1.0, 1.0]
        tokens = (await gate.call(Tokenize(text="a b c"))).value.tokens
        assert len(tokens) == 3
        counted = (await gate.call(CountTokens(messages=(Message(Role.USER, "a b c"),)))).value
        assert counted.window_tokens == 8192
        assert counted.n_tokens > 3


class SlowVectors(ScriptedEngine):
    """Computes vectors until it is told to go on, and perhaps fails then."""

    go_on: anyio.Event
    error: AiosError | None = None

    async def embed(self, texts: tuple[str, ...]) -> tuple[tuple[tuple[float, ...], ...], Usage]:
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return await super().embed(texts)


async def test_a_newcomer_ends_a_generation_where_vectors_of_less_worth_are_computed(
    booted: OpenKernel,
) -> None:
    script = Script(replies=("word " * 2000, "fine"), token_delay_s=0.05)
    engine = SlowVectors(n_slots=2, script=script, tokens_per_read=1)
    engine.go_on = anyio.Event()
    with anyio.fail_after(30):
        async with booted(engine) as kernel, anyio.create_task_group() as tasks:
            kernel.scheduler.set_policy(Priority())
            embedder, talker, newcomer = (kernel.admit(name)[0] for name in ("e", "t", "n"))
            embedder.nice, talker.nice = 19, 10
            tasks.start_soon(kernel.gate(embedder.pid).call, Embed(texts=("a",)))
            await anyio.wait_all_tasks_blocked()
            async with kernel.gate(talker.pid).open_call(chat()) as frames:
                await anext(aiter(frames))
                answer = (await kernel.gate(newcomer.pid).call(chat())).value
                assert answer.message.content == "fine"
            engine.go_on.set()


@pytest.mark.parametrize("error", [None, EngineFailed("it broke"), InvalidCall("no")])
async def test_vectors_that_nobody_gets_are_charged_unless_they_were_refused(
    booted: OpenKernel, error: AiosError | None
) -> None:
    engine, policy = SlowVectors(), Mlfq()
    engine.go_on, engine.error = anyio.Event(), error
    with anyio.fail_after(30):
        async with booted(engine) as kernel, anyio.create_task_group() as tasks:
            kernel.scheduler.set_policy(policy)
            pid = kernel.admit("agent")[0].pid

            async def embed() -> None:
                with contextlib.suppress(AiosError):
                    await kernel.gate(pid).call(Embed(texts=("word " * 400,)))

            tasks.start_soon(embed)
            await anyio.wait_all_tasks_blocked()
            if error is None:
                tasks.cancel_scope.cancel()
            engine.go_on.set()
            await kernel.table.get(pid).wait_drained()
            assert policy.lately_tokens(pid) == (32 if isinstance(error, InvalidCall) else 500)


class PacedVectors(ScriptedEngine):
    """Takes a moment for each text, and counts them."""

    n_texts = 0

    async def embed(self, texts: tuple[str, ...]) -> tuple[tuple[tuple[float, ...], ...], Usage]:
        for _ in texts:
            await anyio.sleep(0.005)
            self.n_texts += 1
        return await super().embed(texts)


async def test_a_chat_waits_for_some_of_many_texts_and_a_stop_too(booted: OpenKernel) -> None:
    engine, ended = PacedVectors(n_slots=2), list[str]()
    call = Embed(texts=tuple(f"{number} " * 500 for number in range(100)))
    undisturbed = await ScriptedEngine().embed(call.texts)
    with anyio.fail_after(60):
        async with booted(engine) as kernel, anyio.create_task_group() as tasks:
            pids = [kernel.admit(name)[0].pid for name in ("one", "two", "talker")]

            async def embed(pid: Pid) -> None:
                answer = (await kernel.gate(pid).call(call)).value
                assert (answer.vectors, answer.usage) == undisturbed
                assert kernel.table.get(pid).usage == answer.usage
                ended.append("vectors")

            for pid in pids[:2]:
                tasks.start_soon(embed, pid)
            while engine.n_texts < 10:
                await anyio.sleep(0.001)
            await kernel.gate(pids[2]).call(chat(max_tokens=3))
            await kernel.init_gate().call(Stop(pid=pids[0]))
            assert not ended
            await kernel.init_gate().call(Cont(pid=pids[0]))
    assert (ended, engine.n_texts) == (["vectors"] * 2, 200)


async def test_the_same_seed_gives_the_same_text_and_none_draws_one(booted: OpenKernel) -> None:
    def call(seed: int | None) -> Chat:
        return Chat(
            messages=(Message(Role.USER, "hi"),), sampling=Sampling(seed=seed), max_tokens=40
        )

    async with booted(ScriptedEngine()) as kernel:
        gate = kernel.init_gate()
        seeded = [(await gate.call(call(5))).value.message.content for _ in range(2)]
        drawn = {(await gate.call(call(None))).value.message.content for _ in range(4)}
    assert seeded[0] == seeded[1]
    assert len(drawn) > 1


async def test_a_short_call_takes_the_slot_of_a_long_one_which_then_goes_on_where_it_was(
    booted: OpenKernel,
) -> None:
    """Under mlfq; the one slot must be free before it is given to the newcomer, or the engine would refuse it."""
    engine = slow_engine(n_slots=1, n_tokens=100, token_delay_s=0.01)
    config = SchedulerConfig(policy="mlfq")
    long_call = chat("word " * 200)
    with anyio.fail_after(30):
        async with booted(engine, scheduler=config) as kernel, anyio.create_task_group() as tasks:
            gate, ended = kernel.init_gate(), list[str]()
            undisturbed = (await gate.call(long_call)).value.message.content

            async def talk_long() -> None:
                result = await gate.call(long_call)
                assert result.value.message.content == undisturbed
                assert result.n_preemptions == 1
                assert result.waited_s > 0
                ended.append("long")

            tasks.start_soon(talk_long)
            while engine.statistics().n_generated_tokens < 110:
                await anyio.sleep(0.001)
            guest, _ = kernel.admit("short")
            await kernel.gate(guest.pid).call(chat("hi", max_tokens=3))
            ended.append("short")
    assert ended == ["short", "long"]


async def test_under_fifo_nobody_is_preempted(booted: OpenKernel) -> None:
    engine = slow_engine(n_slots=1, n_tokens=50, token_delay_s=0.001)
    config = SchedulerConfig(policy="fifo")
    with anyio.fail_after(30):
        async with booted(engine, scheduler=config) as kernel, anyio.create_task_group() as tasks:

            async def talk(text: str) -> None:
                assert (await kernel.init_gate().call(chat(text))).n_preemptions == 0

            tasks.start_soon(talk, "word " * 200)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(talk, "hi")


@pytest.mark.no_cover
@pytest.mark.parametrize("policy", ["rr", "mlfq", "fair"])
@pytest.mark.parametrize("n_tokens", [0, 3, 8, 13, 30, 61, 100])
async def test_kill_cancel_and_stop_at_any_step_of_a_turn_harm_nobody_else(
    booted: OpenKernel, policy: str, n_tokens: int
) -> None:
    """Turns of four tokens for five calls on two slots: most of them are suspended, waiting or being resumed."""
    engine = slow_engine(
        n_slots=2, n_tokens=160, token_delay_s=0.001
    )  # nobody ends before the attack
    config = SchedulerConfig(policy=policy, quantum_tokens=4)
    with anyio.fail_after(30):
        async with booted(engine, scheduler=config) as kernel:
            answers: dict[str, str] = {}
            scope = anyio.CancelScope()
            pids = {name: kernel.admit(name)[0].pid for name in ("a", "b", "c", "d", "e")}

            async def talk(name: str) -> None:
                try:
                    result = await kernel.gate(pids[name]).call(chat("word " * 100))
                except ProcessGone:
                    answers[name] = "killed"
                else:
                    answers[name] = str(result.value.message.content)

            async def give_up() -> None:
                with scope:
                    await talk("c")

            async with anyio.create_task_group() as tasks:
                for name in ("a", "b", "d", "e"):
                    tasks.start_soon(talk, name)
                tasks.start_soon(give_up)
                while engine.statistics().n_generated_tokens < n_tokens:
                    await anyio.sleep(0.0005)
                init = kernel.init_gate()
                await init.call(Kill(pid=pids["a"]))
                await init.call(Stop(pid=pids["b"]))
                scope.cancel()
                kernel.check_invariants()
                while len(answers) < 3:  # a was killed; d and e end while b is held
                    await anyio.sleep(0.001)
                assert "b" not in answers
                await init.call(Cont(pid=pids["b"]))
            undisturbed = (await init.call(chat("word " * 100))).value.message.content
    assert answers["a"] == "killed"
    assert "c" not in answers
    assert {answers[name] for name in "bde"} == {undisturbed}


@pytest.mark.no_cover
@pytest.mark.parametrize("policy", ["mlfq", "fair"])
async def test_a_process_that_floods_the_engine_delays_others_by_little(
    booted: OpenKernel, policy: str
) -> None:
    engine = slow_engine(n_slots=2, n_tokens=20, token_delay_s=0.0005)
    config = SchedulerConfig(policy=policy, quantum_tokens=8)
    with anyio.fail_after(30):
        async with booted(engine, scheduler=config) as kernel:
            flooder, other = (kernel.admit(name)[0].pid for name in ("flooder", "other"))
            n_done = 0

            async def flood() -> None:
                nonlocal n_done
                await kernel.gate(flooder).call(chat("word " * 100))
                n_done += 1

            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(flood)
                while n_done < 4:
                    await anyio.sleep(0.001)
                await kernel.gate(other).call(chat("hi"))
                assert n_done <= 16, "it waits for a few turns, not for the flood"


class SlowCounter(ScriptedEngine):
    """Counts only when it is let; `waiting` is how many texts it was given to count at once."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.may_count = anyio.Event()

    async def count_tokens(self, prompt: ChatPrompt) -> int:
        self.waiting += 1
        try:
            await self.may_count.wait()
        finally:
            self.waiting -= 1
        return await super().count_tokens(prompt)


@pytest.mark.parametrize("what", ["a text", "tools", "arguments", "a name", "many messages"])
async def test_long_texts_of_one_process_are_counted_one_after_another(
    booted: OpenKernel, what: str
) -> None:
    long = "word " * 10_000
    short = (Message(Role.USER, "hi"),)
    counts = {
        "a text": CountTokens((Message(Role.USER, long),)),
        "tools": CountTokens(short, (ToolSpec("t", long, {}),)),
        "arguments": CountTokens(
            (Message(Role.ASSISTANT, "", (ToolCall("1", "t", f'"{long}"'),)),)
        ),
        "a name": CountTokens((Message(Role.USER, "hi", name=long),)),
        "many messages": CountTokens((Message(Role.USER, ""),) * 1025),
    }
    engine = SlowCounter()
    with anyio.fail_after(30):
        async with booted(engine) as kernel, anyio.create_task_group() as tasks:
            pids = [kernel.admit(name)[0].pid for name in ("flooder", "other")]
            for pid in [pids[0]] * 50 + [pids[1]]:
                tasks.start_soon(kernel.gate(pid).call, counts[what])
            await anyio.wait_all_tasks_blocked()
            assert engine.waiting == 2, "one for each"
            tasks.start_soon(kernel.gate(pids[0]).call, CountTokens(short))
            await anyio.wait_all_tasks_blocked()
            assert engine.waiting == 3, "a short one is counted at once"
            engine.may_count.set()


async def test_an_endpoint_counts_as_many_long_texts_at_once_as_it_is_sent(
    booted: OpenKernel,
) -> None:
    engine = SlowCounter()
    call = CountTokens((Message(Role.USER, "word " * 10_000),))
    with anyio.fail_after(30):
        async with booted(engine) as kernel, anyio.create_task_group() as tasks:
            kernel.cores.get("engine0").kind = "openai"
            for _ in range(50):
                tasks.start_soon(kernel.init_gate().call, call)
            await anyio.wait_all_tasks_blocked()
            assert engine.waiting == 50
            engine.may_count.set()


async def test_a_process_is_stopped_and_killed_while_its_long_texts_wait_to_be_counted(
    booted: OpenKernel,
) -> None:
    engine = SlowCounter()
    call = CountTokens((Message(Role.USER, "word " * 10_000),))
    n_counted = 0
    with anyio.fail_after(30):
        async with booted(engine) as kernel, anyio.create_task_group() as tasks:
            pid = kernel.admit("flooder")[0].pid

            async def count() -> None:
                nonlocal n_counted
                try:
                    await kernel.gate(pid).call(call)
                    n_counted += 1
                except ProcessGone:
                    pass

            for _ in range(50):
                tasks.start_soon(count)
            await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as stopping:
                stopping.start_soon(kernel.init_gate().call, Stop(pid=pid))
                await anyio.wait_all_tasks_blocked()
                engine.may_count.set()
            assert n_counted <= 1
            await kernel.init_gate().call(Kill(pid=pid))
    assert n_counted <= 1


@pytest.mark.model
async def test_a_constraint_that_grows_too_complex_leaves_the_engine_to_others_and_is_paid_for(
    tmp_path: Path,
) -> None:
    config = Config(engine=EngineConfig(model=str(find_model("")), n_slots=2, n_threads=1))
    with anyio.fail_after(120):
        async with open_kernel(config, Home(tmp_path)) as kernel:
            guest, _ = kernel.admit("guest")
            limits = Limits(completion_tokens=100_000)
            await kernel.init_gate().call(SetBudget(pid=guest.pid, limits=limits))
            n_spent = 0
            for i in range(MAX_ERRORS):
                pattern = f"~([ab]{{1,{100 + i}}}){{80,100}}~"
                call = replace(chat(max_tokens=500), constraint=Regex(pattern))
                with pytest.raises(InvalidCall, match="cannot go on under its constraint"):
                    await kernel.gate(guest.pid).call(call)
                spent = (await kernel.init_gate().call(Budget(pid=guest.pid))).value.spent
                assert spent.completion_tokens > n_spent
                n_spent = spent.completion_tokens
            assert [info.state for info in kernel.cores.infos()] == [EngineState.READY]
            await kernel.init_gate().call(chat(max_tokens=2))
