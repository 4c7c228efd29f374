import apsw

from aios.disk.migrations import migrate
from aios.kernel.memory.words import register
from aios.kernel.retrieval import tables
from aios.kernel.retrieval.extractor import Piece
from aios.kernel.retrieval.tables import SCHEMA, Which


def opened() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    register(connection)
    migrate(connection, [SCHEMA])
    return connection


def add(connection: apsw.Connection, path: str, *texts: str) -> int:
    pieces = [Piece(n, n, text) for n, text in enumerate(texts, 1)]
    return tables.add(connection, tables.record(path, 1, "/", 0.0), pieces)


def check_words(connection: apsw.Connection) -> None:
    """FTS5 has just the passages; it raises if not."""
    connection.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")


def test_words_are_counted_in_the_files_that_were_named_and_in_no_other() -> None:
    connection = opened()
    mine, theirs = (
        add(connection, "/shared/a.md", "fox fox den"),
        add(connection, "/agents/b", "fox"),
    )
    assert tables.count_with(connection, "fox", tables.as_json([mine])) == 1
    (match,) = tables.matches(connection, ["foxes", "cat"], tables.as_json([mine]), 10)
    assert (match.passage >> tables.FILE_BITS, tuple(match.counts), match.n_words) == (
        mine,
        (2, 0),
        3,
    )
    assert tables.files_with(connection, "fox", tables.as_json([mine, theirs])) == {mine, theirs}


def test_a_removed_file_leaves_nothing_and_its_number_is_never_used_again() -> None:
    connection = opened()
    first = add(connection, "/shared/a.md", "fox", "den")
    assert tables.remove(connection, "/shared/a.md") == [first]
    assert tables.remove(connection, "/shared/a.md") == []
    assert add(connection, "/shared/a.md", "fox") > first
    check_words(connection)
    tables.clear(connection)
    check_words(connection)
    assert tables.count_with(connection, "fox", tables.as_json(range(10))) == 0
    assert tables.get_state(connection, "reader") == tables.READER


def test_which_files_pass() -> None:
    connection = opened()
    a = add(connection, "/shared/x/a.md", "fox")
    b = add(connection, "/shared/xy.py", "fox")
    assert tables.numbers_of(connection, Which(("/",))) == [a, b]
    assert tables.numbers_of(connection, Which(("/shared/x",))) == [a]
    both = Which(("/shared/xy.py", "/shared/x"))
    assert sorted(tables.numbers_of(connection, both)) == [a, b]
    assert tables.numbers_of(connection, Which(("/",), type="code")) == [b]
    assert tables.numbers_of(connection, Which(("/",), since_unix_s=0.0)) == []
    assert tables.numbers_of(connection, Which(())) == []
