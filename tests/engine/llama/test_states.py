"""Whole states, with the real model, whose layout is not looked at."""

import numpy as np
import pytest

from aios.engine.llama.binding import Batch, Context
from aios.engine.llama.keeping import NOTHING
from aios.engine.llama.sampling import Tokens
from aios.engine.llama.states import MIN_TOKENS, States

pytestmark = pytest.mark.model

STATE_BYTES = 2 << 20
"""More than 64 tokens of the default model take, less than twice as much."""


def numbers(start: int, n: int) -> Tokens:
    return np.arange(start, start + n, dtype=np.int32)


def compute(context: Context, slot: int, tokens: Tokens) -> int:
    """Put tokens into an empty slot. Returns: the likeliest next one."""
    context.keep(slot, 0)
    batch = Batch(64)
    row = batch.add(slot, 0, tokens)
    assert context.decode(batch)
    return int(context.logits(row).argmax())


def go_on(context: Context, slot: int, tokens: Tokens) -> int:
    batch = Batch(1)
    row = batch.add(slot, len(tokens), np.array([7], np.int32))
    assert context.decode(batch)
    return int(context.logits(row).argmax())


def test_a_state_goes_on_in_another_slot(context: Context) -> None:
    states, tokens = States(context, STATE_BYTES), numbers(1000, 40)
    compute(context, 0, tokens)
    states.save(0, tokens)
    expected = go_on(context, 0, tokens)
    longer = np.concatenate([tokens, numbers(9000, 5)])
    assert states.n_stored(longer) == 40
    assert states.load(1, longer) == context.n_cells(1) == 40
    assert go_on(context, 1, tokens) == expected


def test_a_state_is_of_use_only_to_who_begins_with_all_of_it(context: Context) -> None:
    states, tokens = States(context, STATE_BYTES), numbers(1000, 40)
    compute(context, 0, tokens)
    states.save(0, tokens)
    assert states.n_stored(tokens[:39]) == 0
    assert states.load(1, tokens[:39]) == 0
    compute(context, 0, tokens[:20])
    states.save(0, tokens[:20])
    assert states.n_stored(tokens[:39]) == 20


def test_short_sequences_are_kept_only_when_they_are_suspended(context: Context) -> None:
    states, tokens = States(context, STATE_BYTES), numbers(1000, MIN_TOKENS - 1)
    compute(context, 0, tokens)
    states.save(0, tokens)
    assert states.n_stored(tokens) == 0
    assert states.suspend(0, tokens[:0]) == NOTHING
    assert states.suspend(0, tokens).n_tokens == states.n_stored(tokens) == len(tokens)


def test_the_oldest_state_goes_and_a_pinned_one_never(context: Context) -> None:
    states = States(context, STATE_BYTES)
    first, second, third = (numbers(start, 60) for start in (1000, 2000, 3000))
    compute(context, 0, first)
    kept = states.suspend(0, first)
    for tokens in (second, third):
        compute(context, 1, tokens)
        states.save(1, tokens)
    assert states.n_stored(first) == 60
    assert states.n_stored(third) == 0, "there is room for one"
    states.unpin(kept.pin)
    states.unpin(kept.pin)
    assert not states._counts, "nothing is left of a pin, which has all the tokens in it"
    states.save(1, third)
    assert states.n_stored(first) == 0
    assert states.n_stored(third) == 60
    assert not states.is_on_disk(third)
    assert states.flush(third, kept) == 0
