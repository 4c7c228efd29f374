"""The next step of an engine: who is in the batch, and with which tokens. Pure: no clock, no I/O, no model.

A sequence has tokens, and the first `n_computed` of them are in its slot's cells. One missing: it *decodes*, and the step
brings its next token. More missing: it is in *prefill*. The two are never in one batch: with a stream of cells for each
sequence llama.cpp cuts a batch into pieces of equal length, so a long piece among single tokens gains nothing and delays
them all. It also cuts where the slots do not follow each other, which costs a pass over the weights: pieces come by slot.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

MIN_REST_TOKENS = 32
"""A sequence that shares a prefill step is left with nothing, or with at least this much: small pieces are slow."""


@dataclass(frozen=True)
class Progress:
    """A sequence in a slot: `n_computed` of its `n_tokens` are in its cells. Always `n_computed < n_tokens`."""

    slot: int
    n_tokens: int
    n_computed: int

    @property
    def n_missing(self) -> int:
        """Tokens to compute before the next one can be sampled."""
        return self.n_tokens - self.n_computed


@dataclass(frozen=True)
class Piece:
    """Tokens `start` to `end` of the sequence in `slot`."""

    slot: int
    start: int
    end: int


@dataclass(frozen=True)
class Step:
    """One batch, in the order of slots: prefill pieces of one length, or one token for each of many sequences."""

    pieces: tuple[Piece, ...]
    is_prefill: bool

    @property
    def n_tokens(self) -> int:
        """Tokens in the batch."""
        return sum(piece.end - piece.start for piece in self.pieces)


@dataclass
class Batcher:
    """Decides step after step; remembers only which kind of step is due.

    When both kinds have work, `n_decodes` decode steps follow each prefill step of at most `chunk_tokens`: neither
    starves the other. Prefill goes by age: the oldest sequence takes what it needs, and younger ones share the step if
    there is room for a piece of the same length.

    Args:
        chunk_tokens: The most that a prefill step computes; the longest that a decoding sequence is held up.
        n_decodes: Decode steps between two prefill steps.
    """

    chunk_tokens: int
    n_decodes: int
    n_decodes_due: int = 0

    def __post_init__(self) -> None:
        assert self.chunk_tokens > 0
        assert self.n_decodes > 0  # else newcomers that keep coming would starve who decodes

    def is_prefill_due(self, sequences: Sequence[Progress]) -> bool:
        """Whether the next step should be a prefill step: the time to look for prefixes that can be shared."""
        is_decoding = any(s.n_missing == 1 for s in sequences)
        is_filling = any(s.n_missing > 1 for s in sequences)
        return is_filling and not (is_decoding and self.n_decodes_due)

    def next_step(
        self, sequences: Sequence[Progress], held: Collection[int] = frozenset()
    ) -> Step | None:
        """The next batch, or None when nobody has work.

        Args:
            sequences: One for each slot in use, oldest first.
            held: Slots that are to wait, since another sequence computes the same prefix; never the oldest in prefill.
        """
        decoding = [s for s in sequences if s.n_missing == 1]
        filling = [s for s in sequences if s.n_missing > 1 and s.slot not in held]
        if filling and not (decoding and self.n_decodes_due):
            self.n_decodes_due = self.n_decodes
            return Step(_by_slot(_prefill(filling, self.chunk_tokens)), is_prefill=True)
        if decoding:
            self.n_decodes_due = max(0, self.n_decodes_due - 1)
            pieces = (Piece(s.slot, s.n_computed, s.n_tokens) for s in decoding)
            return Step(_by_slot(pieces), is_prefill=False)
        return None


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
