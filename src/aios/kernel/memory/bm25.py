"""Which notes or passages share the words of a query: BM25 over just those that the caller may read. Pure.

FTS5 has a BM25 of its own, whose weights count the texts of everybody: what others write would then change what is found, and in
which order, which tells what they wrote. Here a word is rare when it is rare among what the caller may read.

Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009.
"""

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

SATURATION, LENGTH_WEIGHT = 1.2, 0.75
USUAL_WORDS = 150
"""In a passage; lengths are compared with it, for the true mean would be that of everybody's."""
USUAL_NOTE_WORDS = 25
"""The same of a note."""


class Match(Struct, frozen=True):
    """A passage that has some of the words: how often each, in the order of the query, and how many words it has in all."""

    passage: int
    counts: Sequence[int]
    n_words: int


def ranked(
    matches: Sequence[Match], n_with: Sequence[int], n_all: int, *, usual_words: int = USUAL_WORDS
) -> list[int]:
    """The passages, best first.

    Args:
        matches: Those that have one of the words at least.
        n_with: How many readable passages have each word.
        n_all: How many readable passages there are.
        usual_words: How long they mostly are.
    """
    weights = [_weight(n, n_all) for n in n_with]
    scores: Mapping[int, float] = {
        each.passage: _score(each, weights, usual_words) for each in matches
    }
    return sorted(scores, key=lambda passage: (-scores[passage], passage))


def likeliest(sizes_of: Sequence[Mapping[int, int]], n_all: int, *, usual_size: int) -> list[int]:
    """The texts that have one of some words, those first that would be if each were in them once. Cost: 0.3 us for each of each word.

    Args:
        sizes_of: For each word, the texts that have it, with their sizes, of any unit.
        n_all: How many readable texts there are.
        usual_size: How long they mostly are, in that unit.
    """
    scores: dict[int, float] = {}
    least = 1 + SATURATION * (1 - LENGTH_WEIGHT)
    slope = SATURATION * LENGTH_WEIGHT / usual_size
    for sizes in sizes_of:
        weight = _weight(len(sizes), n_all)
        for text, size in sizes.items():
            scores[text] = scores.get(text, 0.0) + weight / (least + slope * size)
    return sorted(scores, key=lambda text: (-scores[text], text))


def _weight(n_with: int, n_all: int) -> float:
    """How much a word tells that so many texts have."""
    return math.log(1 + max(0, n_all - n_with + 0.5) / (n_with + 0.5))


def _score(match: Match, weights: Sequence[float], usual_words: int) -> float:
    slack = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * match.n_words / usual_words)
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
