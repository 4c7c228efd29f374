"""Which notes a query finds first, and why. Pure.

Two lists come in, each best first: notes that share words with the query, and notes of a like meaning. Reciprocal-rank fusion
(Cormack et al., SIGIR 2009) joins them, for their scores have no common scale; likeness, age, use and importance then move a
note a little, never past one that both lists put far ahead. The weights were tuned on one half of a real set of questions, and
`aios bench memory` judges them on the other.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

FUSION_RANKS = 3
"""The constant of Cormack et al.: how slowly a lower rank loses weight. Their 60, made for long lists of many searchers, lets the
many middling hits of one list outweigh the first of the other: words alone were better than both then."""
WORDS_SHARE = 0.65
"""The weight of words; the rest is that of meaning, which is the weaker of the two with static vectors."""
HALF_LIFE_S = 30 * 86400.0
"""After this a note counts as half as fresh."""
LIKENESS_WEIGHT, FRESH_WEIGHT, USE_WEIGHT, IMPORTANCE_WEIGHT = 0.5, 0.05, 0.05, 0.1
MIN_LIKENESS = 0.08
"""Cosines below this are what wordllama gives unrelated sentences."""
LINK_SHARE = 0.5
"""What a note gets of the score of one that it is linked with."""
MAX_WORDS = 24

_WORD = re.compile(r"\w+")
_STOP_WORDS = frozenset(
    _WORD.findall(
        "a about an and are as at be been but by can could did do does for from had has have he her him his how i if in is it "
        "its me my no not of on or our she should so than that the their them then there these they this to us was we were what "
        "when where which who whom whose why will with would you your"
    )
)


class Traits(Struct, frozen=True):
    """What ranking looks at in a note besides the query."""

    age_s: float
    n_used: int
    importance: float


class Ranked(Struct, frozen=True):
    """A note's place: greater scores first."""

    id: int
    score: float
    why: tuple[str, ...]


def words_of(query: str) -> tuple[str, ...]:
    """The words of a query to look for, without those that every text has (unless there are no others)."""
    words = tuple(dict.fromkeys(word.lower() for word in _WORD.findall(query)))
    telling = tuple(word for word in words if word not in _STOP_WORDS)
    return (telling or words)[:MAX_WORDS]


def rank(
    by_words: Sequence[int],
    by_meaning: Sequence[tuple[int, float]],
    traits: Mapping[int, Traits],
    *,
    limit: int,
) -> list[Ranked]:
    """The best `limit` notes.

    Args:
        by_words: Ids, best first.
        by_meaning: Ids with the cosine of their vector and the query's, best first.
        traits: Of each note that may be found; the others are left out.
        limit: How many at most.
    """
    word_ranks = {note: place for place, note in enumerate(by_words, 1)}
    likenesses = {note: cosine for note, cosine in by_meaning if cosine >= MIN_LIKENESS}
    meaning_ranks = {note: place for place, note in enumerate(likenesses, 1)}
    scored = []
    for note in dict.fromkeys((*word_ranks, *likenesses)):
        if note in traits:
            ranks = word_ranks.get(note), meaning_ranks.get(note)
            scored.append((-_score(*ranks, likenesses.get(note, 0.0), traits[note]), -note))
    return [
        Ranked(-note, -score, _why(word_ranks.get(-note), likenesses.get(-note)))
        for score, note in sorted(scored)[:limit]
    ]


def spread(ranked: Sequence[Ranked], links: Iterable[tuple[int, int]]) -> list[Ranked]:
    """The notes that were found and those that they are linked with, best first; each once, by its best reason.

    Args:
        ranked: What a query found.
        links: (a note that was found, one that it is linked with).
    """
    found = {each.id: each for each in ranked}
    best = dict(found)
    for one, other in links:
        score = found[one].score * LINK_SHARE
        if other not in best or best[other].score < score:
            why = (
                (*found[other].why, f"linked to {one}") if other in found else (f"linked to {one}",)
            )
            best[other] = Ranked(other, score, why)
    return sorted(best.values(), key=lambda each: (-each.score, -each.id))


def _score(
    word_rank: int | None, meaning_rank: int | None, likeness: float, traits: Traits
) -> float:
    """How well a note fits, by its ranks in the two lists."""
    by_words = 0.0 if word_rank is None else WORDS_SHARE / (FUSION_RANKS + word_rank)
    by_meaning = 0.0 if meaning_rank is None else (1 - WORDS_SHARE) / (FUSION_RANKS + meaning_rank)
    boost = (
        1.0
        + LIKENESS_WEIGHT * likeness
        + FRESH_WEIGHT * freshness(traits.age_s)
        + USE_WEIGHT * (1.0 - 1.0 / (1 + traits.n_used))
        + IMPORTANCE_WEIGHT * (traits.importance - 0.5)
    )
    return (FUSION_RANKS + 1) * (by_words + by_meaning) * boost


def _why(word_rank: int | None, likeness: float | None) -> tuple[str, ...]:
    """What a note was found by."""
    words = () if word_rank is None else (f"words #{word_rank}",)
    meaning = () if likeness is None else (f"meaning {likeness:.2f}",)
    return (*words, *meaning)


def freshness(age_s: float) -> float:
    """1 for what was just written, half of that after each half-life."""
    return float(2.0 ** (-max(0.0, age_s) / HALF_LIFE_S))
