"""How a query finds notes, inside one read: two lists, by words and by meaning, and their fusion."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import apsw

from aios.abi.memory import Hit
from aios.kernel.memory import tables
from aios.kernel.memory.recall import Ranked, Traits, rank, spread, words_of
from aios.kernel.memory.tables import Filter
from aios.kernel.memory.words import CommonWords, by_words

if TYPE_CHECKING:
    from aios.kernel.memory.embedding import Vectors
    from aios.kernel.memory.meaning import Meanings

N_LISTED = 50
"""How deep each of the two lists goes into the ranking; a hit below rank 50 in both is not among the best 10."""


class Sense(NamedTuple):
    """What a query means, and the notes to compare it with."""

    meanings: "Meanings"
    vector: "Vectors"


def search(
    connection: apsw.Connection,
    query: str,
    which: Filter,
    *,
    limit: int,
    common: CommonWords,
    sense: Sense | None = None,
) -> list[Hit]:
    """The best notes that pass, best first; by their words only without a `sense`. Cost: 3 ms over 100,000 notes, as long as the near ones hold."""
    words = words_of(query)
    n_listed = max(N_LISTED, limit)
    worded = by_words(connection, words, which, limit=n_listed, common=common) if words else {}
    by_meaning: list[tuple[int, float]] = []
    traits = worded
    if sense is not None:
        by_meaning, traits = _nearest(
            connection, sense, which, known=worded, n_listed=n_listed, n_wanted=limit
        )
    ranked = rank(tuple(worded), by_meaning, traits, limit=limit)
    notes = tables.notes_of(connection, [each.id for each in ranked], which)
    return [Hit(notes[each.id], each.score, each.why) for each in ranked]


def _nearest(
    connection: apsw.Connection,
    sense: Sense,
    which: Filter,
    *,
    known: dict[int, Traits],
    n_listed: int,
    n_wanted: int,
) -> tuple[list[tuple[int, float]], dict[int, Traits]]:
    """The notes that are nearest to a query, best first, and the traits of those of them that pass, besides what is `known`.

    Only notes that pass are compared if `which` is narrow, or if others, which do not hold now, fill the list and leave fewer than are wanted.
    """
    is_narrow = which.is_narrow
    while True:
        among = tables.ids_of(connection, which) if is_narrow else None
        found = sense.meanings.search(
            connection, sense.vector, which.spaces, among=among, limit=n_listed
        )
        others = {note for note, _ in found} - known.keys()
        traits = known | tables.traits_of(connection, others, which)
        n_passing = sum(note in traits for note, _ in found)
        if is_narrow or len(found) < n_listed or n_passing >= n_wanted:
            return found, traits
        is_narrow = True


def follow_links(
    connection: apsw.Connection, hits: Sequence[Hit], which: Filter, *, limit: int
) -> list[Hit]:
    """The hits and the notes that they are linked with and that pass, the best `limit` of both."""
    links = tables.links_from(connection, [hit.note.id for hit in hits])
    passing = tables.traits_of(connection, {other for _, other in links}, which).keys()
    links = [(one, other) for one, other in links if other in passing]
    best = spread([Ranked(hit.note.id, hit.score, hit.why) for hit in hits], links)[:limit]
    # Of all that is linked only the few that are shown: a thousand texts may be a quarter of a GB.
    notes = tables.notes_of(connection, [each.id for each in best], which)
    return [Hit(notes[each.id], each.score, each.why) for each in best]
