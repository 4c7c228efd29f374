from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.memory.bm25 import Match, likeliest, ranked, telling


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    matches = [Match(1, (1, 0), 100), Match(2, (0, 1), 100)]
    assert ranked(matches, [90, 2], 100) == [2, 1]


def test_more_of_a_word_and_a_shorter_passage_come_first() -> None:
    assert ranked([Match(1, (1,), 100), Match(2, (5,), 100)], [2], 10) == [2, 1]
    assert ranked([Match(1, (1,), 400), Match(2, (1,), 40)], [2], 10) == [2, 1]


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 2_000), max_size=6))
def test_the_words_to_rank_by_are_the_rarest_that_occur(n_with: dict[str, int]) -> None:
    found = telling(n_with, 1_000)
    assert bool(found) == any(n_with.values())
    assert all(n_with[word] for word in found)
    assert len(found) == 1 or sum(n_with[word] for word in found) <= 1_000
    assert all(
        n_with[a] <= n_with[b] for a in found for b in n_with if n_with[b] and b not in found
    )


def test_the_likeliest_are_those_that_are_best_when_each_word_is_in_them_once() -> None:
    sizes_of = [{1: 30, 2: 10, 3: 10}, {3: 10, 4: 20}]
    matches = [
        Match(n, [n in sizes for sizes in sizes_of], {1: 30, 4: 20}.get(n, 10)) for n in range(1, 5)
    ]
    best = ranked(matches, [3, 2], 9, usual_words=20)
    assert likeliest(sizes_of, 9, usual_size=20) == best
