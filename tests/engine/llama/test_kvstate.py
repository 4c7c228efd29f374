import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.engine.llama.kvstate import PAGE_TOKENS, Bytes, Layout, UnknownLayout, cut, join, probe

MAGIC = 0xAF143C28


def state_of(rows: list[int], *, n_tokens: int, slot: int, n_slots: int, seed: int = 0) -> Bytes:
    """A state as llama.cpp writes it, with random rows of these sizes (K of all layers, then V)."""
    chance = np.random.default_rng(seed)
    words: list[int] = [MAGIC, slot, n_slots, *([0] * slot), n_tokens]
    for position in range(n_tokens):
        words += [position, 1, slot]
    words += [0, len(rows) // 2]
    parts = [np.array(words, np.uint32).view(np.uint8)]
    for row_bytes in rows:
        parts.append(np.array([1, row_bytes, 0], np.uint32).view(np.uint8))
        parts.append(chance.integers(0, 256, n_tokens * row_bytes, np.uint8))
    parts.append(np.zeros(4 * (n_slots - 1 - slot), np.uint8))
    return np.concatenate(parts)


def pages_of(layout: Layout, state: Bytes, *, slot: int, n_tokens: int) -> list[Bytes]:
    pages = []
    for start in range(0, n_tokens, PAGE_TOKENS):
        page = np.zeros(layout.page_bytes, np.uint8)
        stop = min(start + PAGE_TOKENS, n_tokens)
        cut(layout, state, page, slot=slot, n_tokens=n_tokens, start=start, stop=stop)
        pages.append(page)
    return pages


row_sizes = st.one_of(
    st.integers(1, 4).flatmap(lambda n: st.integers(1, 9).map(lambda size: [size] * (2 * n))),
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.integers(1, 9), min_size=2 * n, max_size=2 * n)
    ),
)


@settings(max_examples=80, deadline=None)
@given(rows=row_sizes, n_tokens=st.integers(1, 100), slot=st.integers(0, 3), seed=st.integers(0, 9))
def test_pages_cut_from_a_state_join_to_the_same_state_in_another_slot(
    rows: list[int], n_tokens: int, slot: int, seed: int
) -> None:
    state = state_of(rows, n_tokens=n_tokens, slot=slot, n_slots=4, seed=seed)
    layout = probe(state, slot=slot, n_slots=4, n_tokens=n_tokens)
    assert layout.state_bytes(n_tokens) == state.nbytes
    pages = pages_of(layout, state, slot=slot, n_tokens=n_tokens)
    joined = join(layout, pages, n_tokens=n_tokens, out=np.zeros(state.nbytes + 7, np.uint8))
    expected = state_of(rows, n_tokens=n_tokens, slot=3, n_slots=4, seed=seed)
    assert joined.tobytes() == expected.tobytes()


@settings(max_examples=40, deadline=None)
@given(rows=row_sizes, n_tokens=st.integers(2, 100), share=st.floats(0, 1))
def test_a_prefix_of_the_pages_is_the_state_of_the_prefix(
    rows: list[int], n_tokens: int, share: float
) -> None:
    state = state_of(rows, n_tokens=n_tokens, slot=0, n_slots=1)
    layout = probe(state, slot=0, n_slots=1, n_tokens=n_tokens)
    n_kept = max(1, int(n_tokens * share))
    pages = pages_of(layout, state, slot=0, n_tokens=n_tokens)[: -(-n_kept // PAGE_TOKENS)]
    joined = join(layout, pages, n_tokens=n_kept, out=np.zeros(state.nbytes, np.uint8))
    kept = probe(joined, slot=0, n_slots=1, n_tokens=n_kept)
    whole_blocks = layout.blocks(state, slot=0, n_tokens=n_tokens)
    kept_blocks = kept.blocks(joined, slot=0, n_tokens=n_kept)
    for whole, part, row_bytes in zip(whole_blocks, kept_blocks, rows, strict=True):
        assert part.tobytes() == whole[: n_kept * row_bytes].tobytes()


@settings(max_examples=60, deadline=None)
@given(where=st.integers(0, 200), value=st.integers(1, 255), cut_at=st.integers(0, 400))
def test_a_state_that_is_not_as_expected_is_never_taken_for_one_that_is(
    where: int, value: int, cut_at: int
) -> None:
    state = state_of([2, 2], n_tokens=5, slot=1, n_slots=3)
    layout = probe(state, slot=1, n_slots=3, n_tokens=5)
    with pytest.raises(UnknownLayout):
        probe(state[: min(cut_at, state.nbytes - 1)], slot=1, n_slots=3, n_tokens=5)
    changed = state.copy()
    changed[where % state.nbytes] ^= value
    try:
        found = probe(changed, slot=1, n_slots=3, n_tokens=5)
    except UnknownLayout:
        return
    assert found.row_bytes == layout.row_bytes, "only rows, magic, sequence or type may differ"


def test_a_transposed_v_cache_is_refused() -> None:
    state = state_of([2, 2], n_tokens=1, slot=0, n_slots=1)
    v_transposed = state[(4 + 3) * 4 :].view(np.uint32)
    v_transposed[0] = 1
    with pytest.raises(UnknownLayout, match="v_transposed 1"):
        probe(state, slot=0, n_slots=1, n_tokens=1)
