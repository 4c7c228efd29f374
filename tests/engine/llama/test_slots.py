from pathlib import Path

import numpy as np
import pytest
from tests.engine.llama.generations import greedy

from aios.config import ContextConfig
from aios.engine.llama.binding import Batch, Context, Model, Tokens
from aios.engine.llama.generation import Generation
from aios.engine.llama.paging import open_pager
from aios.engine.llama.slots import MIN_SHARED_TOKENS, Slots, shared_tokens
from aios.kernel.context.manager import ContextManager

pytestmark = pytest.mark.model


def numbers(start: int, n: int) -> Tokens:
    return np.arange(start, start + n, dtype=np.int32)


def join(*parts: Tokens) -> Tokens:
    return np.concatenate(parts)


HEAD = numbers(1000, 30)


class Bench:
    """Slots of a real context, and a hand that computes."""

    def __init__(self, model: Model, context: Context) -> None:
        self.model = model
        self.context = context
        self.slots = Slots(context, 3)

    def seat(self, prompt: Tokens) -> Generation:
        generation, _ = greedy(self.model, prompt)
        self.slots.seat(generation)
        return generation

    def slot_of(self, generation: Generation) -> int:
        return next(i for i in range(3) if self.slots._slots[i].generation is generation)

    def n_kept(self, generation: Generation) -> int:
        """Tokens of a generation that are in its cells, on which llama.cpp and the slots agree."""
        slot = self.slots._slots[self.slot_of(generation)]
        assert slot.n_computed == self.context.n_cells(slot.index)
        return slot.n_computed

    def compute(self, generation: Generation, n_tokens: int | None = None) -> None:
        """Put the tokens of a generation into its cells, up to `n_tokens`, or all."""
        start, end = self.n_kept(generation), n_tokens or generation.n_tokens
        batch = Batch(64)
        batch.add(self.slot_of(generation), start, generation.tokens[start:end])
        assert self.context.decode(batch)
        self.slots.fill(self.slot_of(generation), end)

    def use_all(self, *prompts: Tokens) -> None:
        """Fill the slots with the tokens of generations that have left."""
        generations = [self.seat(prompt) for prompt in prompts]
        for generation in generations:
            self.compute(generation)
        for generation in generations:
            self.slots.leave(generation)


@pytest.fixture
def bench(model: Model, context: Context) -> Bench:
    return Bench(model, context)


def test_shared_tokens_is_the_length_of_the_common_beginning() -> None:
    assert shared_tokens(numbers(0, 5), numbers(0, 9)) == 5
    assert shared_tokens(numbers(0, 5), numbers(1, 5)) == 0
    assert shared_tokens(join(numbers(0, 3), numbers(9, 3)), numbers(0, 6)) == 3
    assert shared_tokens(numbers(0, 0), numbers(0, 5)) == 0


def test_whoever_goes_on_with_what_a_slot_holds_gets_that_slot(bench: Bench) -> None:
    prompts = [numbers(2000, 20), numbers(3000, 24), numbers(4000, 20)]
    bench.use_all(*prompts)
    newcomer = bench.seat(join(prompts[1], numbers(5000, 10)))
    assert bench.slot_of(newcomer) == 1
    assert bench.n_kept(newcomer) == 24


def test_the_last_token_of_a_prompt_is_always_computed(bench: Bench) -> None:
    bench.use_all(numbers(2000, 20))
    same = bench.seat(numbers(2000, 20))
    assert bench.n_kept(same) == 19
    shorter = bench.seat(numbers(2000, 10))
    assert bench.n_kept(shorter) == 0  # the other slots hold nothing


def test_a_stranger_gets_the_slot_that_was_used_the_longest_ago(bench: Bench) -> None:
    bench.use_all(numbers(2000, 20), numbers(3000, 20), numbers(4000, 20))
    first = bench.seat(numbers(6000, 20))
    second = bench.seat(numbers(7000, 20))
    assert [bench.slot_of(first), bench.slot_of(second)] == [0, 1]
    assert bench.n_kept(first) == 0


def test_who_shares_only_a_head_leaves_the_rest_to_its_owner_and_copies_the_head(
    bench: Bench,
) -> None:
    bench.use_all(numbers(2000, 20), numbers(3000, 20), join(HEAD, numbers(4000, 34)))
    newcomer = bench.seat(join(HEAD, numbers(5000, 20)))
    assert bench.slot_of(newcomer) == 0
    assert bench.slots.share() == frozenset()
    assert bench.n_kept(newcomer) == len(HEAD)
    assert bench.slots.n_copied_tokens == len(HEAD)
    owner = bench.seat(join(HEAD, numbers(4000, 34), numbers(8000, 5)))
    assert bench.n_kept(owner) == 64


def test_a_prefix_is_copied_from_a_slot_that_is_in_use(bench: Bench) -> None:
    busy = bench.seat(join(HEAD, numbers(2000, 20)))
    bench.compute(busy)
    newcomer = bench.seat(join(HEAD, numbers(3000, 20)))
    bench.slots.share()
    assert bench.n_kept(newcomer) == len(HEAD)
    assert bench.n_kept(busy) == 50


def test_what_could_not_be_cut_is_neither_copied_nor_waited_for(bench: Bench) -> None:
    bench.context.max_cut_tokens = 49  # as with a sliding window, of which a copy has only the end
    busy = bench.seat(join(HEAD, numbers(2000, 20)))
    newcomer = bench.seat(join(HEAD, numbers(3000, 20)))
    assert bench.slots.share() == frozenset(), "nothing will come of waiting"
    bench.compute(busy)
    assert bench.slots.share() == frozenset()
    assert bench.n_kept(newcomer) == 0
    follower = bench.seat(join(HEAD, numbers(2000, 20), numbers(3000, 20)))
    bench.slots.share()
    assert bench.n_kept(follower) == 50, "the whole of it can be copied"


def test_a_longer_prefix_elsewhere_replaces_the_shorter_one_in_the_slot(bench: Bench) -> None:
    busy = bench.seat(join(HEAD, numbers(2000, 20)))
    bench.compute(busy)
    newcomer = bench.seat(join(HEAD, numbers(3000, 20)))
    bench.compute(newcomer, 10)
    bench.slots.share()
    assert bench.n_kept(newcomer) == len(HEAD)


def test_a_copied_prefix_gives_the_same_logits_as_a_computed_one(bench: Bench) -> None:
    tail = numbers(3000, 12)
    computed = bench.seat(join(HEAD, tail))
    bench.compute(computed, len(HEAD))
    bench.compute(computed)
    expected = bench.context.logits(len(tail) - 1).copy()
    other = bench.seat(join(HEAD, tail))
    bench.slots.share()
    bench.slots.cut(bench.slot_of(other), len(HEAD))
    bench.compute(other)
    assert np.array_equal(bench.context.logits(len(tail) - 1), expected)


def test_of_those_that_start_together_the_oldest_computes_the_head(bench: Bench) -> None:
    first, second, third = (bench.seat(join(HEAD, numbers(n, 20))) for n in (2000, 3000, 4000))
    others = {bench.slot_of(second), bench.slot_of(third)}
    assert bench.slots.share() == others
    bench.compute(first, len(HEAD) - 1)
    assert bench.slots.share() == others
    bench.compute(first, len(HEAD))
    assert bench.slots.share() == frozenset()
    assert bench.n_kept(second) == bench.n_kept(third) == len(HEAD)


def test_when_the_oldest_leaves_the_next_goes_on_from_what_it_computed(bench: Bench) -> None:
    head = numbers(1000, 40)
    first, second, third = (bench.seat(join(head, numbers(n, 20))) for n in (2000, 3000, 4000))
    bench.compute(first, 20)
    bench.slots.leave(first)
    assert bench.slots.share() == {bench.slot_of(third)}
    assert bench.n_kept(second) == 20
    assert bench.n_kept(third) == 0


def test_what_the_oldest_computed_is_found_when_its_slot_is_another_s(
    bench: Bench, tmp_path: Path
) -> None:
    contexts = ContextManager(ContextConfig(ram_bytes=64 << 20), tmp_path)
    pager = open_pager(
        bench.context, n_slots=3, fingerprint="small", open_pages=contexts.open_pages
    )
    bench.slots = Slots(bench.context, 3, pager)
    head = numbers(1000, 80)
    oldest, waiting = (bench.seat(join(head, numbers(n, 20))) for n in (2000, 3000))
    bench.compute(oldest, 60)
    bench.slots.suspend(oldest)
    for urgent in (bench.seat(numbers(n, 30)) for n in (5000, 6000)):
        bench.compute(urgent)
    assert bench.slots.share() == frozenset()
    assert bench.n_kept(waiting) == 60


def test_a_short_common_head_is_not_waited_for(bench: Bench) -> None:
    short = HEAD[: MIN_SHARED_TOKENS - 1]
    bench.seat(join(short, numbers(2000, 20)))
    bench.seat(join(short, numbers(3000, 20)))
    assert bench.slots.share() == frozenset()


def test_a_long_sequence_is_not_moved_for_a_few_of_its_tokens(bench: Bench) -> None:
    long = bench.seat(numbers(2000, 150))
    for end in (64, 128, 150):
        bench.compute(long, end)
    newcomer = bench.seat(join(numbers(2000, 17), numbers(5000, 30)))
    bench.slots.share()
    assert bench.n_kept(newcomer) == 0


def test_leaving_twice_is_nothing(bench: Bench) -> None:
    generation = bench.seat(numbers(2000, 20))
    assert bench.slots.n_seated == 1
    bench.slots.leave(generation)
    bench.slots.leave(generation)
    assert bench.slots.n_seated == 0
    assert bench.slots.progress() == []
