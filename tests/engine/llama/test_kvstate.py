from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.engine.llama.kvstate import PAGE_TOKENS, Bytes, Layout, UnknownLayout, cut, join, probe

MAGIC = 0xAF143C28

Shape = tuple[int, int]
"""Lines of a block, and bytes of a cell in each."""


def state_of(
    shapes: list[Shape], *, n_tokens: int, slot: int, n_slots: int, v_transposed: int, seed: int = 0
) -> Bytes:
    """A state as llama.cpp writes it, with random blocks of these shapes (K of all layers, then V)."""
    chance = np.random.default_rng(seed)
    words: list[int] = [MAGIC, slot, n_slots, *([0] * slot), n_tokens]
    for position in range(n_tokens):
        words += [position, 1, slot]
    words += [v_transposed, len(shapes) // 2]
    parts = [np.array(words, np.uint32).view(np.uint8)]
    for number, (n_lines, unit_bytes) in enumerate(shapes):
        is_transposed = v_transposed and number >= len(shapes) // 2
        head = [1, unit_bytes, n_lines if is_transposed else 0]
        parts.append(np.array(head, np.uint32).view(np.uint8))
        parts.append(chance.integers(0, 256, n_tokens * n_lines * unit_bytes, np.uint8))
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


@st.composite
def models(draw: st.DrawFn) -> tuple[list[Shape], int]:
    """The blocks of a model, K then V, alike or not; and whether V is transposed."""
    n_layers = draw(st.integers(1, 4))
    sizes = st.integers(1, 9)
    rows = st.lists(sizes, min_size=n_layers, max_size=n_layers) | sizes.map(
        lambda size: [size] * n_layers
    )
    v_transposed = draw(st.integers(0, 1))
    n_lines = draw(rows) if v_transposed else [1] * n_layers
    keys = [(1, size) for size in draw(rows)]
    return keys + list(zip(n_lines, draw(rows), strict=True)), v_transposed


@settings(max_examples=80, deadline=None)
@given(model=models(), n_tokens=st.integers(1, 100), slot=st.integers(0, 3), seed=st.integers(0, 9))
def test_pages_cut_from_a_state_join_to_the_same_state_in_another_slot(
    model: tuple[list[Shape], int], n_tokens: int, slot: int, seed: int
) -> None:
    shapes, v_transposed = model
    make = partial(
        state_of, shapes, n_tokens=n_tokens, n_slots=4, v_transposed=v_transposed, seed=seed
    )
    state = make(slot=slot)
    layout = probe(state, slot=slot, n_slots=4, n_tokens=n_tokens)
    assert layout.state_bytes(n_tokens) == state.nbytes
    pages = pages_of(layout, state, slot=slot, n_tokens=n_tokens)
    joined = join(layout, pages, n_tokens=n_tokens, out=np.zeros(state.nbytes + 7, np.uint8))
    assert joined.tobytes() == make(slot=3).tobytes()


@settings(max_examples=40, deadline=None)
@given(model=models(), n_tokens=st.integers(2, 100), share=st.floats(0, 1))
def test_a_prefix_of_the_pages_is_the_state_of_the_prefix(
    model: tuple[list[Shape], int], n_tokens: int, share: float
) -> None:
    shapes, v_transposed = model
    state = state_of(shapes, n_tokens=n_tokens, slot=0, n_slots=1, v_transposed=v_transposed)
    layout = probe(state, slot=0, n_slots=1, n_tokens=n_tokens)
    n_kept = max(1, int(n_tokens * share))
    pages = pages_of(layout, state, slot=0, n_tokens=n_tokens)[: -(-n_kept // PAGE_TOKENS)]
    joined = join(layout, pages, n_tokens=n_kept, out=np.zeros(state.nbytes, np.uint8))
    kept = probe(joined, slot=0, n_slots=1, n_tokens=n_kept)
    whole_lines = layout.lines(state, slot=0, n_tokens=n_tokens)
    kept_lines = kept.lines(joined, slot=0, n_tokens=n_kept)
    for whole, part, run in zip(whole_lines, kept_lines, layout.runs, strict=True):
        assert part.tobytes() == whole[..., : n_kept * run.unit_bytes].tobytes()


def test_blocks_that_are_alike_are_one_run() -> None:
    shapes = [(1, 4)] * 3 + [(2, 2)] * 3
    state = state_of(shapes, n_tokens=3, slot=0, n_slots=1, v_transposed=1)
    layout = probe(state, slot=0, n_slots=1, n_tokens=3)
    assert [(run.n_blocks, run.n_lines, run.unit_bytes) for run in layout.runs] == [
        (3, 1, 4),
        (3, 2, 2),
    ]


@settings(max_examples=60, deadline=None)
@given(
    where=st.integers(0, 200),
    value=st.integers(1, 255),
    cut_at=st.integers(0, 400),
    v_transposed=st.integers(0, 1),
)
def test_a_state_that_is_not_as_expected_is_never_taken_for_one_that_is(
    where: int, value: int, cut_at: int, v_transposed: int
) -> None:
    shapes = [(1, 2), (2, 1) if v_transposed else (1, 2)]
    state = state_of(shapes, n_tokens=5, slot=1, n_slots=3, v_transposed=v_transposed)
    layout = probe(state, slot=1, n_slots=3, n_tokens=5)
    with pytest.raises(UnknownLayout):
        probe(state[: min(cut_at, state.nbytes - 1)], slot=1, n_slots=3, n_tokens=5)
    changed = state.copy()
    changed[where % state.nbytes] ^= value
    try:
        found = probe(changed, slot=1, n_slots=3, n_tokens=5)
    except UnknownLayout:
        return
    assert found.token_bytes == layout.token_bytes, "only rows, magic, sequence or type may differ"


def test_an_unknown_way_to_keep_v_is_refused() -> None:
    state = state_of([(1, 2), (1, 2)], n_tokens=1, slot=0, n_slots=1, v_transposed=2)
    with pytest.raises(UnknownLayout, match="v_transposed 2"):
        probe(state, slot=0, n_slots=1, n_tokens=1)
