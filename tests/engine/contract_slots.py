"""What every engine promises about its slots: windows, closing, cancelling, suspending."""

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

import anyio
import pytest
from anyio.lowlevel import checkpoint
from msgspec.structs import replace
from tests.engine.jobs import (
    GREEDY,
    PATIENCE_S,
    SCHEMA,
    Outcome,
    assert_alive,
    chat,
    need,
    read_all,
    resume,
    run,
    run_with_interruptions,
)

from aios.abi.types import (
    Finish,
    JsonSchema,
    Message,
    Role,
    Sampling,
)
from aios.engine.base import (
    Ability,
    Begun,
    ChatPrompt,
    Engine,
    Sequence,
    Suspended,
)
from aios.errors import (
    ContextWindowExceeded,
    EngineUnavailable,
    ResourceExhausted,
    SnapshotIncompatible,
    Unsupported,
)


@pytest.mark.anyio
class SlotContract(ABC):
    """The other half of `EngineContract`."""

    @classmethod
    @abstractmethod
    def make(cls) -> AbstractAsyncContextManager[Engine]:
        """A started engine, closed at the end."""

    # --- the window --------------------------------------------------------------------------------------------

    async def test_a_prompt_over_the_window_is_refused_and_costs_no_slot(
        self, engine: Engine
    ) -> None:
        window = engine.capabilities.window_tokens
        assert window > 0
        with pytest.raises(ContextWindowExceeded):
            await run(engine, chat("word " * (window + 10)))
        await assert_alive(engine)

    async def test_without_max_tokens_a_generation_ends_within_the_window(
        self, engine: Engine
    ) -> None:
        need(engine, Ability.TOKENIZE)
        window = engine.capabilities.window_tokens
        prompt = ChatPrompt((Message(Role.USER, "word"),))
        n_over = window - 12 - await engine.count_tokens(prompt)
        prompt = ChatPrompt((Message(Role.USER, "word" + " word" * n_over),))
        n_prompt = await engine.count_tokens(prompt)
        assert window - 24 <= n_prompt < window
        outcome = await run(engine, chat(prompt=prompt, max_tokens=None))
        assert 1 <= outcome.n_tokens <= window - n_prompt
        if outcome.n_tokens == window - n_prompt:
            assert outcome.finish is Finish.LENGTH

    # --- slots, closing, cancelling ----------------------------------------------------------------------------

    async def test_one_sequence_more_than_slots_is_refused_until_one_closes(
        self, engine: Engine
    ) -> None:
        n_slots = engine.capabilities.n_slots
        sequences = [await engine.open(chat()) for _ in range(n_slots)]
        assert engine.statistics().n_running == n_slots
        with pytest.raises(ResourceExhausted):
            await engine.open(chat())
        await sequences[0].close()
        sequences.append(await engine.open(chat()))
        for sequence in sequences:
            await sequence.close()
        await assert_alive(engine)

    async def test_a_finished_sequence_keeps_its_slot_until_it_is_closed(
        self, engine: Engine
    ) -> None:
        sequence = await engine.open(chat(max_tokens=1))
        await read_all(sequence)
        assert engine.statistics().n_running == 1
        await sequence.close()
        assert engine.statistics().n_running == 0

    async def test_what_was_used_is_told_also_of_a_sequence_that_is_closed_before_its_end(
        self, engine: Engine
    ) -> None:
        whole = await run(engine, chat(max_tokens=24))
        sequence = await engine.open(chat(max_tokens=24))
        first = await sequence.read()
        await sequence.close()
        used = sequence.usage
        assert used.prompt_tokens in (0, whole.usage.prompt_tokens), (
            "it is told whole or not at all"
        )
        assert used.cached_tokens <= used.prompt_tokens
        assert first.n_tokens <= used.completion_tokens <= 24
        await assert_alive(engine)

    async def test_closing_twice_is_nothing(self, engine: Engine) -> None:
        first = await engine.open(chat())
        await first.close()
        second = await engine.open(chat())
        await first.close()  # must not close whoever has the slot now
        assert engine.statistics().n_running == 1
        assert (await read_all(second)).text
        await second.close()
        await assert_alive(engine)

    async def test_a_cancelled_read_leaves_the_engine_usable(self, engine: Engine) -> None:
        sequence = await engine.open(chat(max_tokens=200))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await sequence.read()
        await sequence.close()
        await assert_alive(engine)

    async def test_after_a_cancelled_read_the_next_one_goes_on(self, engine: Engine) -> None:
        for job in (chat(), chat(sampling=Sampling(temperature=1.1, seed=5))):
            whole = await run(engine, job)
            sequence = await engine.open(job)
            outcome = Outcome()
            with anyio.fail_after(PATIENCE_S):
                while not outcome.deltas or outcome.deltas[-1].finish is None:
                    outcome.deltas.append(await sequence.read())
                    with anyio.CancelScope() as scope:
                        scope.cancel()
                        if outcome.deltas[-1].finish is None:
                            outcome.deltas.append(await sequence.read())
            await sequence.close()
            assert outcome.text == whole.text
            assert outcome.n_tokens == whole.n_tokens == outcome.usage.completion_tokens

    async def test_a_cancelled_open_leaves_no_slot_behind(self, engine: Engine) -> None:
        for _ in range(engine.capabilities.n_slots + 1):
            opened: list[Sequence] = []
            with anyio.CancelScope() as scope:
                scope.cancel()
                opened.append(await engine.open(chat()))
            for sequence in opened:
                await sequence.close()
        await assert_alive(engine)

    async def test_many_sequences_run_at_once_and_do_not_mix(self, engine: Engine) -> None:
        outcomes: dict[int, Outcome] = {}

        async def one(i: int) -> None:
            job = chat("Count: " + " ".join(["one"] * (i + 1)), max_tokens=4 + i)
            outcomes[i] = await run(engine, job)

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for i in range(engine.capabilities.n_slots):
                    tasks.start_soon(one, i)
        for i, outcome in outcomes.items():
            assert outcome.usage.completion_tokens == outcome.n_tokens <= 4 + i
        n_prompts = [outcomes[i].usage.prompt_tokens for i in sorted(outcomes)]
        assert n_prompts == sorted(set(n_prompts))
        await assert_alive(engine)

    async def test_a_slow_reader_misses_nothing(self, engine: Engine) -> None:
        fast = await run(engine, chat())
        sequence = await engine.open(chat())
        slow = await read_all(sequence, pause_s=0.02)
        await sequence.close()
        assert slow.text == fast.text
        assert slow.n_tokens == fast.n_tokens

    async def test_statistics_add_up(self, engine: Engine) -> None:
        before = engine.statistics()
        outcome = await run(engine, chat(max_tokens=5))
        after = engine.statistics()
        assert after.n_sequences == before.n_sequences + 1
        assert after.n_prompt_tokens == before.n_prompt_tokens + outcome.usage.prompt_tokens
        assert after.n_generated_tokens == before.n_generated_tokens + 5
        n_computed = after.n_prompt_tokens_computed - before.n_prompt_tokens_computed
        assert 0 <= n_computed <= outcome.usage.prompt_tokens

    # --- the end of an engine ----------------------------------------------------------------------------------

    async def test_closing_the_engine_ends_its_sequences(self) -> None:
        async with self.make() as engine:
            sequence = await engine.open(chat(max_tokens=500))
            await engine.aclose()
            with pytest.raises(EngineUnavailable):
                await read_all(sequence)
            await sequence.close()
            with pytest.raises(EngineUnavailable):
                await engine.open(chat())
            await engine.aclose()

    async def test_closing_the_engine_wakes_whoever_reads(self) -> None:
        async with self.make() as engine:
            ends: list[str] = []

            async def reader() -> None:
                sequence = await engine.open(chat(max_tokens=500))
                opened.set()
                try:
                    await read_all(sequence)
                    ends.append("finished")
                except EngineUnavailable:
                    ends.append("told")

            opened = anyio.Event()
            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(reader)
                    await opened.wait()
                    await engine.aclose()
            assert len(ends) == 1

    # --- suspending --------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "sampling",
        [GREEDY, Sampling(temperature=1.1, repeat_penalty=1.2, seed=11)],
        ids=["greedy", "sampled"],
    )
    async def test_a_suspended_generation_goes_on_where_it_was(
        self, engine: Engine, sampling: Sampling
    ) -> None:
        need(engine, Ability.SUSPEND)
        job = chat(sampling=sampling, max_tokens=24)
        whole = await run(engine, job)
        outcome, n_suspended = await run_with_interruptions(engine, job)
        assert n_suspended >= 1
        assert outcome.text == whole.text
        assert outcome.finish is whole.finish
        assert outcome.n_tokens == whole.n_tokens
        assert outcome.usage.completion_tokens == whole.usage.completion_tokens
        assert outcome.usage.prompt_tokens == whole.usage.prompt_tokens

    async def test_a_suspended_generation_keeps_its_constraint_and_its_stop_strings(
        self, engine: Engine
    ) -> None:
        need(engine, Ability.SUSPEND)
        free = (await run(engine, chat())).text
        jobs = [chat(stop=(free[30:36],))]
        if Ability.JSON_SCHEMA in engine.capabilities.abilities:
            jobs.append(chat("Describe a letter.", constraint=JsonSchema(SCHEMA), max_tokens=200))
        for job in jobs:
            whole = await run(engine, job)
            outcome, _ = await run_with_interruptions(engine, job)
            assert outcome.text == whole.text
            assert outcome.finish is whole.finish

    @pytest.mark.parametrize(
        "sampling",
        [GREEDY, Sampling(temperature=1.1, repeat_penalty=1.2, seed=11)],
        ids=["greedy", "sampled"],
    )
    async def test_a_generation_that_was_cut_off_goes_on_from_its_tokens_alone(
        self, engine: Engine, sampling: Sampling
    ) -> None:
        need(engine, Ability.SNAPSHOT)
        job = chat(sampling=sampling, max_tokens=24)
        whole = await run(engine, job)
        sequence = await engine.open(job)
        first = await sequence.read()
        await sequence.close()
        assert len(first.tokens) == first.n_tokens
        begun = Begun(engine.capabilities.fingerprint, first.tokens, first.text)
        rest = await run(engine, replace(job, begun=begun))
        assert first.text + rest.text == whole.text
        assert rest.finish is whole.finish
        assert rest.n_tokens == whole.n_tokens - first.n_tokens
        assert rest.usage.completion_tokens == whole.usage.completion_tokens

    async def test_a_suspended_generation_leaves_its_slot_to_others(self, engine: Engine) -> None:
        need(engine, Ability.SUSPEND)
        whole = await run(engine, chat())
        sequence = await engine.open(chat())
        first = await sequence.read()
        suspended = await sequence.suspend()
        assert suspended.emitted == first.text
        assert suspended.n_generated >= first.n_tokens
        assert engine.statistics().n_running == 0
        await sequence.close()
        for _ in range(engine.capabilities.n_slots):
            await run(engine, chat("Something else.", max_tokens=3))
        resumed = await resume(engine, chat(), suspended)
        rest = await read_all(resumed)
        await resumed.close()
        assert first.text + rest.text == whole.text

    async def test_nothing_is_lost_when_a_read_was_cancelled_before_suspending(
        self, engine: Engine
    ) -> None:
        need(engine, Ability.SUSPEND)
        whole = await run(engine, chat())
        sequence = await engine.open(chat())
        outcome = Outcome([await sequence.read()])
        with anyio.CancelScope() as scope:
            scope.cancel()
            outcome.deltas.append(await sequence.read())
        if outcome.deltas[-1].finish is not None:
            pytest.skip("the answer came in one piece")
        resumed = await resume(engine, chat(), await sequence.suspend())
        outcome.deltas += (await read_all(resumed)).deltas
        await resumed.close()
        assert outcome.text == whole.text
        await assert_alive(engine)

    async def test_what_another_model_suspended_is_refused(self, engine: Engine) -> None:
        need(engine, Ability.SUSPEND)
        sequence = await engine.open(chat())
        suspended = await sequence.suspend()
        with pytest.raises(SnapshotIncompatible):
            await engine.open(chat(), replace(suspended, fingerprint="another model"))
        engine.drop(suspended)
        await assert_alive(engine)

    async def test_a_suspended_generation_outlives_its_engine_as_bytes(
        self, engine: Engine
    ) -> None:
        need(engine, Ability.SNAPSHOT)
        job = chat(sampling=Sampling(temperature=0.9, seed=3), stop=("zzz",))
        whole = await run(engine, job)
        sequence = await engine.open(job)
        outcome = Outcome([await sequence.read()])
        data = await engine.dump(await sequence.suspend())
        async with self.make() as later:
            loaded = later.load(data)
            assert loaded.emitted == outcome.text
            resumed = await resume(later, job, loaded)
            outcome.deltas += (await read_all(resumed)).deltas
            await resumed.close()
        assert outcome.text == whole.text
        assert outcome.finish is whole.finish
        assert outcome.usage.completion_tokens == whole.usage.completion_tokens
        engine.drop(engine.load(data))
        await assert_alive(engine)

    async def test_bytes_that_are_no_suspended_generation_are_refused(self, engine: Engine) -> None:
        need(engine, Ability.SNAPSHOT)
        sequence = await engine.open(chat())
        await sequence.read()
        suspended = await sequence.suspend()
        data = await engine.dump(suspended)
        for wrong in (b"", b"nonsense", data[:-1], data[: len(data) // 2]):
            with pytest.raises(SnapshotIncompatible):
                engine.load(wrong)
        with pytest.raises(SnapshotIncompatible):
            await engine.dump(replace(suspended, fingerprint="another model"))
        engine.drop(suspended)
        engine.drop(suspended)  # twice is nothing
        await assert_alive(engine)

    async def test_a_generation_that_is_cancelled_while_it_is_suspended_or_resumed_leaves_nothing(
        self, engine: Engine
    ) -> None:
        """Cancelled at the first wait, the second, and so on, until it is done before that."""
        need(engine, Ability.SUSPEND)
        for n_waits in range(12):
            suspended: list[Suspended] = []
            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_suspend_and_resume, engine, suspended)
                    for _ in range(n_waits):
                        await checkpoint()
                    tasks.cancel_scope.cancel()
            for each in suspended:
                engine.drop(each)
            assert engine.statistics().n_running == 0
        await assert_alive(engine)

    async def test_an_engine_without_snapshots_says_so(self, engine: Engine) -> None:
        if Ability.SNAPSHOT in engine.capabilities.abilities:
            pytest.skip("the engine has them")
        with pytest.raises(Unsupported):
            await engine.dump(Suspended("", 0))
        with pytest.raises(Unsupported):
            engine.load(b"")
        engine.drop(Suspended("", 0))
        await assert_alive(engine)

    async def test_an_engine_that_cannot_suspend_says_so_and_goes_on(self, engine: Engine) -> None:
        if Ability.SUSPEND in engine.capabilities.abilities:
            pytest.skip("the engine can")
        sequence = await engine.open(chat())
        with pytest.raises(Unsupported):
            await sequence.suspend()
        assert (await read_all(sequence)).text
        await sequence.close()


async def _suspend_and_resume(engine: Engine, suspended: list[Suspended]) -> None:
    """Leave in `suspended` what is to be dropped if this is cancelled."""
    sequence = await engine.open(chat())
    try:
        await sequence.read()
        suspended.append(await sequence.suspend())
    finally:
        await sequence.close()
    again = await engine.open(chat(), suspended[0])
    try:
        await read_all(again)
    finally:
        await again.close()
