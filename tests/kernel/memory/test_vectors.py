import numpy as np
import pytest

from aios.kernel.memory.embedding import Vectors
from aios.kernel.memory.vectors import CHUNK_ROWS, MIN_ROWS, SignIndex


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
    assert index.neighbours(vectors[0], 1, limit=3, max_share=0.3) == [1]
    near, nearer = vectors[0].copy(), vectors[0].copy()
    near[64:100] *= -1
    nearer[64:80] *= -1
    index.add([50_001, 50_002, 50_003], [1, 1, 2], np.stack([near, nearer, nearer]))
    assert index.neighbours(vectors[0], 1, limit=9, max_share=0.3) == [1, 50_002, 50_001]
    assert index.neighbours(vectors[0], 1, limit=9, max_share=0.1) == [1, 50_002]
    assert index.neighbours(vectors[0], 2, limit=9, max_share=0.3) == [50_003]
    index.remove([50_003])
    assert index.neighbours(vectors[0], 2, limit=9, max_share=0.3) == []
