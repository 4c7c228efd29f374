from pathlib import Path

import apsw
import pytest
from tests.kernel.memory.test_tables import found, opened, write

from aios.kernel.memory import tables, words
from aios.kernel.memory.tables import Filter
from aios.kernel.memory.words import CommonWords, by_words


def ranked(connection: apsw.Connection, query: str) -> list[int]:
    rows = connection.execute(
        "SELECT n.id FROM memory_words w JOIN memory_notes n ON n.id = w.rowid WHERE memory_words MATCH ? "
        "AND n.expires_unix_s IS NULL ORDER BY bm25(memory_words), n.id",
        (query,),
    )
    return [note for (note,) in rows]


@pytest.mark.parametrize("n_passing", [3, 30])
@pytest.mark.parametrize("limit", [1, 3, 10, 100])
def test_the_best_by_words_are_those_of_one_statement_with_all_conditions(
    tmp_path: Path, limit: int, n_passing: int
) -> None:
    connection = opened(tmp_path)
    for number in range(200):
        note = write(connection, f"boat {'red ' * (number % 7)} {'x ' * (number % 5)}")
        if number % (200 // n_passing):
            connection.execute("UPDATE memory_notes SET expires_unix_s = 0.5 WHERE id = ?", (note,))
    tables.index_words(connection)
    expected = ranked(connection, "boat OR red")[:limit]
    assert found(connection, "boat", "red", limit=limit) == expected


def test_a_word_that_was_common_is_looked_for_again_when_notes_have_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "MAX_MATCHES", 5)
    connection, common = opened(tmp_path), CommonWords()
    boats = [write(connection, f"boat {number}") for number in range(5)]
    red = write(connection, "red boat")
    tables.index_words(connection)

    def best() -> set[int]:
        return set(by_words(connection, ("boat", "red"), Filter((1,), 1.0), limit=9, common=common))

    assert best() == best() == {red}
    tables.delete_with_history(connection, boats[0])
    tables.delete_with_history(connection, boats[1])
    assert best() == {*boats[2:], red}
    more = [write(connection, "a boat") for _ in range(2)]
    tables.index_words(connection)
    assert best() == best() == {red}
    tables.delete_with_history(connection, red)
    assert best() == {*boats[2:], *more}


def test_how_many_common_words_are_kept_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "MAX_MATCHES", 1)
    monkeypatch.setattr(words, "MAX_COMMON", 2)
    connection, common = opened(tmp_path), CommonWords()
    for _ in range(3):
        write(connection, "a b c")
    tables.index_words(connection)
    for _ in range(2):
        assert [common.count(connection, word, 0) for word in "abcd"] == [2, 2, 2, 0]
