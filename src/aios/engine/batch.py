"""The next step of an engine: who is in the batch, and with which tokens. Pure: no clock, no I/O, no model.

A sequence has tokens, and the first `n_computed` of them are in its slot's cells. One missing: it *decodes*, and the step
brings its next token. More missing: it is in *prefill*. The two are never in one batch: with a stream of cells for each
sequence llama.cpp cuts a batch into pieces of equal length, so a long piece among single tokens gains nothing and delays
them all. It also cuts where the slots do not follow each other, which costs a pass over the weights: pieces come by slot.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from msgspec import Struct

MIN_REST_TOKENS = 32
"""A sequence that shares a prefill step is left with nothing, or with at least this much: small pieces are slow."""


class Progress(Struct, frozen=True):
    """A sequence in a slot: `n_computed` of its `n_tokens` are in its cells. Always `n_computed < n_tokens`.

    What is urgent goes before what is not: its prefill is first, and its decoding is held up less.
    """

    slot: int
    n_tokens: int
    n_computed: int
    is_urgent: bool = False

    @property
    def n_missing(self) -> int:
        """Tokens to compute before the next one can be sampled."""
        return self.n_tokens - self.n_computed


class Piece(Struct, frozen=True):
    """Tokens `start` to `end` of the sequence in `slot`."""

    slot: int
    start: int
    end: int


class Step(Struct, frozen=True):
    """One batch, in the order of slots: prefill pieces of one length, or one token for each of many sequences."""

    pieces: tuple[Piece, ...]
    is_prefill: bool

    @property
    def n_tokens(self) -> int:
        """Tokens in the batch."""
        return sum(piece.end - piece.start for piece in self.pieces)


URGENT_WAITS = 16
"""Decode steps in a row for urgent sequences while another waits in prefill, half as many while two do, and so on: urgent ones are
short, but each that waits is one token less in every step."""


@dataclass
class Batcher:
    """Decides step after step; remembers only which kind of step is due.

    When both kinds have work, `n_decodes` decode steps follow each prefill step of at most `chunk_tokens`: neither
    starves the other. Prefill goes by age, the urgent first: the first sequence takes what it needs, and the others share
    the step if there is room for a piece of the same length. While an urgent sequence decodes, others begin a prefill step
    only after several decode steps (`URGENT_WAITS`).

    Args:
        chunk_tokens: The most that a prefill step computes; the longest that a decoding sequence is held up.
        n_decodes: Decode steps between two prefill steps.
    """

    chunk_tokens: int
    n_decodes: int
    n_decoded: int = URGENT_WAITS
    """Decode steps since the last prefill step."""

    def __post_init__(self) -> None:
        assert self.chunk_tokens > 0
        assert self.n_decodes > 0  # else newcomers that keep coming would starve who decodes

    def is_prefill_due(self, sequences: Sequence[Progress]) -> bool:
        """Whether the next step should be a prefill step: the time to look for prefixes that can be shared."""
        decoding = [s for s in sequences if s.n_missing == 1]
        return self._is_prefill_due(decoding, [s for s in sequences if s.n_missing > 1])

    def next_step(
        self, sequences: Sequence[Progress], held: Collection[int] = frozenset()
    ) -> Step | None:
        """The next batch, or None when nobody has work.

        Args:
            sequences: One for each slot in use, the urgent first, then the oldest.
            held: Slots that are to wait, since another sequence computes the same prefix; never the first in prefill.
        """
        decoding = [s for s in sequences if s.n_missing == 1]
        filling = [s for s in sequences if s.n_missing > 1 and s.slot not in held]
        if self._is_prefill_due(decoding, filling):
            self.n_decoded = 0
            return Step(_by_slot(_prefill(filling, self.chunk_tokens)), is_prefill=True)
        if decoding:
            self.n_decoded += 1
            pieces = (Piece(s.slot, s.n_computed, s.n_tokens) for s in decoding)
            return Step(_by_slot(pieces), is_prefill=False)
        return None

    def _is_prefill_due(self, decoding: Sequence[Progress], filling: Sequence[Progress]) -> bool:
        if not filling or not decoding:
            return bool(filling)
        is_held_up = any(s.is_urgent for s in decoding) and not filling[0].is_urgent
        n_held_up = len(filling) if is_held_up else 0
        return self.n_decoded >= n_decodes_before_prefill(self.n_decodes, n_held_up)


def n_decodes_before_prefill(n_decodes: int, n_held_up: int) -> int:
    """Decode steps between two prefill steps, while so many sequences wait in prefill for urgent ones to decode."""
    return max(n_decodes, URGENT_WAITS // n_held_up) if n_held_up else n_decodes


def _prefill(filling: Sequence[Progress], chunk_tokens: int) -> Iterator[Piece]:
    """Pieces of one length that fill a chunk: first the oldest sequence's, whose need sets the length."""
    oldest = filling[0]
    length = min(oldest.n_missing, chunk_tokens)
    n_free = chunk_tokens
    for sequence in filling:
        rest = sequence.n_missing - length
        if length <= n_free and (sequence is oldest or rest == 0 or rest >= MIN_REST_TOKENS):
            n_free -= length
            yield Piece(sequence.slot, sequence.n_computed, sequence.n_computed + length)


def _by_slot(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    return tuple(sorted(pieces, key=lambda piece: piece.slot))
