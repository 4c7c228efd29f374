"""The bytes of a llama.cpp sequence state, cut into pages and joined again.

A *page* is the KV rows of `PAGE_TOKENS` consecutive tokens, of all layers, as one byte string; pages of different sequences
can be joined into one state as long as every page follows the tokens that it was computed after. The layout belongs to
llama.cpp and may change, so `probe` learns it from a state whose content is known, and everything here refuses what it does
not recognise: whoever asks then falls back to whole states.

    magic u32 | sequence i32 | n_streams u32 | for each stream: n_cells u32, and if that is not 0:
        n_cells x (position i32, n_sequences u32 = 1, sequence i32) | v_transposed u32 | n_layers u32
        n_layers x K block | n_layers x V block

    K block, V block:        type i32, row bytes u64           | n_cells rows
    V block, v_transposed:   type i32, number bytes u32, n u32 | n lines of n_cells numbers

So a block is a head and `n_lines` lines, each with a *unit* of bytes for every cell; rows are one line of long units. A page has
the same lines, of its own cells only, without heads.

Pure: numpy arrays in, numpy arrays out. Source: llama.cpp, `llama_kv_cache::state_write`; paging of the KV cache follows
vLLM (arXiv 2309.06180), its use for context switches AIOS (arXiv 2403.16971).
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Pieces = NDArray[np.void]

PAGE_TOKENS = 32

_WORD = 4
_CELL_BYTES = 3 * _WORD
_BLOCK_HEAD_BYTES = 3 * _WORD
_MAX_LAYERS = 10_000


class UnknownLayout(Exception):
    """The bytes are not laid out as this file knows it: use whole states."""


class Blocks(Struct, frozen=True):
    """`n_blocks` blocks in a row that are shaped alike.

    `head` are the first bytes of each: type and sizes. Then come `n_lines` lines with `unit_bytes` for every cell.
    """

    head: bytes
    n_lines: int
    unit_bytes: int
    n_blocks: int = 1

    @property
    def token_bytes(self) -> int:
        """Bytes of one token in all of them."""
        return self.n_blocks * self.n_lines * self.unit_bytes


class Layout(Struct, frozen=True):
    """How a state of one model, in one kind of context, is laid out: K of all layers, then V."""

    magic: int
    n_streams: int
    v_transposed: int
    runs: tuple[Blocks, ...]

    @property
    def n_blocks(self) -> int:
        """K and V of each layer."""
        return sum(run.n_blocks for run in self.runs)

    @property
    def token_bytes(self) -> int:
        """KV bytes of one token in a page."""
        return sum(run.token_bytes for run in self.runs)

    @property
    def page_bytes(self) -> int:
        """Bytes of a full page."""
        return PAGE_TOKENS * self.token_bytes

    def start_bytes(self, slot: int, n_tokens: int) -> int:
        """Bytes before the first block of the state of a slot."""
        return (4 + slot) * _WORD + n_tokens * _CELL_BYTES + 2 * _WORD

    def state_bytes(self, n_tokens: int) -> int:
        """Bytes of a whole state."""
        rows = self.n_blocks * _BLOCK_HEAD_BYTES + n_tokens * self.token_bytes
        return self.start_bytes(self.n_streams - 1, n_tokens) + rows

    def lines(self, state: Bytes, *, slot: int, n_tokens: int) -> list[Bytes]:
        """The lines of a state, one view for each run: (n_blocks, n_lines, n_tokens * unit_bytes)."""
        start = self.start_bytes(slot, n_tokens)
        return self._views(state[start:], n_tokens, head_bytes=_BLOCK_HEAD_BYTES)

    def page_lines(self, page: Bytes) -> list[Bytes]:
        """The lines of a page, one view for each run: (n_blocks, n_lines, PAGE_TOKENS * unit_bytes)."""
        return self._views(page, PAGE_TOKENS, head_bytes=0)

    def _views(self, data: Bytes, n_tokens: int, *, head_bytes: int) -> list[Bytes]:
        assert data.nbytes >= self.n_blocks * head_bytes + n_tokens * self.token_bytes
        views: list[Bytes] = []
        offset = 0
        for run in self.runs:
            line_bytes = n_tokens * run.unit_bytes
            block_bytes = head_bytes + run.n_lines * line_bytes
            shape = (run.n_blocks, run.n_lines, line_bytes)
            strides = (block_bytes, line_bytes, 1)
            views.append(np.ndarray(shape, np.uint8, data, offset + head_bytes, strides))
            offset += run.n_blocks * block_bytes
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
    if v_transposed > 1 or not 0 < n_layers < _MAX_LAYERS:
        raise UnknownLayout(f"v_transposed {v_transposed}, n_layers {n_layers}")
    offset += 2 * _WORD
    blocks: list[Blocks] = []
    for number in range(2 * n_layers):
        head = _words(state, offset, 3)
        blocks.append(_block(head, are_lines=bool(v_transposed) and number >= n_layers))
        offset += _BLOCK_HEAD_BYTES + n_tokens * blocks[-1].token_bytes
    rest = _words(state, offset, n_slots - 1 - slot)
    if any(rest) or offset + rest.nbytes != state.nbytes:
        raise UnknownLayout(f"{state.nbytes} bytes where {offset + rest.nbytes} are expected")
    return Layout(magic, n_streams, v_transposed, runs_of(blocks))


def runs_of(blocks: Sequence[Blocks]) -> tuple[Blocks, ...]:
    """Neighbours that are alike as one run: a run is copied at once."""
    runs: list[Blocks] = []
    for block in blocks:
        if runs and replace(runs[-1], n_blocks=1) == block:
            runs[-1] = replace(block, n_blocks=runs[-1].n_blocks + 1)
        else:
            runs.append(block)
    return tuple(runs)


def cut(
    layout: Layout, state: Bytes, page: Bytes, *, slot: int, n_tokens: int, start: int, stop: int
) -> None:
    """Copy the rows of tokens `start` to `stop` of a state into the first rows of a page.

    `slot` and `n_tokens` are those with which the state was saved. Cost: one strided copy for each run.
    """
    assert 0 <= start < stop <= n_tokens
    assert stop - start <= PAGE_TOKENS
    lines = layout.lines(state, slot=slot, n_tokens=n_tokens)
    for source, target, run in zip(lines, layout.page_lines(page), layout.runs, strict=True):
        _pieces(target, run, 0, stop - start)[:] = _pieces(source, run, start, stop)


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
    lines = layout.lines(state, slot=slot, n_tokens=n_tokens)
    by_page = [layout.page_lines(page) for page in pages]
    starts = range(0, n_tokens, PAGE_TOKENS)
    for target, sources, run in zip(lines, zip(*by_page, strict=True), layout.runs, strict=True):
        # Many short lines go block by block over one that stays in the processor's cache: each is written a piece at a time.
        is_lines = run.n_lines > 1
        near = np.empty((1, *target.shape[1:]), np.uint8) if is_lines else target
        pairs: list[tuple[Pieces, Pieces]] = []
        for source, start in zip(sources, starts, strict=True):
            stop = min(start + PAGE_TOKENS, n_tokens)
            pairs.append((_pieces(near, run, start, stop), _pieces(source, run, 0, stop - start)))
        n_at_once = len(near)
        for block in range(0, run.n_blocks, n_at_once):
            for into, pieces in pairs:
                into[:] = pieces[block : block + n_at_once]
            if is_lines:
                target[block] = near[0]
    return state


def _pieces(lines: Bytes, run: Blocks, start: int, stop: int) -> Pieces:
    """Tokens `start` to `stop` of all lines, (n_blocks, n_lines): copied piece by piece, and not byte by byte."""
    part = lines[..., start * run.unit_bytes : stop * run.unit_bytes]
    return part.view(np.dtype((np.void, part.shape[-1])))[..., 0]


def _write_heads(layout: Layout, state: Bytes, *, slot: int, n_tokens: int) -> None:
    """Write everything but the rows."""
    head = np.zeros(4 + slot, np.uint32)
    head[0], head[1], head[2], head[-1] = layout.magic, slot, layout.n_streams, n_tokens
    cells = np.empty((n_tokens, 3), np.int32)
    cells[:, 0], cells[:, 1], cells[:, 2] = np.arange(n_tokens), 1, slot
    tail = np.array([layout.v_transposed, layout.n_blocks // 2], np.uint32)
    start = np.concatenate(
        [head.view(np.uint8), cells.reshape(-1).view(np.uint8), tail.view(np.uint8)]
    )
    state[: start.nbytes] = start
    offset = start.nbytes
    for run in layout.runs:
        step = _BLOCK_HEAD_BYTES + n_tokens * run.n_lines * run.unit_bytes
        heads = np.ndarray((run.n_blocks, _BLOCK_HEAD_BYTES), np.uint8, state, offset, (step, 1))
        heads[:] = np.frombuffer(run.head, np.uint8)
        offset += run.n_blocks * step


def _block(head: NDArray[np.uint32], *, are_lines: bool) -> Blocks:
    """One block, by its head: of numbers by line, or of rows."""
    if are_lines:
        return Blocks(head.tobytes(), n_lines=int(head[2]), unit_bytes=int(head[1]))
    return Blocks(head.tobytes(), n_lines=1, unit_bytes=int(head[1]) | int(head[2]) << 32)


def _words(state: Bytes, offset: int, n: int) -> NDArray[np.uint32]:
    end = offset + n * _WORD
    if end > state.nbytes:
        raise UnknownLayout(f"the state ends at {state.nbytes}, before {end}")
    return state[offset:end].copy().view(np.uint32)
