"""How the words of a query find notes, inside one read: which of them tell something, and the notes that have one of those.

Ranking costs by the match, so words that are in many notes, which say little, do not take part beside rarer ones.
"""

from collections.abc import Sequence
from itertools import accumulate, islice

import apsw

from aios.kernel.memory.recall import Traits
from aios.kernel.memory.tables import TRAITS, Filter, ints, n_gone, traits_from, traits_of

MAX_MATCHES = 1_000
"""Notes whose match with the words of a query is ranked."""
MAX_COMMON = 10_000
"""Words that are known to be common."""


class CommonWords:
    """Words that are in more than `MAX_MATCHES` notes, which costs a look at so many. They are until notes go."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        """By word, how many notes were gone when it was counted."""

    def count(self, connection: apsw.Connection, word: str, n_gone: int) -> int:
        """In how many notes a word is, up to `MAX_MATCHES` + 1."""
        if self._known.get(word) == n_gone:
            return MAX_MATCHES + 1
        rows = connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM memory_words WHERE memory_words MATCH ? LIMIT ?)",
            (_quoted(word), MAX_MATCHES + 1),
        )
        (found,) = ints(rows)
        if found > MAX_MATCHES:
            if len(self._known) >= MAX_COMMON:
                self._known.clear()
            self._known[word] = n_gone
        return found


def by_words(
    connection: apsw.Connection,
    words: Sequence[str],
    which: Filter,
    *,
    limit: int,
    common: CommonWords,
) -> dict[int, Traits]:
    """The notes that have one of the words, best first by BM25; of words that all are common, the newest that have all."""
    telling, others = _telling(connection, words, common)
    if telling:
        return _best(connection, telling, which, limit=limit)
    if not others:
        return {}
    condition, values = which.condition()
    query = " AND ".join(map(_quoted, others))
    rows = connection.execute(
        f"SELECT {TRAITS} FROM memory_words w JOIN memory_notes n ON n.id = w.rowid "  # noqa: S608 - fixed texts
        f"WHERE memory_words MATCH :query AND {condition} ORDER BY w.rowid DESC LIMIT :limit",
        {**values, "query": query, "limit": limit},
    )
    return traits_from(rows)


def _best(
    connection: apsw.Connection, words: Sequence[str], which: Filter, *, limit: int
) -> dict[int, Traits]:
    """The notes that have one of these words and pass, best first by BM25.

    All matches are ranked first, and then only so many notes are looked at as it takes.
    """
    matches, found = _ranked(connection, words, 4 * limit), dict[int, Traits]()
    begin = 0
    while begin < len(matches) and len(found) < limit:
        part = matches[begin : begin + limit]
        passing = traits_of(connection, part, which)
        found |= {note: passing[note] for note in part if note in passing}
        begin += limit
        if begin == len(matches) == 4 * limit:
            matches = _ranked(connection, words, MAX_MATCHES)
    return dict(islice(found.items(), limit))


def _ranked(connection: apsw.Connection, words: Sequence[str], limit: int) -> list[int]:
    """The first matches of these words by BM25; a few are found in two thirds of the time of all."""
    rows = connection.execute(
        "SELECT rowid FROM memory_words WHERE memory_words MATCH ? ORDER BY bm25(memory_words), rowid LIMIT ?",
        (" OR ".join(map(_quoted, words)), limit),
    )
    return ints(rows)


def _telling(
    connection: apsw.Connection, words: Sequence[str], common: CommonWords
) -> tuple[list[str], list[str]]:
    """The words that are in some note: the rarest, which are in `MAX_MATCHES` notes together, and the others."""
    gone = n_gone(connection)
    counted = [(common.count(connection, word, gone), word) for word in words]
    present = sorted((count, word) for count, word in counted if count)
    totals = accumulate(count for count, _ in present)
    n_telling = sum(total <= MAX_MATCHES for total in totals)
    ordered = [word for _, word in present]
    return ordered[:n_telling], ordered[n_telling:]


def _quoted(word: str) -> str:
    """A word as FTS5 takes it; it has no quotation mark in it."""
    return f'"{word}"'
