"""The loop, stepped by hand: what the thread does, without the thread."""

import anyio
import numpy as np
import pytest
from anyio.lowlevel import checkpoint
from tests.engine.llama.generations import Listener, greedy

from aios.abi.types import Finish
from aios.engine.batch import Batcher
from aios.engine.llama.binding import Context, Model, Tokens
from aios.engine.llama.embedding import Embedder
from aios.engine.llama.keeping import NOTHING, Kept
from aios.engine.llama.loop import EngineLoop
from aios.engine.llama.outbox import Outbox, Reply
from aios.engine.llama.slots import Slots

pytestmark = [pytest.mark.model, pytest.mark.anyio]


class Hand:
    """A loop that is turned by hand."""

    def __init__(self, model: Model, context: Context) -> None:
        self.model = model
        outbox = Outbox()
        self.slots = Slots(context, 3)
        self.loop = EngineLoop(
            context,
            self.slots,
            batcher=Batcher(chunk_tokens=64, n_decodes=2),
            embedder=Embedder(model, outbox, n_threads=1),
            outbox=outbox,
        )

    def tokens(self, text: str) -> Tokens:
        return self.model.tokenize(text, special=False)

    async def turn(self) -> None:
        """Do the commands that wait, make one step, and let the event loop hear of it."""
        while not self.loop._inbox.empty():
            self.loop._inbox.get()()
        self.loop.step()
        await checkpoint()

    async def run_all(self) -> None:
        await self.turn()
        while self.slots.n_seated:
            await self.turn()


@pytest.fixture
async def hand(model: Model, context: Context) -> Hand:
    return Hand(model, context)


def assert_whole(listener: Listener, n_output: int) -> None:
    assert [delta.n_tokens for delta in listener.deltas] == [1] * n_output
    assert listener.deltas[-1].finish is Finish.LENGTH
    assert listener.text


async def test_each_step_tells_the_readers_one_token(hand: Hand) -> None:
    generation, listener = greedy(hand.model, hand.tokens("Once upon a time"), n_output=4)
    hand.loop.open_nowait(generation)
    for n_tokens in range(1, 5):
        await hand.turn()
        assert len(listener.deltas) == n_tokens
    assert_whole(listener, 4)
    assert hand.slots.n_seated == 0
    counters = hand.loop.counters
    assert counters.n_prefill_steps == 1
    assert counters.n_decode_steps == 3
    assert counters.n_generated_tokens == 4
    assert counters.n_prompt_tokens_computed == generation.n_prompt


async def test_generations_share_the_decode_steps(hand: Hand) -> None:
    listeners = []
    for text in ("The sea is", "A lighthouse", "In the city of"):
        generation, listener = greedy(hand.model, hand.tokens(text), n_output=10)
        hand.loop.open_nowait(generation)
        listeners.append(listener)
    await hand.run_all()
    for listener in listeners:
        assert_whole(listener, 10)
    assert hand.loop.counters.n_decode_steps < 20  # 27 one by one


async def test_a_common_head_is_computed_once_for_all_that_start_together(hand: Hand) -> None:
    head = hand.tokens("You are an agent. Follow the rules. " * 8)
    tails = [hand.tokens(f"Task {number}: write a report.") for number in range(3)]
    listeners = []
    for tail in tails:
        generation, listener = greedy(hand.model, np.concatenate([head, tail]), n_output=2)
        hand.loop.open_nowait(generation)
        listeners.append(listener)
    await hand.run_all()
    n_least = len(head) + sum(len(tail) for tail in tails)
    assert hand.loop.counters.n_prompt_tokens_computed <= n_least  # less, as the tails begin alike
    for listener in listeners:
        assert_whole(listener, 2)
        usage = listener.deltas[-1].usage
        assert usage is not None
        assert usage.cached_tokens >= (len(head) if listener is not listeners[0] else 0)


async def test_a_closed_generation_is_heard_of_no_more_and_its_step_is_not_computed(
    hand: Hand,
) -> None:
    generation, listener = greedy(hand.model, hand.tokens("Once upon a time"))
    hand.loop.open_nowait(generation)
    await hand.turn()
    generation.is_closed = True  # as `close_nowait` does it, before its command is read
    await hand.turn()
    assert hand.loop.counters.n_aborted_steps == 1
    assert len(listener.deltas) == 1
    hand.loop.close_nowait(generation)
    await hand.turn()
    assert hand.slots.n_seated == 0


async def test_what_was_computed_before_an_abort_is_still_there_for_the_next(hand: Hand) -> None:
    prompt = hand.tokens("Rule: be kind to the sea and to its birds. " * 9)[:80]
    first, _ = greedy(hand.model, prompt)
    hand.loop.open_nowait(first)
    await hand.turn()  # the first 64 tokens
    first.is_closed = True
    await hand.turn()  # aborted
    hand.loop.close_nowait(first)
    second, listener = greedy(hand.model, prompt, n_output=3)
    hand.loop.open_nowait(second)
    await hand.run_all()
    usage = listener.deltas[-1].usage
    assert usage is not None
    assert usage.cached_tokens == 64
    alone, expected = greedy(hand.model, prompt, n_output=3)
    hand.loop.open_nowait(alone)
    await hand.run_all()
    assert listener.text == expected.text


async def test_a_step_that_others_need_goes_on_when_one_is_closed(hand: Hand) -> None:
    first, _ = greedy(hand.model, hand.tokens("The sea is"))
    second, listener = greedy(hand.model, hand.tokens("A lighthouse"), n_output=5)
    hand.loop.open_nowait(first)
    hand.loop.open_nowait(second)
    for _ in range(3):
        await hand.turn()
    first.is_closed = True
    await hand.turn()
    hand.loop.close_nowait(first)
    await hand.run_all()
    assert hand.loop.counters.n_aborted_steps == 0
    assert_whole(listener, 5)


async def test_a_suspended_generation_is_answered_after_its_last_token_was_told(
    hand: Hand,
) -> None:
    generation, listener = greedy(hand.model, hand.tokens("Once upon a time"))
    hand.loop.open_nowait(generation)
    await hand.turn()
    reply: Reply[Kept] = Reply()
    hand.loop.suspend_nowait(generation, reply)
    await hand.turn()
    with anyio.fail_after(30):
        assert await reply.wait() == NOTHING, "there is nobody to keep its cells"
    assert hand.slots.n_seated == 0
    assert generation.n_tokens == generation.n_prompt + len(listener.deltas)


async def test_trouble_of_one_generation_is_not_the_others(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked, masked_listener = greedy(hand.model, hand.tokens("The sea is"))
    broken, broken_listener = greedy(hand.model, hand.tokens("In the city of"))
    good, listener = greedy(hand.model, hand.tokens("A lighthouse"), n_output=3)
    masked.sampler._bias_ids = np.arange(hand.model.n_vocab)
    masked.sampler._bias = np.full(hand.model.n_vocab, -np.inf, np.float32)
    monkeypatch.setattr(broken.carried.assembler, "feed", lambda _: 1 // 0)
    for generation in (masked, broken, good):
        hand.loop.open_nowait(generation)
    await hand.run_all()
    assert [error.code for error in masked_listener.errors] == ["engine_failed"]
    assert [error.code for error in broken_listener.errors] == ["kernel_bug"]
    assert masked_listener.deltas == broken_listener.deltas == []
    assert_whole(listener, 3)
