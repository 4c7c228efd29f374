"""Paging with the real model: what leaves a slot comes back, and the next tokens are the same."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from aios.config import ContextConfig
from aios.engine.llama.binding import Batch, Context, Model
from aios.engine.llama.kvstate import PAGE_TOKENS
from aios.engine.llama.paging import Pager, open_pager
from aios.engine.llama.sampling import Tokens
from aios.engine.models import find_model
from aios.kernel.context.manager import ContextManager

pytestmark = pytest.mark.model

N_SLOTS = 3


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    model = Model(find_model(""))
    context = Context(model, n_slots=N_SLOTS, window_tokens=512, n_batch=256, n_threads=1)
    yield context
    context.close()
    model.close()


@pytest.fixture
def pager(context: Context, tmp_path: Path) -> Pager:
    for slot in range(N_SLOTS):
        context.keep(slot, 0)
    contexts = ContextManager(ContextConfig(ram_bytes=64 << 20), tmp_path)
    pager = open_pager(
        context, n_slots=N_SLOTS, fingerprint="small", open_pages=contexts.open_pages
    )
    assert pager is not None, "the default model's cells can be paged"
    return pager


def tokens_of(n: int, seed: int = 0) -> Tokens:
    return np.random.default_rng(seed).integers(100, 40_000, n).astype(np.int32)


def compute(context: Context, slot: int, tokens: Tokens, start: int = 0) -> int:
    """Put tokens from `start` on into a slot. Returns: the likeliest next one."""
    batch = Batch(256)
    row = batch.add(slot, start, tokens[start:])
    assert context.decode(batch)
    return int(context.logits(row).argmax())


def go_on(context: Context, slot: int, tokens: Tokens, token: int) -> list[int]:
    """The next ten tokens, greedily."""
    out = [token]
    for position in range(len(tokens), len(tokens) + 9):
        batch = Batch(1)
        row = batch.add(slot, position, np.array([out[-1]], np.int32))
        assert context.decode(batch)
        out.append(int(context.logits(row).argmax()))
    return out


def test_a_slot_filled_from_pages_goes_on_as_the_one_that_computed_them(
    context: Context, pager: Pager
) -> None:
    tokens = tokens_of(100)
    expected = go_on(context, 0, tokens, compute(context, 0, tokens))
    context.keep(0, len(tokens))
    pager.save(0, tokens)
    assert pager.n_saved_pages == 3
    n_loaded = pager.load(1, tokens[:-1])
    assert n_loaded == 3 * PAGE_TOKENS == context.n_cells(1)
    assert go_on(context, 1, tokens, compute(context, 1, tokens, n_loaded)) == expected


def test_pages_of_two_sequences_are_joined_behind_their_common_head(
    context: Context, pager: Pager
) -> None:
    head = tokens_of(64, seed=1)
    first = np.concatenate([head, tokens_of(40, seed=2)])
    second = np.concatenate([head, tokens_of(40, seed=3)])
    compute(context, 0, first)
    pager.save(0, first)
    assert pager.n_stored(second) == 64
    assert pager.load(1, second) == 64
    expected = go_on(context, 2, second, compute(context, 2, second))
    assert go_on(context, 1, second, compute(context, 1, second, 64)) == expected


def test_pages_that_are_known_are_not_stored_again(context: Context, pager: Pager) -> None:
    tokens = tokens_of(70, seed=4)
    compute(context, 0, tokens)
    pager.save(0, tokens)
    pager.save(0, tokens)
    assert pager.n_saved_pages == 2


def test_what_is_shorter_than_a_page_is_not_stored(context: Context, pager: Pager) -> None:
    tokens = tokens_of(PAGE_TOKENS - 1, seed=5)
    compute(context, 0, tokens)
    pager.save(0, tokens)
    assert pager.n_saved_pages == 0
    assert pager.load(1, tokens) == 0
