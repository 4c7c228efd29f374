"""Which passages share the words of a query: BM25 over just those that the caller may read. Pure.

FTS5 has a BM25 of its own, whose weights count the passages of everybody: what others write would then change what is found, and in
which order. Here a word is rare when it is rare among what the caller may read.

Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009.
"""

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

SATURATION, LENGTH_WEIGHT = 1.2, 0.75
USUAL_WORDS = 150
"""In a passage; lengths are compared with it, for the true mean would be that of everybody's."""


class Match(Struct, frozen=True):
    """A passage that has some of the words: how often each, in the order of the query, and how many words it has in all."""

    passage: int
    counts: Sequence[int]
    n_words: int


def ranked(matches: Sequence[Match], n_with: Sequence[int], n_all: int) -> list[int]:
    """The passages, best first.

    Args:
        matches: Those that have one of the words at least.
        n_with: How many readable passages have each word.
        n_all: How many readable passages there are.
    """
    weights = [math.log(1 + (n_all - n + 0.5) / (n + 0.5)) for n in n_with]
    scores: Mapping[int, float] = {each.passage: _score(each, weights) for each in matches}
    return sorted(scores, key=lambda passage: (-scores[passage], passage))


def _score(match: Match, weights: Sequence[float]) -> float:
    slack = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * match.n_words / USUAL_WORDS)
    return sum(
        weight * count * (SATURATION + 1) / (count + slack)
        for weight, count in zip(weights, match.counts, strict=True)
    )


def telling(n_with: Mapping[str, int], most: int) -> list[str]:
    """The words to rank by: the rarest, as long as they are in `most` passages together; at least the rarest that occurs."""
    found: list[str] = []
    total = 0
    for word in sorted((each for each in n_with if n_with[each]), key=lambda each: n_with[each]):
        total += n_with[word]
        if found and total > most:
            break
        found.append(word)
    return found
