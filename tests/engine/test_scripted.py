"""The scripted engine beyond the contract: scripts, delays, faults, speed."""

from collections.abc import Awaitable, Callable
from time import process_time

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace
from tests.engine.jobs import Outcome, chat, read_all, run

from aios.abi.types import Finish, Message, Role, ToolCall
from aios.engine.base import Ability, ChatPrompt, Job, TextPrompt
from aios.engine.script import Reply, Script
from aios.engine.scripted import ABILITIES, ScriptedEngine
from aios.errors import (
    ContextWindowExceeded,
    EngineFailed,
    EngineUnavailable,
    SnapshotIncompatible,
    Unsupported,
)

pytestmark = pytest.mark.anyio


class HandClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def now_s(self) -> float:
        return self.time_s

    async def sleep(self, seconds: float) -> None:
        self.time_s += seconds
        await anyio.lowlevel.checkpoint()


# --- scripts ---------------------------------------------------------------------------------------------------------


async def test_replies_are_given_in_order_and_then_the_default_rule_holds() -> None:
    call = ToolCall("c1", "look", "{}")
    engine = ScriptedEngine(script=Script(replies=("first", Reply("", (call,)))))
    assert (await run(engine, chat())).text == "first"
    second = await run(engine, chat())
    assert (second.tool_calls, second.finish) == ([call], Finish.TOOL_CALLS)
    assert (await run(engine, chat("hi"))).text.startswith("You said: hi.")


async def test_a_function_may_answer() -> None:
    def shout(job: Job) -> str:
        assert isinstance(job.prompt, TextPrompt)
        return job.prompt.text.upper()

    engine = ScriptedEngine(script=Script(answer=shout))
    assert (await run(engine, Job(TextPrompt("quiet")))).text == "QUIET"


@pytest.mark.parametrize("n", [1, 8, 300])
async def test_answers_can_have_a_fixed_length(n: int) -> None:
    engine = ScriptedEngine(script=Script(answer_tokens=n))
    outcome = await run(engine, chat(max_tokens=None))
    assert (outcome.n_tokens, outcome.finish) == (n, Finish.STOP)


async def test_a_resumed_reply_is_not_taken_twice() -> None:
    engine = ScriptedEngine(script=Script(replies=("one two three", "other")), tokens_per_read=1)
    sequence = await engine.open(chat())
    first = await sequence.read()
    suspended = await sequence.suspend()
    assert (await run(engine, chat())).text == "other"
    rest = await read_all(await engine.open(chat(), suspended))
    assert first.text + rest.text == "one two three"
    assert len(suspended.tokens) > suspended.n_generated == 1


# --- time ------------------------------------------------------------------------------------------------------------


def timed(script: Script) -> tuple[ScriptedEngine, HandClock]:
    clock = HandClock()
    return ScriptedEngine(script=script, now_s=clock.now_s, sleep=clock.sleep), clock


async def test_prompt_and_tokens_take_their_time() -> None:
    engine, clock = timed(Script(answer_tokens=10, token_delay_s=0.5, prompt_token_delay_s=0.1))
    outcome = await run(engine, chat(max_tokens=None))
    assert [delta.n_tokens for delta in outcome.deltas] == [1] * 10
    assert clock.time_s == pytest.approx(10 * 0.5 + outcome.usage.prompt_tokens * 0.1)


async def test_a_slow_reader_gets_what_has_come_meanwhile_in_one_piece() -> None:
    engine, clock = timed(Script(answer_tokens=10, token_delay_s=1))
    sequence = await engine.open(chat(max_tokens=None))
    clock.time_s += 6.5
    assert (await sequence.read()).n_tokens == 6
    assert (await sequence.read()).n_tokens == 1
    assert clock.time_s == pytest.approx(7)
    clock.time_s += 100
    assert (await sequence.read()).finish is Finish.STOP


async def test_a_resumed_generation_takes_only_the_time_that_is_left() -> None:
    engine, clock = timed(Script(answer_tokens=4, token_delay_s=1, prompt_token_delay_s=5))
    sequence = await engine.open(chat(max_tokens=None))
    await sequence.read()
    suspended = await sequence.suspend()
    clock.time_s = 1000
    await read_all(await engine.open(chat(max_tokens=None), suspended))
    assert clock.time_s == pytest.approx(1003)


async def test_an_empty_answer_ends_at_once() -> None:
    for script in (Script(replies=("",)), Script(replies=("",), token_delay_s=1)):
        engine, clock = timed(script)
        outcome = await run(engine, chat())
        assert (outcome.text, outcome.n_tokens, outcome.finish) == ("", 0, Finish.STOP)
        assert clock.time_s == 0


async def test_a_reader_that_waits_is_woken_when_the_sequence_or_the_engine_closes() -> None:
    engine = ScriptedEngine(script=Script(token_delay_s=3600))

    async def wait(end: Callable[[], Awaitable[None]]) -> None:
        with pytest.raises(EngineUnavailable):
            await sequence.read()
        ended.append(end)

    ended: list[object] = []
    with anyio.fail_after(30):
        sequence = await engine.open(chat())
        for close in (sequence.close, engine.aclose):
            if close == engine.aclose:
                sequence = await engine.open(chat())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, close)
                await anyio.wait_all_tasks_blocked()
                await close()
    assert len(ended) == 2


# --- faults and limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5, 10])
async def test_the_engine_breaks_after_as_many_tokens_as_the_script_says(n: int) -> None:
    engine = ScriptedEngine(script=Script(answer_tokens=10, fail_after_tokens=n), tokens_per_read=4)
    sequence = await engine.open(chat(max_tokens=None))
    outcome = Outcome()
    with pytest.raises(EngineFailed, match=f"after {n} tokens"):
        await read_all(sequence, outcome)
    assert outcome.n_tokens == n
    assert engine.statistics().n_running == 1
    await sequence.close()
    assert engine.statistics().n_running == 0


async def test_one_reply_can_break_and_the_next_is_well() -> None:
    engine = ScriptedEngine(script=Script(replies=(Reply("a b c", fail_after_tokens=1), "fine")))
    with pytest.raises(EngineFailed):
        await run(engine, chat())
    assert (await run(engine, chat())).text == "fine"


async def test_abilities_can_be_taken_away() -> None:
    engine = ScriptedEngine(
        abilities=ABILITIES - {Ability.EMBED, Ability.TOKENIZE, Ability.LOGPROBS}
    )
    with pytest.raises(Unsupported):
        await engine.embed(("a",))
    with pytest.raises(Unsupported):
        await engine.tokenize("a")
    with pytest.raises(Unsupported):
        await engine.open(chat(top_logprobs=1))


async def test_a_huge_prompt_is_refused_without_being_cut_up() -> None:
    engine = ScriptedEngine(window_tokens=1000)
    text = "x" * 50_000_000
    started_s = process_time()
    for prompt in (TextPrompt(text), ChatPrompt((Message(Role.USER, text),))):
        with pytest.raises(ContextWindowExceeded):
            await engine.open(Job(prompt))
    with pytest.raises(ContextWindowExceeded):
        await engine.embed((text,))
    assert process_time() - started_s < 5, "cutting it up takes far longer"


async def test_what_cannot_be_opened_takes_no_slot() -> None:
    engine = ScriptedEngine(n_slots=1)
    sequence = await engine.open(chat())
    suspended = await sequence.suspend()
    with pytest.raises(SnapshotIncompatible):
        await engine.open(chat(), replace(suspended, state=None))
    assert engine.statistics().n_running == 0


async def test_a_sequence_that_has_ended_cannot_be_read_or_suspended() -> None:
    engine = ScriptedEngine()
    sequence = await engine.open(chat())
    await read_all(sequence)
    with pytest.raises(EngineUnavailable):
        await sequence.read()
    await sequence.close()
    with pytest.raises(EngineUnavailable):
        await sequence.suspend()


async def test_text_that_is_no_unicode_comes_back_as_unicode() -> None:
    engine = ScriptedEngine()
    (await run(engine, chat("\ud83d half an emoji"))).text.encode()
    assert len(await engine.tokenize("\ud83d")) == 1
    vectors, _ = await engine.embed(("\ud83d", ""))
    assert len(vectors) == 2


async def test_long_texts_are_cut_up_without_keeping_others_from_running() -> None:
    engine = ScriptedEngine()
    n_turns = 0

    async def count_turns() -> None:
        nonlocal n_turns
        while True:
            n_turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count_turns)
        assert len(await engine.tokenize("ab " * 100_000)) == 200_000 - 100_000 + 1
        tasks.cancel_scope.cancel()
    assert n_turns > 3


async def test_texts_with_the_same_words_are_near_each_other() -> None:
    engine = ScriptedEngine()
    vectors, _ = await engine.embed(
        ("the cat sat on the mat", "the cat lay on the mat", "quarterly tax report")
    )
    near, far = (
        sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:]
    )
    assert near > 0.7 > far


async def test_an_answer_of_eight_tokens_costs_far_less_than_a_call_may() -> None:
    engine = ScriptedEngine()
    job = chat(max_tokens=8)

    async def answer() -> float:
        started_s = process_time()
        for _ in range(100):
            sequence = await engine.open(job)
            while (await sequence.read()).finish is None:
                pass
            await sequence.close()
        return (process_time() - started_s) / 100

    # 60 us on a quiet machine; the best of many rounds, and room for a slow and busy one.
    assert min([await answer() for _ in range(20)]) < 0.001
