"""How a query finds files, inside one read of the index: which may be found, two lists of passages, their fusion, the best of each file.

What may be found is decided first, and everything after it (which words are rare, which vectors are near, what is counted) sees nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import apsw
from msgspec import Struct
from msgspec.structs import replace

from aios.abi.retrieval import FileHit
from aios.kernel.memory.bm25 import ranked, telling
from aios.kernel.memory.recall import Ranked, Traits, rank, words_of
from aios.kernel.retrieval import tables
from aios.kernel.retrieval.tables import FILE_BITS, IndexedFile, Which

if TYPE_CHECKING:
    from aios.kernel.memory.embedding import Vectors
    from aios.kernel.retrieval.meaning import Meanings

N_LISTED = 200
"""How deep each of the two lists goes; a file may fill many of its places."""
MAX_MATCHES = 1_000
"""Passages whose words are counted for the ranking; 5 ms."""
NAME_SHARE = 0.5
"""What a fitting name adds to the score of the passages of its file."""
PLACE_MASK = (1 << FILE_BITS) - 1


class Asked(Struct, frozen=True):
    """What is looked for: words, and a vector if there is an embedder."""

    words: tuple[str, ...]
    vector: "Vectors | None"
    now_unix_s: float
    k: int
    per_file: int = 1


def asked(text: str, meanings: "Meanings | None", now_unix_s: float, k: int) -> Asked:
    """A text as what is looked for."""
    vector = None if meanings is None else meanings.embedder.embed([text])[0]
    return Asked(words_of(text), vector, now_unix_s, k)


def allowed(connection: apsw.Connection, which: Which, keywords: Sequence[str]) -> list[int]:
    """The numbers of the files that may be found and have all the keywords."""
    numbers = tables.numbers_of(connection, which)
    for keyword in keywords:
        numbers = sorted(tables.files_with(connection, keyword, tables.as_json(numbers)))
    return numbers


def search(
    connection: apsw.Connection,
    what: Asked,
    numbers: Sequence[int],
    meanings: "Meanings | None",
) -> list[FileHit]:
    """The best hits among the files with these numbers, best first; by words only without a vector. Cost: 10 ms over 20,000 passages."""
    if not numbers:
        return []
    by_words, matched = _by_words(connection, what.words, numbers)
    by_meaning: list[tuple[int, float]] = []
    if meanings is not None and what.vector is not None:
        by_meaning = meanings.nearest(connection, what.vector, numbers, limit=N_LISTED)
    found = {*by_words, *(passage for passage, _ in by_meaning)}
    files = tables.files_of(connection, {passage >> FILE_BITS for passage in found})
    traits = {
        passage: Traits(what.now_unix_s - files[passage >> FILE_BITS].changed_unix_s, 0, 0.5)
        for passage in found
        if passage >> FILE_BITS in files
    }
    places = rank(by_words, by_meaning, traits, limit=len(found))
    best = _best_of_files([_with_words(each, matched) for each in places], what.per_file)
    return _hits(connection, best[: what.k], files)


def _by_words(
    connection: apsw.Connection, words: Sequence[str], numbers: Sequence[int]
) -> tuple[list[int], Mapping[int, list[str]]]:
    """The passages that share words with the query, best first, and which words each has.

    Behind the best come the best names, which one file with many passages would else push out.
    """
    among = tables.as_json(numbers)
    n_all = tables.n_passages(connection, numbers)
    best: dict[int, None] = {}
    matched: dict[int, list[str]] = {}
    for is_name in (False, True):
        n_with = {
            word: tables.count_with(connection, word, among, is_name=is_name) for word in words
        }
        chosen = telling(n_with, MAX_MATCHES)
        if not chosen:
            continue
        found = tables.matches(connection, chosen, among, MAX_MATCHES, is_name=is_name)
        for each in found:
            has = [word for word, n in zip(chosen, each.counts, strict=True) if n]
            matched.setdefault(each.passage, has)
        listed = ranked(found, [n_with[word] for word in chosen], n_all)[:N_LISTED]
        best |= dict.fromkeys(listed)
    return list(best), matched


def _with_words(each: Ranked, matched: Mapping[int, list[str]]) -> Ranked:
    """A place whose reasons name the words."""
    reasons = [reason for reason in each.why if not reason.startswith("words")]
    if words := matched.get(each.id):
        where = "words" if each.id & PLACE_MASK else "name"
        reasons.insert(0, f"{where}: {', '.join(words)}")
    return replace(each, why=tuple(reasons))


def _best_of_files(places: Sequence[Ranked], per_file: int) -> list[Ranked]:
    """At most `per_file` passages of each file; a name counts for the passages of its file, and stands alone if none was found."""
    names = {each.id >> FILE_BITS: each for each in places if not each.id & PLACE_MASK}
    found: list[Ranked] = []
    n_of: dict[int, int] = {}
    for each in places:
        file = each.id >> FILE_BITS
        if not each.id & PLACE_MASK or n_of.get(file, 0) >= per_file:
            continue
        n_of[file] = n_of.get(file, 0) + 1
        if name := names.get(file):
            score = each.score + NAME_SHARE * name.score
            named = tuple(reason for reason in name.why if reason.startswith("name"))
            each = Ranked(each.id, score, each.why + named)
        found.append(each)
    found += [each for file, each in names.items() if file not in n_of]
    return sorted(found, key=lambda each: (-each.score, each.id))


def _hits(
    connection: apsw.Connection, places: Sequence[Ranked], files: Mapping[int, IndexedFile]
) -> list[FileHit]:
    texts = tables.texts_of(connection, [each.id for each in places])
    hits = []
    for each in places:
        file, piece = files[each.id >> FILE_BITS], texts[each.id]
        hits.append(
            FileHit(
                path=file.path,
                version=file.version,
                first_line=piece.first,
                last_line=piece.last,
                text=piece.text,
                score=each.score,
                why=each.why,
                changed_unix_s=file.changed_unix_s,
            )
        )
    return hits
