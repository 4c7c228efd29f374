"""Paging with the real model: what leaves a slot comes back, and the next tokens are the same."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from aios.config import ContextConfig
from aios.engine.llama.binding import Batch, Context, Model
from aios.engine.llama.keeping import NOTHING
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
    return pager_of(context, tmp_path)


def pager_of(context: Context, folder: Path) -> Pager:
    contexts = ContextManager(ContextConfig(ram_bytes=64 << 20), folder)
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
    assert pager.n_saved_pages == 4
    longer = np.concatenate([tokens, tokens_of(5, seed=99)])
    assert pager.load(1, longer) == 100 == context.n_cells(1)
    context.keep(1, 0)
    n_loaded = pager.load(1, tokens[:-1])
    assert n_loaded == 3 * PAGE_TOKENS == context.n_cells(1), "the tail has one token more"
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
    assert pager.n_saved_pages == 3


def test_what_is_shorter_than_a_page_is_a_tail(context: Context, pager: Pager) -> None:
    tokens = tokens_of(PAGE_TOKENS - 1, seed=5)
    expected = go_on(context, 0, tokens, compute(context, 0, tokens))
    context.keep(0, len(tokens))
    pager.save(0, tokens)
    assert pager.load(1, tokens) == len(tokens)
    assert go_on(context, 1, tokens, expected[0]) == expected


def test_a_suspended_slot_comes_back_to_the_last_token_and_its_tail_goes_with_the_pin(
    context: Context, pager: Pager
) -> None:
    for n in (1, PAGE_TOKENS - 1, PAGE_TOKENS, PAGE_TOKENS + 1, 100):
        tokens = tokens_of(n, seed=n)
        context.keep(0, 0)
        expected = go_on(context, 0, tokens, compute(context, 0, tokens))
        context.keep(0, n)
        kept = pager.suspend(0, tokens)
        assert kept.n_tokens == n == pager.n_stored(tokens, n_kept=n)
        assert pager.n_stored(tokens) == n, "others with the same beginning find it too"
        context.keep(1, 0)
        longer = np.concatenate([tokens, tokens_of(5, seed=99)])
        assert pager.load(1, longer, n_kept=n) == n == context.n_cells(1)
        assert go_on(context, 1, tokens, expected[0]) == expected
        pager.unpin(kept.pin)
        assert pager.n_stored(tokens, n_kept=n) == n // PAGE_TOKENS * PAGE_TOKENS


def test_nothing_is_kept_of_an_empty_slot(pager: Pager) -> None:
    assert pager.suspend(0, tokens_of(0)) == NOTHING


def test_flushed_cells_are_on_disk_and_can_be_fetched(
    context: Context, pager: Pager, tmp_path: Path
) -> None:
    tokens = tokens_of(70, seed=6)
    context.keep(0, 0)
    compute(context, 0, tokens)
    kept = pager.suspend(0, tokens)
    assert pager.flush(tokens, kept) == 70
    assert len(list(tmp_path.glob("*/*/*.page"))) == 3
    later = pager_of(context, tmp_path)
    assert later.is_on_disk(tokens, n_kept=70)
    later.fetch(tokens, n_kept=70)
    assert not later.is_on_disk(tokens, n_kept=70)
    assert later.load(1, tokens, n_kept=70) == 70
    later.unpin(kept.pin)
    assert len(list(tmp_path.glob("*/*/*.page"))) == 2
