"""Which notes are nearest to a vector: the signs of all vectors in memory, 32 bytes a note of 256 dimensions.

Notes whose signs differ least from the query's are the candidates; whoever asks then compares their whole vectors. Over 100,000
notes a search takes 1 to 2 ms; sqlite-vec takes 10 ms for the same candidates (docs/adr/0007).

One thread adds, any may search: a search works on what was published last.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aios.kernel.memory.embedding import Vectors

MIN_ROWS = 1_024
WORD_BITS = 64


@dataclass(frozen=True)
class Rows:
    """What was published: the first `n` columns of `signs`, and the note and space of each."""

    signs: npt.NDArray[np.uint64]
    notes: npt.NDArray[np.int64]
    spaces: npt.NDArray[np.int64]
    n: int


class SignIndex:
    """The signs of the vectors of one embedder."""

    def __init__(self, n_dims: int) -> None:
        self._n_words = -(-n_dims // WORD_BITS)
        self._rows = self._empty(MIN_ROWS)

    def __len__(self) -> int:
        return self._rows.n

    def add(self, notes: Collection[int], spaces: Collection[int], vectors: Vectors) -> None:
        """Add notes with their spaces and vectors, one row each."""
        rows, n_new = self._rows, len(notes)
        if rows.n + n_new > len(rows.notes):
            rows = self._grown(rows, rows.n + n_new)
        end = rows.n + n_new
        rows.signs[:, rows.n : end] = self._signs(vectors)
        rows.notes[rows.n : end] = list(notes)
        rows.spaces[rows.n : end] = list(spaces)
        self._rows = Rows(rows.signs, rows.notes, rows.spaces, end)

    def remove(self, notes: Collection[int]) -> None:
        """No longer find these notes."""
        rows = self._rows
        gone = np.isin(rows.notes[: rows.n], list(notes))
        rows.spaces[: rows.n][gone] = 0  # no space has this number

    def nearest(
        self,
        vector: Vectors,
        spaces: Collection[int],
        *,
        limit: int,
        among: Collection[int] | None = None,
    ) -> list[int]:
        """At most `limit` notes of these spaces (of `among`, if given) whose signs differ least; in no order."""
        rows = self._rows
        signs = self._signs(vector.reshape(1, -1))
        distances = np.zeros(rows.n, dtype=np.uint16)
        for word, mine in zip(rows.signs, signs, strict=True):
            distances += np.bitwise_count(word[: rows.n] ^ mine[0])
        allowed = np.isin(rows.spaces[: rows.n], list(spaces))
        if among is not None:
            allowed &= np.isin(rows.notes[: rows.n], list(among))
        candidates = np.flatnonzero(allowed)
        if len(candidates) > limit:
            chosen = np.argpartition(distances[candidates], limit)[:limit]
            candidates = candidates[chosen]
        return [int(note) for note in rows.notes[candidates]]

    def check_invariants(self) -> None:
        """Raise AssertionError if a living note has two rows."""
        rows = self._rows
        living = rows.notes[: rows.n][rows.spaces[: rows.n] > 0]
        assert len(np.unique(living)) == len(living), "a note has two vectors"

    def _signs(self, vectors: Vectors) -> npt.NDArray[np.uint64]:
        """One column a vector, one row each 64 dimensions."""
        packed = np.packbits(vectors > 0, axis=1)
        padded = np.zeros((len(vectors), self._n_words * WORD_BITS // 8), dtype=np.uint8)
        padded[:, : packed.shape[1]] = packed
        return padded.view(np.uint64).T

    def _empty(self, n_rows: int) -> Rows:
        return Rows(
            np.zeros((self._n_words, n_rows), dtype=np.uint64),
            np.zeros(n_rows, dtype=np.int64),
            np.zeros(n_rows, dtype=np.int64),
            0,
        )

    def _grown(self, rows: Rows, n_least: int) -> Rows:
        grown = self._empty(max(n_least, 2 * len(rows.notes)))
        grown.signs[:, : rows.n] = rows.signs[:, : rows.n]
        grown.notes[: rows.n] = rows.notes[: rows.n]
        grown.spaces[: rows.n] = rows.spaces[: rows.n]
        return Rows(grown.signs, grown.notes, grown.spaces, rows.n)
