"""Between a context's slots and a page store: what a slot holds goes out as pages and comes back as a state.

A page is stored once, when a sequence leaves its slot; a slot is filled from pages when they hold more of a prompt than any
slot does. The last page may be filled in part, so that the next turn computes only what is new. A suspended generation pins
its pages, so that it goes on without computing anything again.
"""

import numpy as np

from aios.engine.base import OpenPages, PageStore
from aios.engine.llama.binding import Batch, Context
from aios.engine.llama.keeping import NOTHING, Kept, new_pin
from aios.engine.llama.kvstate import PAGE_TOKENS, Bytes, Layout, UnknownLayout, cut, join, probe
from aios.engine.llama.sampling import Tokens
from aios.errors import EngineFailed

N_PROBE_TOKENS = 3


class Pager:
    """Moves pages between the slots of one context and a store: an `aios.engine.llama.keeping.Keeper`."""

    def __init__(self, context: Context, layout: Layout, store: PageStore) -> None:
        self._context = context
        self._layout = layout
        self._store = store
        self._state = np.empty(0, np.uint8)
        self.n_saved_pages = 0
        self.n_loaded_pages = 0

    def n_stored(self, tokens: Tokens, *, n_kept: int = 0) -> int:
        return self._find(tokens, n_kept)[1]

    def load(self, slot: int, tokens: Tokens, *, n_kept: int = 0) -> int:
        """Fill a slot from pages. Cost: 12 us a token for a model of 23 kB a token, against 4 ms to compute it."""
        keys, n_tokens = self._find(tokens, n_kept)
        pages = self._store.acquire(keys)
        try:
            if len(pages) < len(keys):
                n_tokens = len(pages) * PAGE_TOKENS
            if not n_tokens:
                return 0
            out = self._memory(self._layout.state_bytes(n_tokens))
            state = join(self._layout, pages, n_tokens=n_tokens, out=out)
            is_loaded = self._context.load(slot, state)
        finally:
            self._store.release(keys[: len(pages)])
        self.n_loaded_pages += len(pages) if is_loaded else 0
        return n_tokens if is_loaded else 0

    def save(self, slot: int, tokens: Tokens) -> None:
        """Store the pages of a slot. Cost: 5 us a token if any is new, and as much for each that is."""
        self._save(slot, tokens, self._store.keys(tokens, tail=True))

    def pages(self, tokens: Tokens) -> tuple[bytes, ...]:
        return tuple(self._store.keys(tokens, tail=True))

    def suspend(self, slot: int, tokens: Tokens) -> Kept:
        if not len(tokens):
            return NOTHING
        kept = Kept(new_pin(), len(tokens))
        keys = self._store.keys(tokens, tail=True)
        self._store.pin(
            kept.pin, keys
        )  # before they are there: none is lost between one and the next
        self._save(slot, tokens, keys)
        return kept

    def unpin(self, pin: str) -> None:
        self._store.unpin(pin)

    def is_on_disk(self, tokens: Tokens, *, n_kept: int = 0) -> bool:
        keys, _ = self._find(tokens, n_kept)
        return self._store.n_resident(keys) < len(keys)

    def fetch(self, tokens: Tokens, *, n_kept: int = 0) -> None:
        keys, _ = self._find(tokens, n_kept)
        self._store.release(keys[: len(self._store.acquire(keys))])

    def flush(self, tokens: Tokens, kept: Kept) -> int:
        keys = self._store.keys(tokens[: kept.n_tokens], tail=True)
        n_pages = self._store.pin(kept.pin, keys, synced=True)
        return kept.n_tokens if n_pages == len(keys) else n_pages * PAGE_TOKENS

    def _find(self, tokens: Tokens, n_kept: int) -> tuple[list[bytes], int]:
        """The longest run of pages that is known, and the tokens in it."""
        keys, n_tokens = self._store.longest(tokens)
        if n_tokens < n_kept:
            exact = self._store.keys(tokens[:n_kept], tail=True)
            if self._store.n_known(exact) == len(exact):
                return exact, n_kept
        return keys, n_tokens

    def _save(self, slot: int, tokens: Tokens, keys: list[bytes]) -> None:
        """Store the pages of a slot whose cells hold exactly these tokens."""
        n_known = self._store.n_known(keys)
        if n_known == len(keys):
            return
        state = self._memory(self._context.state_size_bytes(slot))
        if self._context.save(slot, state) != self._layout.state_bytes(len(tokens)):
            raise EngineFailed("the state of a slot has another size than its tokens need")
        for number in range(n_known, len(keys)):

            def write(page: Bytes, start: int = number * PAGE_TOKENS) -> None:
                cut(
                    self._layout,
                    state,
                    page,
                    slot=slot,
                    n_tokens=len(tokens),
                    start=start,
                    stop=min(start + PAGE_TOKENS, len(tokens)),
                )

            parent = keys[number - 1] if number else None
            if not self._store.add(keys[number], parent, write):
                return  # no room: what follows could not be found either
            self.n_saved_pages += 1

    def _memory(self, n_bytes: int) -> Bytes:
        """Memory that is kept and grows, for it is slow when fresh."""
        if self._state.nbytes < n_bytes:
            self._state = np.zeros(n_bytes + n_bytes // 2, np.uint8)
        return self._state


def open_pager(
    context: Context, *, n_slots: int, fingerprint: str, open_pages: OpenPages
) -> Pager | None:
    """A pager for an empty context, or None when its states are not laid out in a way that can be paged.

    The layout is learned from a small state, and trusted only if that state comes out of its own pages byte by byte.
    """
    slot = n_slots - 1
    batch = Batch(N_PROBE_TOKENS)
    batch.add(slot, 0, np.arange(N_PROBE_TOKENS, dtype=np.int32))
    if not context.decode(batch):
        return None
    state = np.zeros(context.state_size_bytes(slot), np.uint8)
    context.save(slot, state)
    context.keep(slot, 0)
    try:
        layout = probe(state, slot=slot, n_slots=n_slots, n_tokens=N_PROBE_TOKENS)
    except UnknownLayout:
        return None
    page = np.zeros(layout.page_bytes, np.uint8)
    cut(layout, state, page, slot=slot, n_tokens=N_PROBE_TOKENS, start=0, stop=N_PROBE_TOKENS)
    again = join(layout, [page], n_tokens=N_PROBE_TOKENS, out=np.zeros_like(state))
    if again.tobytes() != state.tobytes():
        return None
    store = open_pages(
        fingerprint=fingerprint, page_tokens=PAGE_TOKENS, page_bytes=layout.page_bytes
    )
    return Pager(context, layout, store)
