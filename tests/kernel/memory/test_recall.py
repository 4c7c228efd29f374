from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.memory.recall import (
    HALF_LIFE_S,
    Ranked,
    Traits,
    freshness,
    rank,
    spread,
    words_of,
)

PLAIN = Traits(age_s=0.0, n_used=0, importance=0.5)


def test_what_both_lists_find_comes_before_what_one_finds() -> None:
    traits = dict.fromkeys((1, 2, 3), PLAIN)
    ranked = rank([1, 2], [(3, 0.5), (2, 0.5)], traits, limit=3)
    assert ranked[0].id == 2
    assert ranked[0].why == ("words #2", "meaning 0.50")


def test_among_equals_the_fresh_the_used_and_the_important_come_first() -> None:
    for better in (
        Traits(age_s=0.0, n_used=0, importance=0.5),
        Traits(age_s=HALF_LIFE_S, n_used=9, importance=0.5),
        Traits(age_s=HALF_LIFE_S, n_used=0, importance=1.0),
    ):
        worse = Traits(age_s=HALF_LIFE_S, n_used=0, importance=0.5)
        one = rank([1], [], {1: better}, limit=1)[0].score
        other = rank([1], [], {1: worse}, limit=1)[0].score
        assert one > other


def test_a_meaning_that_is_far_does_not_count_and_who_may_not_be_found_is_not() -> None:
    assert rank([], [(1, 0.01)], {1: PLAIN}, limit=5) == []
    assert rank([1, 2], [(1, 0.9)], {2: PLAIN}, limit=5)[0].id == 2


def test_freshness_halves() -> None:
    assert freshness(0) == 1
    assert freshness(HALF_LIFE_S) == 0.5
    assert freshness(-5) == 1, "a clock that was set back makes nothing fresher than now"


def test_words_that_every_text_has_are_left_out_unless_there_are_no_others() -> None:
    assert words_of("What does the user eat?") == ("user", "eat")
    assert words_of("who is it?") == ("who", "is", "it")
    assert words_of("?!") == ()


@given(
    st.lists(st.integers(1, 50), unique=True),
    st.dictionaries(st.integers(1, 50), st.floats(-1, 1)),
    st.sets(st.integers(1, 50)),
    st.integers(1, 20),
)
def test_each_note_comes_once_best_first(
    by_words: list[int], meanings: dict[int, float], allowed: set[int], limit: int
) -> None:
    by_meaning = sorted(meanings.items(), key=lambda each: -each[1])
    ranked = rank(by_words, by_meaning, dict.fromkeys(allowed, PLAIN), limit=limit)
    ids = [each.id for each in ranked]
    scores = [each.score for each in ranked]
    assert len(set(ids)) == len(ids) <= limit
    assert set(ids) <= allowed & {*by_words, *meanings}
    assert scores == sorted(scores, reverse=True)
    assert all(each.why for each in ranked)


def test_a_link_brings_its_note_in_below_the_one_that_was_found() -> None:
    found = [Ranked(1, 0.8, ("words #1",)), Ranked(2, 0.1, ("words #2",))]
    ranked = spread(found, [(1, 3), (1, 2), (2, 3)])
    assert [(each.id, each.why) for each in ranked] == [
        (1, ("words #1",)),
        (3, ("linked to 1",)),
        (2, ("words #2", "linked to 1")),
    ]
    assert spread(found, []) == found
