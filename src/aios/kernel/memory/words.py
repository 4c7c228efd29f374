"""How the words of a query find notes, inside one read: which of them tell something, and the notes that have one of those.

Only notes of the spaces that the caller may read are counted, ranked and found. Ranking costs by the match, so words that are in many of them, which
say little, do not take part beside rarer ones.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import apsw
import msgspec

from aios.kernel.memory.bm25 import USUAL_NOTE_WORDS, Match, likeliest, ranked
from aios.kernel.memory.recall import Traits
from aios.kernel.memory.tables import (
    TRAITS,
    Filter,
    n_gone,
    n_in,
    traits_from,
    traits_of,
)

MAX_MATCHES = 500
"""Notes whose match with the words of a query is ranked."""
MIN_COUNTED = 100
"""Of the likeliest notes so many have the words in them counted; 5 us each."""
MAX_COMMON = 10_000
"""Words that are known to be common."""
MAX_ALL = 5_000
"""Notes are counted so far, to weigh words that are in few of them; 0.2 ms."""
WORD_BYTES = 6
"""Of a text, with the blank; the length in words is guessed by it before words are counted."""

Spaces = tuple[int, ...]
Lengths = Mapping[int, int]
"""By note, the bytes of its text."""


class CommonWords:
    """Words that are in more than `MAX_MATCHES` notes of some spaces, which costs a look at so many. They are until notes go."""

    def __init__(self) -> None:
        self._known: dict[tuple[Spaces, str], int] = {}
        """How many notes were gone when it was looked for."""

    def notes_with(
        self, connection: apsw.Connection, word: str, spaces: Spaces, *, n_gone: int
    ) -> Lengths | None:
        """The notes of some spaces that have a word; None if it is common there."""
        if self._known.get((spaces, word)) == n_gone:
            return None
        # Each match costs a look at its note. The cross join keeps SQLite from going through the spaces instead.
        rows = connection.execute(
            "SELECT w.rowid, octet_length(n.text) FROM memory_words w CROSS JOIN memory_notes n ON n.id = w.rowid "  # noqa: S608 - fixed texts and numbers of ours
            f"WHERE memory_words MATCH ? AND n.space IN ({','.join(map(str, spaces))}) LIMIT ?",
            (_quoted(word), MAX_MATCHES + 1),
        )
        found = msgspec.convert(list(rows), list[tuple[int, int]])
        if len(found) <= MAX_MATCHES:
            return dict(found)
        if len(self._known) >= MAX_COMMON:
            self._known.clear()
        self._known[spaces, word] = n_gone
        return None


def by_words(
    connection: apsw.Connection,
    words: Sequence[str],
    which: Filter,
    *,
    limit: int,
    common: CommonWords,
) -> dict[int, Traits]:
    """The notes that have one of the words, best first by BM25; of words that all are common, the newest that have all."""
    gone = n_gone(connection)
    found = {word: common.notes_with(connection, word, which.spaces, n_gone=gone) for word in words}
    notes_of = {word: notes for word, notes in found.items() if notes}
    rarest = sorted(notes_of, key=lambda word: len(notes_of[word]))
    totals = accumulate(len(notes_of[word]) for word in rarest)
    n_telling = sum(total <= MAX_MATCHES for total in totals)
    if n_telling:
        chosen = {word: notes_of[word] for word in rarest[:n_telling]}
        return _best(connection, chosen, which, limit=limit)
    everywhere = [word for word, notes in found.items() if notes is None]
    if not everywhere:
        return {}
    condition, values = which.condition()
    query = " AND ".join(map(_quoted, everywhere))
    rows = connection.execute(
        f"SELECT {TRAITS} FROM memory_words w JOIN memory_notes n ON n.id = w.rowid "  # noqa: S608 - fixed texts
        f"WHERE memory_words MATCH :query AND {condition} ORDER BY w.rowid DESC LIMIT :limit",
        {**values, "query": query, "limit": limit},
    )
    return traits_from(rows)


def register(connection: apsw.Connection) -> None:
    """Give a connection the function `word_counts`: 4 bytes with the length of a text in words, then a byte for each phrase."""

    def word_counts(api: apsw.FTS5ExtensionApi, *_: object) -> bytes:
        counts = bytes(
            min(255, sum(map(len, api.phrase_locations(n)))) for n in range(api.phrase_count)
        )
        return api.column_size(-1).to_bytes(4, "little") + counts

    connection.register_fts5_function("word_counts", word_counts)


def matches_of(rows: Iterable[Sequence[object]]) -> list[Match]:
    """Rows of an id and its `word_counts`."""
    found = msgspec.convert(list(rows), list[tuple[int, bytes]])
    return [Match(row[0], row[1][4:], int.from_bytes(row[1][:4], "little")) for row in found]


def _best(
    connection: apsw.Connection, notes_of: Mapping[str, Lengths], which: Filter, *, limit: int
) -> dict[int, Traits]:
    """The notes that have one of these words and pass, best first by BM25.

    All are ranked by which words they have. In those of the best that pass, twice as many as are wanted, the words are counted.
    """
    n_with = [len(notes) for notes in notes_of.values()]
    n_all = n_in(connection, which.spaces, most=MAX_ALL)
    likely = likeliest(list(notes_of.values()), n_all, usual_size=USUAL_NOTE_WORDS * WORD_BYTES)
    passing: dict[int, Traits] = {}
    begin, n_counted = 0, max(2 * limit, MIN_COUNTED)
    while begin < len(likely) and len(passing) < n_counted:
        passing |= traits_of(connection, likely[begin : begin + n_counted], which)
        begin += n_counted
    rows = connection.execute(
        "SELECT rowid, word_counts(memory_words) FROM memory_words WHERE memory_words MATCH ? "
        "AND +rowid IN (SELECT value FROM json_each(?))",
        (" OR ".join(map(_quoted, notes_of)), json.dumps(list(passing))),
    )
    best = ranked(matches_of(rows), n_with, n_all, usual_words=USUAL_NOTE_WORDS)
    return {note: passing[note] for note in best[:limit]}


def _quoted(word: str) -> str:
    """A word as FTS5 takes it; it has no quotation mark in it."""
    return f'"{word}"'
