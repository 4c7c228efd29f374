"""The tables of the index, in a database file of its own: all of it can be made again from the files, so it may be lost.

A passage's number holds that of its file (`file << FILE_BITS | place`), so which file a passage is of takes no look-up. Place 0 is the
file's name. A changed file gets a new number: numbers are never used again, and nothing in memory can take old for new.
"""

from collections.abc import Collection, Iterable, Sequence

import apsw
import msgspec
from msgspec import Struct

from aios.disk.migrations import Schema
from aios.kernel.memory.bm25 import Match
from aios.kernel.memory.words import matches_of
from aios.kernel.retrieval.extractor import Piece
from aios.kernel.retrieval.formats import extension_of, form_of
from aios.kernel.storage.paths import root_of
from aios.kernel.storage.tables import PAST

FILE_BITS = 20
MAX_PIECES = (1 << FILE_BITS) - 1
READER = 1
"""Raised when files are read or cut another way: everything is indexed again then."""

SCHEMA = Schema(
    "retrieval",
    (
        """
        CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE indexed (
            file INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, form TEXT NOT NULL,
            extension TEXT NOT NULL, author TEXT NOT NULL, changed_unix_s REAL NOT NULL, size_bytes INTEGER NOT NULL,
            n_pieces INTEGER NOT NULL, problem TEXT NOT NULL
        );
        CREATE TABLE passages (
            id INTEGER PRIMARY KEY, name TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, text TEXT NOT NULL
        );
        CREATE TABLE vectors (passage INTEGER PRIMARY KEY, embedder TEXT NOT NULL, vector BLOB NOT NULL);
        CREATE VIRTUAL TABLE words USING fts5 (
            name, text, content = 'passages', content_rowid = 'id', tokenize = 'porter unicode61 remove_diacritics 2'
        );
        CREATE TRIGGER words_add AFTER INSERT ON passages BEGIN
            INSERT INTO words (rowid, name, text) VALUES (new.id, new.name, new.text);
        END;
        CREATE TRIGGER words_remove AFTER DELETE ON passages BEGIN
            INSERT INTO words (words, rowid, name, text) VALUES ('delete', old.id, old.name, old.text);
        END;
        """,
        # Triggers take every passage out of FTS5 one by one, also when all of them go.
        "DROP TRIGGER words_add; DROP TRIGGER words_remove;",
    ),
)


class IndexedFile(Struct, frozen=True):
    """A file as it was indexed; `problem` says why it has no text, if it has none, or how much of it was read if that is not all."""

    file: int
    path: str
    version: int
    form: str
    author: str
    changed_unix_s: float
    size_bytes: int
    n_pieces: int
    problem: str


class Which(Struct, frozen=True):
    """Which files may be found: those in or below `folders`, which the caller may read, of a type and changed since."""

    folders: tuple[str, ...]
    type: str = ""
    since_unix_s: float | None = None

    def condition(self) -> tuple[str, tuple[str | float, ...]]:
        """The condition on `indexed`, and its values."""
        values: list[str | float] = []
        places = []
        for folder in self.folders:
            if folder == "/":
                places.append("1")
                continue
            places.append("path = ? OR (path > ? AND path < ?)")
            values += [folder, f"{folder}/", f"{folder}/{PAST}"]
        parts = [f"({' OR '.join(places) or '0'})"]
        if self.type:
            wanted = self.type.lower().lstrip(".")
            parts.append("(extension = ? OR form = ?)")
            values += [wanted, wanted]
        if self.since_unix_s is not None:
            parts.append("changed_unix_s > ?")
            values.append(self.since_unix_s)
        return " AND ".join(parts), tuple(values)


# --- writing -----------------------------------------------------------------------------------------------------


def get_state(connection: apsw.Connection, name: str) -> int:
    """A number that the index keeps about itself; 0 before it is set."""
    row = connection.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(str(row[0]))


def set_state(connection: apsw.Connection, name: str, value: int) -> None:
    """Keep a number about the index."""
    connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, value))


def clear(connection: apsw.Connection) -> None:
    """Forget everything but the numbers that were given."""
    connection.execute("INSERT INTO words (words) VALUES ('delete-all')")
    for table in ("indexed", "passages", "vectors", "state"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own words
    set_state(connection, "reader", READER)


def add(connection: apsw.Connection, file: IndexedFile, pieces: Sequence[Piece]) -> int:
    """Index a file that is not indexed (`file.file` is not looked at). Returns: its number."""
    connection.execute(
        "INSERT INTO indexed (path, version, form, extension, author, changed_unix_s, size_bytes, n_pieces, problem) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(file.path, file.version, file.form, extension_of(file.path), file.author),
            *(file.changed_unix_s, file.size_bytes, file.n_pieces, file.problem),
        ),
    )
    number = connection.last_insert_rowid()
    first = number << FILE_BITS
    rows = [(first, name_words(file.path), 0, 0, "")]
    rows += [
        (first + place, "", each.first, each.last, each.text)
        for place, each in enumerate(pieces, 1)
    ]
    connection.executemany("INSERT INTO passages VALUES (?, ?, ?, ?, ?)", rows)
    connection.executemany(
        "INSERT INTO words (rowid, name, text) VALUES (?, ?, ?)",
        [(row[0], row[1], row[4]) for row in rows],
    )
    return number


def remove(connection: apsw.Connection, path: str) -> list[int]:
    """Forget the file at a path, if it is indexed. Returns: its number."""
    row = connection.execute("SELECT file FROM indexed WHERE path = ?", (path,)).fetchone()
    if row is None:
        return []
    file = int(str(row[0]))
    begin, end = file << FILE_BITS, (file + 1) << FILE_BITS
    connection.execute(
        "INSERT INTO words (words, rowid, name, text) SELECT 'delete', id, name, text FROM passages "
        "WHERE id >= ? AND id < ?",
        (begin, end),
    )
    connection.execute("DELETE FROM passages WHERE id >= ? AND id < ?", (begin, end))
    connection.execute("DELETE FROM vectors WHERE passage >= ? AND passage < ?", (begin, end))
    connection.execute("DELETE FROM indexed WHERE file = ?", (file,))
    return [file]


def name_words(path: str) -> str:
    """What a path says about its file: all but the folder that holds everything of an agent, a group or a mount."""
    return path.removeprefix(root_of(path)).replace("/", " ").strip() or path


def record(path: str, version: int, author: str, changed_unix_s: float) -> IndexedFile:
    """A file without text yet."""
    return IndexedFile(0, path, version, form_of(path).value, author, changed_unix_s, 0, 0, "")


# --- looking -----------------------------------------------------------------------------------------------------


def numbers_of(connection: apsw.Connection, which: Which) -> list[int]:
    """The numbers of the files that pass."""
    condition, values = which.condition()
    return ints(connection.execute(f"SELECT file FROM indexed WHERE {condition}", values))  # noqa: S608 - our own words


def files_of(connection: apsw.Connection, numbers: Collection[int]) -> dict[int, IndexedFile]:
    """The files with these numbers."""
    rows = connection.execute(
        "SELECT file, path, version, form, author, changed_unix_s, size_bytes, n_pieces, problem FROM indexed "
        "WHERE file IN (SELECT value FROM json_each(?))",
        (as_json(numbers),),
    )
    found = (IndexedFile(*row) for row in rows)
    return {each.file: each for each in found}


def n_passages(connection: apsw.Connection, numbers: Collection[int]) -> int:
    """How many passages these files have, with their names."""
    total: int = connection.execute(
        "SELECT coalesce(sum(n_pieces + 1), 0) FROM indexed WHERE file IN (SELECT value FROM json_each(?))",
        (as_json(numbers),),
    ).get
    return total


def n_without_vector(connection: apsw.Connection, numbers: Collection[int], embedder: str) -> int:
    """How many passages of these files have no vector of an embedder."""
    total: int = connection.execute(
        f"SELECT count(*) FROM vectors WHERE embedder = ?1 AND passage >> {FILE_BITS} IN (SELECT value FROM json_each(?2))",  # noqa: S608 - a number of ours
        (embedder, as_json(numbers)),
    ).get
    return n_passages(connection, numbers) - total


def paths_after(connection: apsw.Connection, path: str, *, limit: int) -> list[str]:
    """The paths of the indexed files that come behind one, in their order."""
    rows = connection.execute(
        "SELECT path FROM indexed WHERE path > ? ORDER BY path LIMIT ?", (path, limit)
    )
    return [str(row[0]) for row in rows]


def files_with(connection: apsw.Connection, phrase: str, numbers: str) -> set[int]:
    """Those of these files (a JSON list) that have a phrase, in their name or text."""
    rows = connection.execute(
        f"SELECT DISTINCT rowid >> {FILE_BITS} FROM words WHERE words MATCH ?1 "  # noqa: S608 - a number of ours
        f"AND rowid >> {FILE_BITS} IN (SELECT value FROM json_each(?2))",
        (quoted(phrase), numbers),
    )
    return set(ints(rows))


def count_with(
    connection: apsw.Connection, word: str, numbers: str, *, is_name: bool = False
) -> int:
    """How many passages of these files (a JSON list) have a word; with `is_name` how many of their names."""
    total: int = connection.execute(
        f"SELECT count(*) FROM words WHERE words MATCH ?1 AND rowid >> {FILE_BITS} IN (SELECT value FROM json_each(?2))",  # noqa: S608 - a number of ours
        (_phrases([word], is_name=is_name), numbers),
    ).get
    return total


def matches(
    connection: apsw.Connection,
    words: Sequence[str],
    numbers: str,
    limit: int,
    *,
    is_name: bool = False,
) -> list[Match]:
    """The passages of these files (a JSON list) that have one of the words, with `is_name` only their names; not more than `limit`."""
    rows = connection.execute(
        f"SELECT rowid, word_counts(words) FROM words WHERE words MATCH ?1 "  # noqa: S608 - a number of ours
        f"AND rowid >> {FILE_BITS} IN (SELECT value FROM json_each(?2)) LIMIT ?3",
        (_phrases(words, is_name=is_name), numbers, limit),
    )
    return matches_of(rows)


def texts_of(connection: apsw.Connection, ids: Collection[int]) -> dict[int, Piece]:
    """Passages by their numbers."""
    rows = connection.execute(
        "SELECT id, first, last, text FROM passages WHERE id IN (SELECT value FROM json_each(?))",
        (as_json(ids),),
    )
    found = msgspec.convert(list(rows), list[tuple[int, int, int, str]])
    return {row[0]: Piece(*row[1:]) for row in found}


def quoted(phrase: str) -> str:
    """A word or phrase as FTS5 takes it."""
    return '"' + phrase.replace('"', '""').replace("\0", " ") + '"'


def _phrases(words: Sequence[str], *, is_name: bool) -> str:
    """One of the words, as FTS5 takes it."""
    return f"{'name : ' * is_name}({' OR '.join(map(quoted, words))})"


def as_json(numbers: Iterable[int]) -> str:
    """Numbers as one bound value."""
    return msgspec.json.encode(list(numbers)).decode()


def ints(rows: Iterable[Sequence[object]]) -> list[int]:
    """The first column, of whole numbers."""
    return msgspec.convert([row[0] for row in rows], list[int])
