"""The bytes of a llama.cpp sequence state, cut into pages and joined again.

A *page* is the KV rows of `PAGE_TOKENS` consecutive tokens, of all layers, as one byte string; pages of different sequences
can be joined into one state as long as every page follows the tokens that it was computed after. The layout belongs to
llama.cpp and may change, so `probe` learns it from a state whose content is known, and everything here refuses what it does
not recognise: whoever asks then falls back to whole states.

    magic u32 | sequence i32 | n_streams u32 | for each stream: n_cells u32, and if that is not 0:
        n_cells x (position i32, n_sequences u32 = 1, sequence i32) | v_transposed u32 = 0 | n_layers u32
        n_layers x (K type i32, row bytes u64, n_cells rows) | n_layers x (V type i32, row bytes u64, n_cells rows)

Pure: numpy arrays in, numpy arrays out. Source: llama.cpp, `llama_kv_cache::state_write`; paging of the KV cache follows
vLLM (arXiv 2309.06180), its use for context switches AIOS (arXiv 2403.16971).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

PAGE_TOKENS = 32

_WORD = 4
_CELL_BYTES = 3 * _WORD
_BLOCK_HEAD_BYTES = 3 * _WORD
_MAX_LAYERS = 10_000


class UnknownLayout(Exception):
    """The bytes are not laid out as this file knows it: use whole states."""


@dataclass(frozen=True)
class Layout:
    """How a state of one model, in one kind of context, is laid out.

    `heads` are the first bytes of each block (type and row size); `row_bytes` their rows: K of all layers, then V.
    """

    magic: int
    n_streams: int
    heads: tuple[bytes, ...]
    row_bytes: tuple[int, ...]

    @property
    def token_bytes(self) -> int:
        """KV bytes of one token in a page."""
        return sum(self.row_bytes)

    @property
    def page_bytes(self) -> int:
        """Bytes of a full page."""
        return PAGE_TOKENS * self.token_bytes

    def state_bytes(self, n_tokens: int) -> int:
        """Bytes of a whole state."""
        head = (3 + self.n_streams) * _WORD + n_tokens * _CELL_BYTES + 2 * _WORD
        return head + len(self.heads) * _BLOCK_HEAD_BYTES + n_tokens * self.token_bytes

    def blocks(self, state: Bytes, *, slot: int, n_tokens: int) -> list[Bytes]:
        """The rows of each block of a state, as views: (n_tokens * row_bytes,)."""
        offset = (4 + slot) * _WORD + n_tokens * _CELL_BYTES + 2 * _WORD
        views: list[Bytes] = []
        for row_bytes in self.row_bytes:
            offset += _BLOCK_HEAD_BYTES
            views.append(state[offset : offset + n_tokens * row_bytes])
            offset += n_tokens * row_bytes
        return views

    def page_blocks(self, page: Bytes) -> list[Bytes]:
        """The rows of each block of a page, as views: (PAGE_TOKENS * row_bytes,)."""
        offset = 0
        views: list[Bytes] = []
        for row_bytes in self.row_bytes:
            views.append(page[offset : offset + PAGE_TOKENS * row_bytes])
            offset += PAGE_TOKENS * row_bytes
        return views


def probe(state: Bytes, *, slot: int, n_slots: int, n_tokens: int) -> Layout:
    """Learn the layout from the state of a slot that holds positions 0 to `n_tokens` - 1.

    Raises:
        UnknownLayout: Anything at all is not as expected.
    """
    words = _words(state, 0, 3 + n_slots)
    magic, _, n_streams = (int(word) for word in words[:3])
    if n_streams != n_slots or any(words[3 : 3 + slot]) or words[3 + slot] != n_tokens:
        raise UnknownLayout(
            f"head {words.tolist()} does not tell of {n_tokens} cells in slot {slot}"
        )
    offset = (4 + slot) * _WORD
    cells = _words(state, offset, 3 * n_tokens).reshape(n_tokens, 3)
    expected = [[position, 1, slot] for position in range(n_tokens)]
    if cells.tolist() != expected:
        raise UnknownLayout("the cells are not one for each position in order")
    offset += n_tokens * _CELL_BYTES
    v_transposed, n_layers = (int(word) for word in _words(state, offset, 2))
    if v_transposed or not 0 < n_layers < _MAX_LAYERS:
        raise UnknownLayout(f"v_transposed {v_transposed}, n_layers {n_layers}")
    offset += 2 * _WORD
    heads: list[bytes] = []
    sizes: list[int] = []
    for _ in range(2 * n_layers):
        head = _words(state, offset, 3)
        row_bytes = int(head[1]) | int(head[2]) << 32
        heads.append(head.tobytes())
        sizes.append(row_bytes)
        offset += _BLOCK_HEAD_BYTES + n_tokens * row_bytes
    rest = _words(state, offset, n_slots - 1 - slot)
    if any(rest) or offset + rest.nbytes != state.nbytes:
        raise UnknownLayout(f"{state.nbytes} bytes where {offset + rest.nbytes} are expected")
    return Layout(magic, n_streams, tuple(heads), tuple(sizes))


def cut(
    layout: Layout, state: Bytes, page: Bytes, *, slot: int, n_tokens: int, start: int, stop: int
) -> None:
    """Copy the rows of tokens `start` to `stop` of a state into the first rows of a page.

    `slot` and `n_tokens` are those with which the state was saved. Cost: one strided copy.
    """
    assert 0 <= start < stop <= n_tokens
    assert stop - start <= PAGE_TOKENS
    grids = _grids(layout, state, slot=slot, n_tokens=n_tokens, page=page)
    if grids is not None:
        rows, page_rows, row_bytes = grids
        page_rows[:, : (stop - start) * row_bytes] = rows[:, start * row_bytes : stop * row_bytes]
        return
    blocks = layout.blocks(state, slot=slot, n_tokens=n_tokens)
    pairs = zip(blocks, layout.page_blocks(page), layout.row_bytes, strict=True)
    for source, target, row_bytes in pairs:
        target[: (stop - start) * row_bytes] = source[start * row_bytes : stop * row_bytes]


def join(layout: Layout, pages: Sequence[Bytes], *, n_tokens: int, out: Bytes) -> Bytes:
    """Make one state of pages that follow each other; the last may be filled in part.

    Args:
        layout: That of the context which the state is for.
        pages: In order; all but the last hold `PAGE_TOKENS` tokens.
        n_tokens: Tokens in all of them.
        out: Memory for `layout.state_bytes(n_tokens)`; touched before, it is five times as fast.

    Returns: The part of `out` that holds the state; any slot can load it.
    """
    assert (len(pages) - 1) * PAGE_TOKENS < n_tokens <= len(pages) * PAGE_TOKENS
    state = out[: layout.state_bytes(n_tokens)]
    slot = layout.n_streams - 1
    _write_heads(layout, state, slot=slot, n_tokens=n_tokens)
    blocks = None
    for number, page in enumerate(pages):
        start = number * PAGE_TOKENS
        n_rows = min(PAGE_TOKENS, n_tokens - start)
        grids = _grids(layout, state, slot=slot, n_tokens=n_tokens, page=page)
        if grids is not None:
            rows, page_rows, row_bytes = grids
            rows[:, start * row_bytes : (start + n_rows) * row_bytes] = page_rows[
                :, : n_rows * row_bytes
            ]
            continue
        blocks = blocks or layout.blocks(state, slot=slot, n_tokens=n_tokens)
        pairs = zip(blocks, layout.page_blocks(page), layout.row_bytes, strict=True)
        for target, source, row_bytes in pairs:
            target[start * row_bytes : (start + n_rows) * row_bytes] = source[: n_rows * row_bytes]
    return state


def _write_heads(layout: Layout, state: Bytes, *, slot: int, n_tokens: int) -> None:
    """Write everything but the rows."""
    head = np.zeros(4 + slot, np.uint32)
    head[0], head[1], head[2], head[-1] = layout.magic, slot, layout.n_streams, n_tokens
    cells = np.empty((n_tokens, 3), np.int32)
    cells[:, 0], cells[:, 1], cells[:, 2] = np.arange(n_tokens), 1, slot
    tail = np.array([0, len(layout.heads) // 2], np.uint32)
    start = np.concatenate(
        [head.view(np.uint8), cells.reshape(-1).view(np.uint8), tail.view(np.uint8)]
    )
    state[: start.nbytes] = start
    offset = start.nbytes
    for block_head, row_bytes in zip(layout.heads, layout.row_bytes, strict=True):
        state[offset : offset + _BLOCK_HEAD_BYTES] = np.frombuffer(block_head, np.uint8)
        offset += _BLOCK_HEAD_BYTES + n_tokens * row_bytes


def _grids(
    layout: Layout, state: Bytes, *, slot: int, n_tokens: int, page: Bytes
) -> tuple[Bytes, Bytes, int] | None:
    """State and page as (n_blocks, bytes) grids, so that one copy does all blocks; None if their rows differ in size."""
    row_bytes = layout.row_bytes[0]
    if any(other != row_bytes for other in layout.row_bytes):
        return None
    n_blocks = len(layout.row_bytes)
    offset = (4 + slot) * _WORD + n_tokens * _CELL_BYTES + 2 * _WORD + _BLOCK_HEAD_BYTES
    rows = as_strided(
        state[offset:],
        shape=(n_blocks, n_tokens * row_bytes),
        strides=(_BLOCK_HEAD_BYTES + n_tokens * row_bytes, 1),
    )
    return rows, page.reshape(n_blocks, PAGE_TOKENS * row_bytes), row_bytes


def _words(state: Bytes, offset: int, n: int) -> NDArray[np.uint32]:
    end = offset + n * _WORD
    if end > state.nbytes:
        raise UnknownLayout(f"the state ends at {state.nbytes}, before {end}")
    return state[offset:end].copy().view(np.uint32)
