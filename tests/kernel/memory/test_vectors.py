import numpy as np
import pytest

from aios.kernel.memory.embedding import Vectors
from aios.kernel.memory.vectors import (
    CHUNK_ROWS,
    MAX_ROUGH,
    MAX_TOGETHER,
    MIN_ROWS,
    ROUGH_SLACK,
    SignIndex,
)


def random_vectors(n: int, n_dims: int = 256) -> Vectors:
    return np.random.default_rng(1).standard_normal((n, n_dims)).astype(np.float32)


@pytest.mark.parametrize("n_dims", [256, 100])
def test_the_nearest_are_found_also_after_it_grew(n_dims: int) -> None:
    index, vectors = SignIndex(n_dims), random_vectors(3 * MIN_ROWS, n_dims)
    for begin in range(0, len(vectors), 500):
        part = vectors[begin : begin + 500]
        index.add(range(begin + 1, begin + 1 + len(part)), [1] * len(part), part)
    index.check_invariants()
    assert len(index) == 3 * MIN_ROWS
    for place in (0, MIN_ROWS, len(vectors) - 1):
        assert place + 1 in index.nearest(vectors[place], [1], limit=5)


@pytest.mark.parametrize("n_dims", [256, 100])
def test_one_that_is_added_by_its_signs_is_found_as_one_by_its_vector(n_dims: int) -> None:
    vectors = random_vectors(2 * MIN_ROWS, n_dims)
    index, other = SignIndex(n_dims), SignIndex(n_dims)
    other.add(range(1, len(vectors) + 1), [1] * len(vectors), vectors)
    for place, signs in enumerate(index.signs_of(vectors).T):
        index.add_one(place + 1, 1, signs)
    index.check_invariants()
    for vector in vectors[:5]:
        assert index.nearest(vector, [1], limit=9) == other.nearest(vector, [1], limit=9)


def test_other_spaces_and_removed_notes_are_never_found() -> None:
    index, vectors = SignIndex(256), random_vectors(100)
    index.add(range(1, 101), [1 + place % 2 for place in range(100)], vectors)
    assert set(index.nearest(vectors[0], [2], limit=100)) == set(range(2, 101, 2))
    index.remove([2, 4])
    assert set(index.nearest(vectors[1], [2], limit=100)) == set(range(6, 101, 2))
    assert index.nearest(vectors[1], [2], limit=9, among=[4, 7, 8]) == [8]
    assert index.nearest(vectors[1], [], limit=9) == []


def test_a_search_keeps_to_what_was_there_when_it_began() -> None:
    index, vectors = SignIndex(256), random_vectors(2 * MIN_ROWS)
    index.add([1], [1], vectors[:1])
    before = index._rows
    index.add(range(2, 2 * MIN_ROWS + 1), [1] * (2 * MIN_ROWS - 1), vectors[1:])
    assert before.n == 1
    assert before.notes[0] == 1


def test_a_note_that_is_always_replaced_takes_no_more_rows() -> None:
    index, vectors = SignIndex(256), random_vectors(10)
    for number in range(1, 5 * MIN_ROWS):
        index.add([number], [1], vectors[number % 10][None])
        index.remove([number - 1])
    index.check_invariants()
    assert index.notes() == [5 * MIN_ROWS - 1]
    assert len(index._rows.notes) <= 2 * MIN_ROWS


def test_neighbours_are_near_nearest_first_and_of_the_same_space() -> None:
    index, vectors = SignIndex(256), random_vectors(CHUNK_ROWS + 100)
    index.add(range(1, len(vectors) + 1), [1] * len(vectors), vectors)
    assert index.neighbours(vectors[:1], [1], limit=3, max_share=0.3) == [[1]]
    near, nearer = vectors[0].copy(), vectors[0].copy()
    near[64:100] *= -1
    nearer[64:80] *= -1
    index.add([50_001, 50_002, 50_003], [1, 1, 2], np.stack([near, nearer, nearer]))
    assert index.neighbours(vectors[:1], [1], limit=9, max_share=0.3) == [[1, 50_002, 50_001]]
    assert index.neighbours(vectors[:1], [1], limit=9, max_share=0.1) == [[1, 50_002]]
    assert index.neighbours(vectors[:1], [2], limit=9, max_share=0.3) == [[50_003]]
    index.remove([50_003])
    assert index.neighbours(vectors[:1], [2], limit=9, max_share=0.3) == [[]]


def one_by_one(
    index: SignIndex, vector: Vectors, space: int, *, limit: int, max_share: float
) -> list[int]:
    """What `neighbours` is to find for a vector: as slow as its docstring is short."""
    rows, found = index._rows, list[tuple[int, int]]()
    for end in range(rows.n, 0, -CHUNK_ROWS):
        near = []
        for place in range(end - 1, max(0, end - CHUNK_ROWS) - 1, -1):
            differs = np.bitwise_count(rows.signs[:, place] ^ index.signs_of(vector)[:, 0])
            if differs[0] <= (max_share + ROUGH_SLACK) * 64 and rows.spaces[place] == space:
                near.append((int(differs.sum(dtype=np.int64)), place))
        found += sorted(each for each in near[:MAX_ROUGH] if each[0] <= int(max_share * 256))[
            :limit
        ]
        if len(found) >= limit:
            break
    return [int(rows.notes[place]) for _, place in sorted(found)[:limit]]


@pytest.mark.parametrize("alike", [0.0, 0.4, 0.8, 0.97], ids=str)
def test_neighbours_of_many_are_those_of_each_alone(
    monkeypatch: pytest.MonkeyPatch, alike: float
) -> None:
    """With short chunks, so that there are several, full and not, of rows that are `alike` to all others."""
    for name, value in (("CHUNK_ROWS", 300), ("FIRST_ROWS", 40), ("MAX_ROUGH", 20)):
        monkeypatch.setattr(f"aios.kernel.memory.vectors.{name}", value)
        monkeypatch.setitem(globals(), name, value)
    chance = np.random.default_rng()
    seed = int(chance.integers(1 << 32))
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    chance = np.random.default_rng(seed)
    n = int(chance.integers(1, 1_000))
    base = chance.standard_normal(256)
    same = chance.random((n, 256)) < alike
    vectors = np.where(same, base, chance.standard_normal((n, 256))).astype(np.float32)
    spaces = chance.choice([1, 1, 1, 2], n).tolist()
    index = SignIndex(256)
    index.add(range(1, n + 1), spaces, vectors)
    index.remove(chance.choice(n, n // 10).tolist())
    asked = chance.integers(0, n, MAX_TOGETHER + 5)
    wanted = [spaces[place] for place in asked]
    found = index.neighbours(vectors[asked], wanted, limit=3, max_share=0.31)
    assert found == [
        one_by_one(index, vectors[place : place + 1], space, limit=3, max_share=0.31)
        for place, space in zip(asked, wanted, strict=True)
    ]
    assert index.neighbours(vectors[:0], [], limit=3, max_share=0.31) == []
