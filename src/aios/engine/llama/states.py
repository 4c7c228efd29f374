"""Whole states of sequences, for models whose cells cannot be paged: sliding windows, recurrent layers, unknown layouts.

A state is the bytes that llama.cpp writes for a slot, and it is only of use to a sequence that begins with exactly its tokens.
So nothing is shared but whole beginnings, and nothing goes to disk; but what was suspended goes on exactly where it was.
"""

from collections import Counter, OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from aios.engine.llama.binding import Context
from aios.engine.llama.keeping import NOTHING, Kept, new_pin
from aios.engine.llama.sampling import Tokens

if TYPE_CHECKING:
    from aios.engine.llama.kvstate import Bytes

MIN_TOKENS = 16
"""Shorter sequences are computed again, unless they are suspended."""


class States:
    """States of a context, by the tokens that they hold: an `aios.engine.llama.keeping.Keeper`.

    Args:
        context: Whose slots they come from and go to.
        budget_bytes: Memory for all of them; the one that was used the longest ago goes first, pinned ones never.
    """

    def __init__(self, context: Context, budget_bytes: int) -> None:
        self._context = context
        self._budget_bytes = budget_bytes
        self._states: OrderedDict[bytes, Bytes] = OrderedDict()
        self._n_bytes = 0
        self._pins: dict[str, bytes] = {}
        self._counts: Counter[bytes] = Counter()
        self._lock = Lock()

    def n_stored(self, tokens: Tokens, *, n_kept: int = 0) -> int:  # noqa: ARG002 - every state is exact to the token
        with self._lock:
            return len(self._find(tokens)) // tokens.itemsize

    def load(self, slot: int, tokens: Tokens, *, n_kept: int = 0) -> int:  # noqa: ARG002
        with self._lock:
            key = self._find(tokens)
            if not key:
                return 0
            self._states.move_to_end(key)
            state = self._states[key]
        return len(key) // tokens.itemsize if self._context.load(slot, state) else 0

    def save(self, slot: int, tokens: Tokens) -> None:
        if len(tokens) >= MIN_TOKENS:
            self._save(slot, tokens)

    def pages(self, tokens: Tokens) -> tuple[bytes, ...]:  # noqa: ARG002 - the contract of all keepers
        return ()

    def suspend(self, slot: int, tokens: Tokens) -> Kept:
        if not len(tokens):
            return NOTHING
        kept = Kept(new_pin(), len(tokens))
        key = tokens.tobytes()
        with self._lock:
            self._pins[kept.pin] = key
            self._counts[key] += 1
        self._save(slot, tokens)
        return kept

    def unpin(self, pin: str) -> None:
        with self._lock:
            key = self._pins.pop(pin, None)
            if key is not None:
                self._counts[key] -= 1
                if not self._counts[key]:
                    del self._counts[key]  # the key is all the tokens

    def is_on_disk(self, tokens: Tokens, *, n_kept: int = 0) -> bool:  # noqa: ARG002
        return False

    def fetch(self, tokens: Tokens, *, n_kept: int = 0) -> None:
        """Nothing to do: all of it is in memory."""

    def flush(self, tokens: Tokens, kept: Kept) -> int:  # noqa: ARG002
        return 0

    def _find(self, tokens: Tokens) -> bytes:
        """The key of the longest state that these tokens begin with; empty if there is none."""
        data = tokens.tobytes()
        lengths = sorted({len(key) for key in self._states if len(key) <= len(data)}, reverse=True)
        return next((data[:n] for n in lengths if data[:n] in self._states), b"")

    def _save(self, slot: int, tokens: Tokens) -> None:
        key = tokens.tobytes()
        with self._lock:
            if key in self._states:
                self._states.move_to_end(key)
                return
        state = np.empty(self._context.state_size_bytes(slot), np.uint8)
        state = state[: self._context.save(slot, state)]
        with self._lock:
            if state.nbytes and self._make_room(state.nbytes):
                self._states[key] = state
                self._n_bytes += state.nbytes

    def _make_room(self, n_bytes: int) -> bool:
        """Drop old states until so many bytes are free. Returns: False if pinned ones leave no room."""
        for key in list(self._states):
            if self._n_bytes + n_bytes <= self._budget_bytes:
                break
            if not self._counts[key]:
                self._n_bytes -= self._states.pop(key).nbytes
        return self._n_bytes + n_bytes <= self._budget_bytes
