"""Which notes are nearest to a vector: the signs of all vectors in memory, 32 bytes a note of 256 dimensions.

Notes whose signs differ least from the query's are the candidates; whoever asks then compares their whole vectors. Over 100,000
notes a search takes 0.6 ms; sqlite-vec takes 10 ms for the same candidates (docs/adr/0007).

One thread adds and removes, any may search: a search works on what was published last.
"""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from aios.kernel.memory.embedding import Vectors

MIN_ROWS = 1_024
WORD_BITS = 64
FAR = np.uint16(0xFFFF)
"""The distance of what must not be found."""
CHUNK_ROWS, MAX_ROUGH = 8_192, 256
"""Rows that are compared at once when neighbours are looked for, and how many of them, the newest, by all their signs."""
ROUGH_SLACK = 0.02
"""By how much more the first 64 signs of a neighbour may differ than all of them."""


class Rows(Struct, frozen=True):
    """What was published: the first `n` columns of `signs`, and the note and space of each; space 0 is nobody's."""

    signs: npt.NDArray[np.uint64]
    notes: npt.NDArray[np.int64]
    spaces: npt.NDArray[np.int64]
    n: int


class SignIndex:
    """The signs of the vectors of one embedder."""

    def __init__(self, n_dims: int) -> None:
        self.n_dims = n_dims
        self._n_words = -(-n_dims // WORD_BITS)
        self._rows = self._empty(MIN_ROWS)
        self._n_gone = 0

    def __len__(self) -> int:
        return self._rows.n - self._n_gone

    def add(self, notes: Collection[int], spaces: Collection[int], vectors: Vectors) -> None:
        """Add notes with their spaces and vectors, one row each. Cost: 20 us for one."""
        rows, n_new = self._rows, len(notes)
        if rows.n + n_new > len(rows.notes):
            rows = self._grown(rows, n_new)
            self._n_gone = 0
        end = rows.n + n_new
        rows.signs[:, rows.n : end] = self._signs(vectors)
        rows.notes[rows.n : end] = list(notes)
        rows.spaces[rows.n : end] = list(spaces)
        self._rows = Rows(rows.signs, rows.notes, rows.spaces, end)

    def remove(self, notes: Collection[int]) -> None:
        """No longer find these notes."""
        rows = self._rows
        for note in notes:
            places = np.flatnonzero(rows.notes[: rows.n] == note)
            self._n_gone += int(np.count_nonzero(rows.spaces[places]))
            rows.spaces[places] = 0

    def remove_spaces(self, spaces: Collection[int]) -> None:
        """No longer find what is in these spaces. Cost: one pass over all rows."""
        rows = self._rows
        places = np.flatnonzero(_is_member(rows.spaces[: rows.n], spaces))
        self._n_gone += int(np.count_nonzero(rows.spaces[places]))
        rows.spaces[places] = 0

    def clear(self) -> None:
        """Find nothing any more."""
        self._rows, self._n_gone = self._empty(MIN_ROWS), 0

    def notes(self) -> list[int]:
        """The notes that can be found, in no order."""
        rows = self._rows
        return [int(note) for note in rows.notes[: rows.n][rows.spaces[: rows.n] > 0]]

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
        distances = self._distances(rows, vector)
        allowed = _is_member(rows.spaces[: rows.n], spaces)
        if among is not None:
            allowed &= np.isin(rows.notes[: rows.n], list(among))
        distances[~allowed] = FAR
        if rows.n > limit:
            # Counting how many are how far is four times as fast as partitioning; what ties with the last one is too much then.
            worst = np.searchsorted(np.bincount(distances).cumsum(), limit)
            places = np.flatnonzero(distances <= worst)
            places = places[np.argsort(distances[places], kind="stable")[:limit]]
        else:
            places = np.arange(rows.n)
        return [int(note) for note in rows.notes[places[distances[places] < FAR]]]

    def neighbours(self, vector: Vectors, space: int, *, limit: int, max_share: float) -> list[int]:
        """Notes of a space that differ in at most this share of their signs: the nearest `limit`, or so many of the newest that do.

        Rows are compared from the newest on by their first 64 signs, those that may be near by all of them, which misses one
        neighbour in twenty, until there are enough. Cost: 0.03 ms among texts that are all alike, 0.25 ms over 100,000 that are not.
        """
        rows = self._rows
        mine = self._signs(vector.reshape(1, -1))
        most = int(max_share * self.n_dims)
        most_rough = np.uint8((max_share + ROUGH_SLACK) * min(WORD_BITS, self.n_dims))
        found: list[tuple[int, int]] = []
        for end in range(rows.n, 0, -CHUNK_ROWS):
            chunk = slice(max(0, end - CHUNK_ROWS), end)
            rough = np.bitwise_count(rows.signs[0, chunk] ^ mine[0, 0])
            near = np.flatnonzero((rough <= most_rough) & (rows.spaces[chunk] == space))
            places = near[-MAX_ROUGH:] + chunk.start
            distances = np.bitwise_count(rows.signs[:, places] ^ mine).sum(axis=0, dtype=np.uint16)
            best = np.argsort(distances)[:limit]
            best = best[distances[best] <= most]
            found += zip(distances[best].tolist(), rows.notes[places[best]].tolist(), strict=True)
            if len(found) >= limit:
                break
        return [note for _, note in sorted(found)[:limit]]

    def check_invariants(self) -> None:
        """Raise AssertionError if a living note has two rows, or what is gone was miscounted."""
        living = self.notes()
        assert len(set(living)) == len(living) == len(self), "a note has two vectors"

    def _distances(self, rows: Rows, vector: Vectors) -> npt.NDArray[np.uint16]:
        """In how many signs each row differs from a vector."""
        distances = np.zeros(rows.n, dtype=np.uint16)
        for word, mine in zip(rows.signs, self._signs(vector.reshape(1, -1)), strict=True):
            distances += np.bitwise_count(word[: rows.n] ^ mine[0])
        return distances

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

    def _grown(self, rows: Rows, n_new: int) -> Rows:
        """The living rows, with room for as many again: what is often updated does not grow without bound."""
        living = np.flatnonzero(rows.spaces[: rows.n])
        n = len(living)
        grown = self._empty(max(MIN_ROWS, 2 * (n + n_new)))
        grown.signs[:, :n] = rows.signs[:, living]
        grown.notes[:n] = rows.notes[living]
        grown.spaces[:n] = rows.spaces[living]
        return Rows(grown.signs, grown.notes, grown.spaces, n)


def _is_member(values: npt.NDArray[np.int64], wanted: Collection[int]) -> npt.NDArray[np.bool_]:
    """Which values are wanted, by a table of all numbers up to the greatest; 20 times as fast as `np.isin`."""
    last = max(wanted, default=0) + 1
    table = np.zeros(last + 1, dtype=np.bool_)
    table[list(wanted)] = True
    found: npt.NDArray[np.bool_] = table.take(values, mode="clip")
    return found
