"""What only the embedded engine promises; what every engine does is in `tests/engine/contract.py`."""

import os
import pickle
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.engine.jobs import GREEDY, chat, read_all, run

from aios.abi.types import Finish, Message, Role, Sampling, ToolCall, ToolSpec, Usage
from aios.config import ContextConfig, EngineConfig
from aios.engine.base import ChatPrompt, Job, Suspended, TextPrompt
from aios.engine.llama.engine import MAX_COUNTED_CHARS, LlamaEngine
from aios.engine.llama.kvstate import PAGE_TOKENS, UnknownLayout
from aios.engine.llama.loop import EngineLoop
from aios.engine.models import find_model
from aios.errors import (
    ContextWindowExceeded,
    EngineFailed,
    EngineUnavailable,
    ModelMissing,
    SnapshotIncompatible,
    TooLarge,
)
from aios.kernel.context.manager import ContextManager

pytestmark = [pytest.mark.model, pytest.mark.anyio]

CONFIG = EngineConfig(n_slots=3, window_tokens=768, n_threads=1, prefill_chunk_tokens=128)
RULES = "You are an agent in a company. " + " ".join(f"Rule {i}: be brief." for i in range(12))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # one event loop for the module, so that its tests share an engine


@asynccontextmanager
async def started(
    config: EngineConfig = CONFIG, pages: ContextManager | None = None
) -> AsyncIterator[LlamaEngine]:
    open_pages = pages.open_pages if pages else None
    engine = LlamaEngine(find_model(""), name="small", config=config, open_pages=open_pages)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[LlamaEngine]:
    async with started() as engine:
        yield engine


def agent(name: str, *turns: str) -> Job:
    """A job of one of many agents that share the rules."""
    messages = [Message(Role.SYSTEM, f"{RULES} Your name is {name}.")]
    roles = (Role.USER, Role.ASSISTANT)
    messages += [Message(roles[i % 2], text) for i, text in enumerate(turns)]
    return Job(ChatPrompt(tuple(messages)), GREEDY, max_tokens=4)


async def test_a_conversation_that_goes_on_computes_only_what_is_new(shared: LlamaEngine) -> None:
    first = await run(shared, agent("Ada", "What is the sea?"))
    second = await run(shared, agent("Ada", "What is the sea?", first.text, "And the moon?"))
    n_new = second.usage.prompt_tokens - first.usage.prompt_tokens
    assert second.usage.cached_tokens >= second.usage.prompt_tokens - n_new - 5


async def test_agents_that_start_together_compute_their_common_rules_once() -> None:
    async with started() as engine:
        usages = []

        async def one(name: str) -> None:
            usages.append((await run(engine, agent(name, "Go."))).usage)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for name in ("Ada", "Bea", "Cid"):
                    tasks.start_soon(one, name)
        n_rules = len(await engine.tokenize(RULES))
        n_prompt = sum(usage.prompt_tokens for usage in usages)
        statistics = engine.statistics()
        assert statistics.n_prompt_tokens == n_prompt
        assert statistics.n_prompt_tokens_computed <= n_prompt - 2 * n_rules
        assert sum(usage.cached_tokens for usage in usages) >= 2 * n_rules
        assert statistics.extra["copied_tokens"] >= 2 * n_rules


async def test_closing_the_only_sequence_aborts_its_step(shared: LlamaEngine) -> None:
    before = shared.statistics()
    sequence = await shared.open(Job(TextPrompt("unheard of " * 200), GREEDY, max_tokens=100))
    assert shared._loaded is not None
    with anyio.fail_after(30):
        while not shared._loaded.loop._in_step:  # a prefill step takes 0.7 s
            await checkpoint()
        await sequence.close()
        await run(shared, chat("Hello", max_tokens=1))
    after = shared.statistics()
    assert after.extra["aborted_steps"] == before.extra["aborted_steps"] + 1
    assert after.n_prompt_tokens_computed - before.n_prompt_tokens_computed < 128 * 3


async def test_a_suspended_generation_can_be_pickled_and_resumed_more_than_once(
    shared: LlamaEngine,
) -> None:
    job = chat(max_tokens=12, stop=("zzz",), sampling=Sampling(temperature=0.9, seed=5))
    await run(shared, job)  # its prompt is in pages now: all runs below compute as much of it anew
    whole = await run(shared, job)
    sequence = await shared.open(job)
    first = await sequence.read()
    suspended: Suspended = pickle.loads(pickle.dumps(await sequence.suspend()))  # noqa: S301 - our own bytes
    for _ in range(2):
        rest = await read_all(again := await shared.open(job, suspended))
        await again.close()
        assert first.text + rest.text == whole.text
        assert rest.usage.completion_tokens == 12


async def in_turns(
    engine: LlamaEngine, job: Job, *, between: Callable[[], Awaitable[object]]
) -> str:
    """The text of a generation that is suspended after every read, with something in between."""
    text, suspended = "", None
    while True:
        sequence = await engine.open(job, suspended)
        delta = await sequence.read()
        text += delta.text
        if delta.finish is not None:
            await sequence.close()
            return text
        suspended = await sequence.suspend()
        await between()


async def take_all_slots(engine: LlamaEngine) -> None:
    """Leave nothing in the slots of what was there."""
    async with anyio.create_task_group() as tasks:
        for number in range(engine.capabilities.n_slots):
            tasks.start_soon(run, engine, chat(f"{number} is a number", max_tokens=1))


async def test_what_is_suspended_computes_nothing_again_wherever_its_slot_went(
    tmp_path: Path,
) -> None:
    pages = ContextManager(ContextConfig(ram_bytes=64 << 20), tmp_path)
    job = agent("Ada", "Tell me of the sea.")
    async with started(pages=pages) as engine:
        whole = await run(engine, job)
        text = await in_turns(engine, job, between=partial(take_all_slots, engine))
        assert text == whole.text
        assert engine.statistics().extra["recomputed_tokens"] == 0
        assert engine.statistics().extra["suspended"] >= 1
        assert [store.n_pins for store in pages.statistics().values()] == [0]


async def test_where_the_layout_is_unknown_whole_states_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UnknownLayout("of another llama.cpp")

    monkeypatch.setattr("aios.engine.llama.paging.probe", refuse)
    pages = ContextManager(ContextConfig(), tmp_path)
    job = agent("Ada", "Tell me of the sea.")
    async with started(pages=pages) as engine:
        assert "whole states are kept" in engine.capabilities.note
        whole = await run(engine, job)
        await take_all_slots(engine)
        text = await in_turns(engine, job, between=partial(take_all_slots, engine))
        assert text == whole.text
        assert engine.statistics().extra["recomputed_tokens"] == 0
        assert pages.statistics() == {}


async def test_a_model_with_a_sliding_window_goes_on_from_whole_states(tmp_path: Path) -> None:
    if not os.environ.get("AIOS_SLIDING_MODEL"):
        pytest.skip("AIOS_SLIDING_MODEL names no GGUF with a sliding window (such as gemma-3-270m)")
    config = EngineConfig(n_slots=2, window_tokens=1024, n_threads=1)
    pages = ContextManager(ContextConfig(), tmp_path)
    path = Path(os.environ["AIOS_SLIDING_MODEL"])
    engine = LlamaEngine(path, name="sliding", config=config, open_pages=pages.open_pages)
    await engine.start()
    try:
        assert "whole states are kept" in engine.capabilities.note
        job = chat("Tell me of the sea. " * 120, max_tokens=8)  # longer than the sliding window
        whole = await run(engine, job)
        assert whole.usage.prompt_tokens > 600
        await take_all_slots(engine)
        text = await in_turns(engine, job, between=partial(take_all_slots, engine))
        assert text == whole.text
        assert engine.statistics().extra["recomputed_tokens"] == 0
        # Of what was put back into a slot only the last window is there: it cannot go on from the middle.
        words = ["sea", "ship", "storm", "gold", "map", "star", "rope", "sail", "rum", "king"]
        names = random.Random(1).choices(words, k=900)  # noqa: S311 - a repeatable choice
        other = Job(TextPrompt(" ".join(names[:700]) + "."), sampling=GREEDY, max_tokens=8)
        longer = Job(TextPrompt(" ".join(names)), sampling=GREEDY, max_tokens=8)
        await take_all_slots(engine)
        expected = await run(engine, other)
        await take_all_slots(engine)
        await in_turns(engine, longer, between=partial(take_all_slots, engine))
        assert (await run(engine, other)).text == expected.text
    finally:
        await engine.aclose()


async def test_with_a_smaller_kv_type_pages_are_smaller_and_nothing_of_the_other_is_taken(
    tmp_path: Path,
) -> None:
    pages = ContextManager(ContextConfig(ram_bytes=64 << 20), tmp_path)
    small = EngineConfig(n_slots=3, window_tokens=768, n_threads=1, kv_type="q8_0")
    job = agent("Ada", "Tell me of the sea.")
    async with started(pages=pages) as engine:
        sequence = await engine.open(job)
        await sequence.read()
        suspended = await sequence.suspend()
        data = await engine.dump(suspended)
        engine.drop(suspended)
    async with started(small, pages) as engine:
        with pytest.raises(SnapshotIncompatible, match="kv-f16"):
            engine.load(data)
        whole = await run(engine, job)
        assert whole.usage.cached_tokens == 0
        text = await in_turns(engine, job, between=partial(take_all_slots, engine))
        assert text == whole.text
        assert engine.statistics().extra["recomputed_tokens"] == 0
    large, little = (store.page_bytes for store in pages.statistics().values())
    assert little * 64 == large * 34


async def test_a_generation_goes_on_in_a_new_engine_from_disk(tmp_path: Path) -> None:
    job = agent("Ada", "Tell me of the sea.")
    async with started(pages=ContextManager(ContextConfig(), tmp_path)) as engine:
        whole = await run(engine, job)
        sequence = await engine.open(job)
        first = await sequence.read()
        data = await engine.dump(await sequence.suspend())
    pages = ContextManager(ContextConfig(), tmp_path)
    async with started(pages=pages) as engine:
        suspended = engine.load(data)
        (store,) = pages.statistics().values()
        assert store.n_pins == 1
        rest = await read_all(again := await engine.open(job, suspended))
        await again.close()
        assert first.text + rest.text == whole.text
        assert engine.statistics().n_prompt_tokens_computed == 0
        assert engine.statistics().extra["recomputed_tokens"] == 0
        (store,) = pages.statistics().values()
        assert store.n_pins == 0
        assert store.n_read_from_disk == len(suspended.tokens) // PAGE_TOKENS + 1


async def test_what_was_not_read_before_a_suspension_is_read_after_it(shared: LlamaEngine) -> None:
    job = chat(max_tokens=6)
    whole = await run(shared, job)
    sequence = await shared.open(job)
    with anyio.fail_after(30):
        while not sequence.is_finished:
            await checkpoint()
    suspended = await sequence.suspend()
    assert suspended.n_generated == 6
    assert suspended.emitted == ""
    resumed = await shared.open(job, suspended)
    twice = await resumed.suspend()
    resumed = await shared.open(job, twice)
    delta = await resumed.read()
    assert (delta.text, delta.finish, delta.n_tokens) == (whole.text, Finish.LENGTH, 6)
    await resumed.close()


async def test_a_generation_does_not_depend_on_how_often_it_was_suspended(
    shared: LlamaEngine,
) -> None:
    job = chat("Write a poem.", sampling=Sampling(temperature=1.3, seed=9), max_tokens=10)
    texts = set()
    for n_reads in (1, 2, 100):
        text, suspended = "", None
        for _ in range(10):
            sequence = await shared.open(job, suspended)
            finish = None
            for _ in range(n_reads):
                delta = await sequence.read()
                text += delta.text
                finish = delta.finish
                if finish is not None:
                    break
            if finish is not None:
                await sequence.close()
                break
            suspended = await sequence.suspend()
        texts.add(text)
    assert len(texts) == 1


async def test_a_prompt_over_the_window_names_the_numbers(shared: LlamaEngine) -> None:
    with pytest.raises(ContextWindowExceeded, match=r"at least \d+ tokens; the window holds 768"):
        await shared.open(chat("word " * 800))


async def turns_during(work: Awaitable[object]) -> int:
    """How often the event loop got to something else while it waited."""
    n_turns = 0
    async with anyio.create_task_group() as tasks:

        async def count() -> None:
            nonlocal n_turns
            while True:
                await anyio.sleep(0.001)
                n_turns += 1

        tasks.start_soon(count)
        await work
        tasks.cancel_scope.cancel()
    return n_turns


async def test_a_large_text_is_prepared_while_the_event_loop_goes_on(shared: LlamaEngine) -> None:
    assert await turns_during(shared.tokenize("The quick brown fox. " * 50_000)) > 3


LONG_NAME = "<|im_end|>" * 100_000


@pytest.mark.parametrize(
    "messages",
    [
        (Message(Role.USER, "hi", name=LONG_NAME),),
        (Message(Role.USER, "hi", tool_call_id=LONG_NAME),),
        (Message(Role.ASSISTANT, "", (ToolCall("1", LONG_NAME, "{}"),)),),
    ],
    ids=["name", "tool_call_id", "name of a call"],
)
async def test_a_chat_with_long_names_is_prepared_while_the_event_loop_goes_on(
    shared: LlamaEngine, messages: tuple[Message, ...]
) -> None:
    assert await turns_during(shared.count_tokens(ChatPrompt(messages))) > 3


async def test_what_is_only_counted_keeps_no_generation_waiting(shared: LlamaEngine) -> None:
    """Its tools are a grammar, which is made in a worker thread as texts are counted in one."""
    clock = ToolSpec("clock", "tells the time", {"type": "object", "properties": {}})
    prompt = ChatPrompt((Message(Role.USER, "What time is it?"),), tools=(clock,))
    n_counted = 0
    async with anyio.create_task_group() as tasks:

        async def count() -> None:
            nonlocal n_counted
            await shared.tokenize("The quick brown fox. " * 50_000)
            n_counted += 1

        for _ in range(10):
            tasks.start_soon(count)
        await anyio.wait_all_tasks_blocked()
        await (await shared.open(Job(prompt, GREEDY, max_tokens=4))).close()
        assert n_counted <= 3
        tasks.cancel_scope.cancel()


async def test_a_text_too_long_to_be_counted_is_refused(shared: LlamaEngine) -> None:
    text = "x" * (MAX_COUNTED_CHARS + 1)
    with pytest.raises(TooLarge, match=str(MAX_COUNTED_CHARS)):
        await shared.tokenize(text)
    with pytest.raises(TooLarge):
        await shared.count_tokens(ChatPrompt((Message(Role.USER, text),)))


async def test_a_model_that_is_not_there_is_told_by_start_and_by_open(tmp_path: Path) -> None:
    engine = LlamaEngine(tmp_path / "no.gguf", name="small", config=CONFIG)
    with pytest.raises(EngineUnavailable, match="not been started"):
        await engine.open(chat())
    with pytest.raises(ModelMissing, match=r"no\.gguf"):
        await engine.start()
    with pytest.raises(EngineUnavailable, match="could not be loaded"):
        await engine.open(chat())
    await engine.aclose()


async def test_an_engine_that_is_closed_while_it_loads_ends_its_thread() -> None:
    engine = LlamaEngine(find_model(""), name="small", config=CONFIG)
    with anyio.move_on_after(0.01):
        await engine.start()
    with anyio.fail_after(30):
        await engine.aclose()
    assert engine._thread is not None
    assert not engine._thread.is_alive()


async def test_a_thread_that_breaks_at_once_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(EngineLoop, "run", lambda _: 1 // 0)
    engine = LlamaEngine(find_model(""), name="small", config=CONFIG)

    async def use() -> None:
        await engine.start()  # it may be up for a moment before the news comes
        sequence = await engine.open(chat())
        await sequence.read()

    with anyio.fail_after(30):
        with pytest.raises((EngineFailed, EngineUnavailable), match="ZeroDivisionError"):
            await use()
        with pytest.raises(EngineUnavailable, match="broke"):
            await engine.open(chat())
        await engine.aclose()


async def test_no_texts_are_no_vectors(shared: LlamaEngine) -> None:
    assert await shared.embed(()) == ((), Usage())


async def test_when_the_thread_breaks_all_readers_are_told_and_nobody_is_let_in(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with started() as engine:
        sequence = await engine.open(chat(max_tokens=500))
        await sequence.read()
        assert engine._loaded is not None
        monkeypatch.setattr(engine._loaded.loop, "step", lambda: 1 // 0)
        with anyio.fail_after(30):
            with pytest.raises(EngineFailed, match="ZeroDivisionError"):
                await read_all(sequence)
            with pytest.raises(EngineUnavailable, match="broke"):
                await engine.open(chat())
            await sequence.close()
        assert "broke" in caplog.text  # with its traceback
        assert engine.statistics().n_running == 0
