"""Which notes are nearest to a vector: the signs of all vectors in memory, 32 bytes a note of 256 dimensions.

Notes whose signs differ least from the query's are the candidates; whoever asks then compares their whole vectors. Over 100,000
notes a search takes 0.6 ms; sqlite-vec takes 10 ms for the same candidates (docs/adr/0007).

One thread adds and removes, any may search: a search works on what was published last.
"""

from bisect import bisect_left
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from aios.kernel.memory.embedding import Vectors

MIN_ROWS = 1_024
LOADED_ROWS = 10_000
"""Vectors that are read together when an index is loaded, 10 MB as numbers: a million at once took 2 GB."""
WORD_BITS = 64
CHUNK_ROWS, MAX_ROUGH = 8_192, 256
"""Rows that are compared at once when neighbours are looked for, and how many of them, the newest, by all their signs."""
FIRST_ROWS = 512
"""The newest rows of a chunk, which are compared first: where all texts are alike, they have `MAX_ROUGH` that may be near."""
MAX_TOGETHER = 32
"""Vectors whose neighbours are looked for at once."""
ROUGH_SLACK = 0.02
"""By how much more the first 64 signs of a neighbour may differ than all of them."""
PLACE_BITS, NO_KEY = 32, np.iinfo(np.int64).max
"""Rows are ordered by keys: the distance, and below it the place. One that must not be found has the last key."""

Places = npt.NDArray[np.int64]
Signs = npt.NDArray[np.uint64]
Pair = tuple[int, int, int]
"""Of a neighbour: how many signs differ, its place, its note."""


class Rows(Struct, frozen=True):
    """What was published: the first `n` columns of `signs`, and the note and space of each; space 0 is nobody's."""

    signs: Signs
    notes: npt.NDArray[np.int64]
    spaces: npt.NDArray[np.int64]
    n: int


class Sought(Struct, frozen=True):
    """Whose neighbours are looked for: one column of `signs` and one space a vector; `most` are the signs that may differ."""

    signs: Signs
    spaces: npt.NDArray[np.int64]
    limit: int
    most: int
    most_rough: np.uint8


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
        """Add notes with their spaces and vectors, one row each. Cost: 7 us for one."""
        rows = self._with_room(len(notes))
        end = rows.n + len(notes)
        rows.signs[:, rows.n : end] = self.signs_of(vectors)
        rows.notes[rows.n : end] = list(notes)
        rows.spaces[rows.n : end] = list(spaces)
        self._rows = Rows(rows.signs, rows.notes, rows.spaces, end)

    def add_one(self, note: int, space: int, signs: Signs) -> None:
        """Add a note by its column of `signs_of`. Cost: 1 us."""
        rows = self._with_room(1)
        rows.signs[:, rows.n] = signs
        rows.notes[rows.n] = note
        rows.spaces[rows.n] = space
        self._rows = Rows(rows.signs, rows.notes, rows.spaces, rows.n + 1)

    def signs_of(self, vectors: Vectors) -> Signs:
        """One column a vector, one row each 64 dimensions."""
        packed = np.packbits(vectors > 0, axis=1)
        if packed.shape[1] * 8 == self._n_words * WORD_BITS:
            return packed.view(np.uint64).T
        padded = np.zeros((len(vectors), self._n_words * WORD_BITS // 8), dtype=np.uint8)
        padded[:, : packed.shape[1]] = packed
        return padded.view(np.uint64).T

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
        far = self.n_dims + 1  # near enough for a short count
        distances[~allowed] = far
        if rows.n > limit:
            # Counting how many are how far is many times as fast as partitioning; what ties with the last one is too much then.
            worst = bisect_left(
                range(far),
                limit,
                key=lambda most: int(np.count_nonzero(distances <= np.uint16(most))),
            )
            places = np.flatnonzero(distances <= np.uint16(worst))
            places = places[np.argsort(distances[places], kind="stable")[:limit]]
        else:
            places = np.arange(rows.n)
        return [int(note) for note in rows.notes[places[distances[places] < far]]]

    def neighbours(
        self, vectors: Vectors, spaces: Sequence[int], *, limit: int, max_share: float
    ) -> list[list[int]]:
        """For each vector notes of its space that differ in at most this share of their signs: the nearest `limit`, or so many of the newest that do.

        Rows are compared from the newest on by their first 64 signs, those that may be near by all of them, which misses one
        neighbour in twenty, until there are enough. Cost, of 32 together: 0.02 ms each among texts that are all alike,
        0.2 ms over 100,000 that are not.
        """
        rows, signs, wanted = self._rows, self.signs_of(vectors), np.array(spaces, dtype=np.int64)
        most = int(max_share * self.n_dims)
        most_rough = np.uint8((max_share + ROUGH_SLACK) * min(WORD_BITS, self.n_dims))
        found: list[list[int]] = []
        for begin in range(0, len(wanted), MAX_TOGETHER):
            group = slice(begin, begin + MAX_TOGETHER)
            sought = Sought(signs[:, group], wanted[group], limit, most, most_rough)
            found += _neighbours(rows, sought)
        return found

    def check_invariants(self) -> None:
        """Raise AssertionError if a living note has two rows, or what is gone was miscounted."""
        living = self.notes()
        assert len(set(living)) == len(living) == len(self), "a note has two vectors"

    def _distances(self, rows: Rows, vector: Vectors) -> npt.NDArray[np.uint16]:
        """In how many signs each row differs from a vector."""
        distances = np.zeros(rows.n, dtype=np.uint16)
        mine = self.signs_of(vector.reshape(1, -1))
        differ, counts = np.empty(rows.n, dtype=np.uint64), np.empty(rows.n, dtype=np.uint8)
        for word, own in zip(rows.signs, mine, strict=True):
            np.bitwise_xor(word[: rows.n], own[0], out=differ)
            distances += np.bitwise_count(differ, out=counts)
        return distances

    def _with_room(self, n_new: int) -> Rows:
        rows = self._rows
        if rows.n + n_new > len(rows.notes):
            rows = self._grown(rows, n_new)
            self._n_gone = 0
        return rows

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
    if len(wanted) == 1:
        return np.equal(values, next(iter(wanted)))
    last = max(wanted, default=0) + 1
    table = np.zeros(last + 1, dtype=np.bool_)
    table[list(wanted)] = True
    found: npt.NDArray[np.bool_] = table.take(values, mode="clip")
    return found


def _neighbours(rows: Rows, sought: Sought) -> list[list[int]]:
    """The neighbours of each vector, nearest first, of two that are as near the one that was added first."""
    found: list[list[Pair]] = [[] for _ in sought.spaces]
    left = np.arange(len(found))
    for end in range(rows.n, 0, -CHUNK_ROWS):
        begin = max(0, end - CHUNK_ROWS)
        if end - begin > FIRST_ROWS:
            is_done = _compare_newest(rows, sought, slice(end - FIRST_ROWS, end), left, found=found)
            _compare(rows, sought, slice(begin, end), left[~is_done], found=found)
        else:
            _compare(rows, sought, slice(begin, end), left, found=found)
        left = left[[len(found[each]) < sought.limit for each in left]]
        if not len(left):
            break
    return [[note for *_, note in sorted(each)[: sought.limit]] for each in found]


def _compare_newest(
    rows: Rows, sought: Sought, part: slice, left: Places, *, found: list[list[Pair]]
) -> npt.NDArray[np.bool_]:
    """Add the nearest of the newest rows to what was `found` for those of the `left` that have `MAX_ROUGH` which may be near.

    Returns: which of the `left` these are.
    """
    mine = sought.signs[:, left, None]
    differences = np.bitwise_count(rows.signs[:, None, part] ^ mine)
    near = _may_be_near(rows, sought, part, left, rough=differences[0])
    is_done: npt.NDArray[np.bool_] = np.count_nonzero(near, axis=1) >= MAX_ROUGH
    near &= near[:, ::-1].cumsum(axis=1, dtype=np.uint16)[:, ::-1] <= MAX_ROUGH
    distances = differences.sum(axis=0, dtype=np.uint16)
    keys = distances.astype(np.int64) << PLACE_BITS | np.arange(part.start, part.stop)
    keys[~near | (distances > sought.most)] = NO_KEY
    best = np.partition(keys, sought.limit - 1, axis=1)[:, : sought.limit]
    for each, row in zip(left[is_done], best[is_done], strict=True):
        found[each] += _pairs(rows, row[row < NO_KEY])
    return is_done


def _compare(
    rows: Rows, sought: Sought, part: slice, left: Places, *, found: list[list[Pair]]
) -> None:
    """Add the nearest of the rows of a part to what was `found` for the `left`; few of these rows may be near."""
    if not len(left):
        return
    mine = sought.signs[:, left]
    rough = np.bitwise_count(rows.signs[0, part] ^ mine[0][:, None])
    near = _may_be_near(rows, sought, part, left, rough=rough)
    for number, each in enumerate(left):
        places = np.flatnonzero(near[number])[-MAX_ROUGH:] + part.start
        differences = np.bitwise_count(rows.signs[:, places] ^ mine[:, number : number + 1])
        distances = differences.sum(axis=0, dtype=np.int64)
        keys = (distances << PLACE_BITS | places)[distances <= sought.most]
        if len(keys):
            found[each] += _pairs(rows, np.sort(keys)[: sought.limit])


def _may_be_near(
    rows: Rows, sought: Sought, part: slice, left: Places, *, rough: npt.NDArray[np.uint8]
) -> npt.NDArray[np.bool_]:
    """For each vector, one row: which rows of a part are of its space and differ little in their first 64 signs."""
    near: npt.NDArray[np.bool_] = rough <= sought.most_rough
    near &= rows.spaces[part] == sought.spaces[left][:, None]
    return near


def _pairs(rows: Rows, keys: npt.NDArray[np.int64]) -> list[Pair]:
    """The distance, place and note of each key."""
    places = keys & ((1 << PLACE_BITS) - 1)
    notes = rows.notes[places]
    return list(zip((keys >> PLACE_BITS).tolist(), places.tolist(), notes.tolist(), strict=True))
