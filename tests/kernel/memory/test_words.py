from pathlib import Path

import apsw
import msgspec
import pytest
from tests.kernel.memory.test_tables import found, opened, write

from aios.abi.memory import Scope
from aios.kernel.memory import tables, words
from aios.kernel.memory.bm25 import USUAL_NOTE_WORDS, Match, ranked
from aios.kernel.memory.tables import Filter
from aios.kernel.memory.words import CommonWords, by_words


def best_of(connection: apsw.Connection, *words: str) -> list[int]:
    """By a look at every note."""
    query = "SELECT id, text, ifnull(expires_unix_s, 0) FROM memory_notes"
    rows = msgspec.convert(connection.execute(query).fetchall(), list[tuple[int, str, float]])
    matches = {
        note: Match(note, [text.split().count(word) for word in words], len(text.split()))
        for note, text, _ in rows
    }
    matches = {note: each for note, each in matches.items() if any(each.counts)}
    n_with = [sum(each.counts[n] > 0 for each in matches.values()) for n in range(len(words))]
    best = ranked([*matches.values()], n_with, len(rows), usual_words=USUAL_NOTE_WORDS)
    gone = {note for note, _, expires in rows if expires}
    return [note for note in best if note not in gone]


@pytest.mark.parametrize("n_passing", [3, 30])
@pytest.mark.parametrize("limit", [1, 3, 10, 100])
def test_the_best_by_words_are_those_that_a_look_at_every_note_finds(
    tmp_path: Path, limit: int, n_passing: int
) -> None:
    connection = opened(tmp_path)
    for number in range(200):
        note = write(connection, f"boat {'red ' * (number % 7)} {'x ' * (number % 5)}")
        if number % (200 // n_passing):
            connection.execute("UPDATE memory_notes SET expires_unix_s = 0.5 WHERE id = ?", (note,))
    tables.index_words(connection)
    expected = best_of(connection, "boat", "red")[:limit]
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
        found = [common.notes_with(connection, word, (1,), n_gone=0) for word in "abcd"]
        assert found == [None, None, None, {}]


@pytest.mark.parametrize(
    "theirs", ["zebra", "giraffe", "zebra giraffe", "a long text of other words"]
)
def test_notes_of_others_change_neither_what_is_found_nor_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    monkeypatch.setattr(words, "MAX_MATCHES", 5)
    connection = opened(tmp_path)
    mine = [write(connection, text) for text in ("zebra hill", "giraffe hill", "hill of hills")]
    space = tables.make_space(connection, (Scope.AGENT, "bob", "bob"))
    for _ in range(6):
        note = write(connection, theirs)
        connection.execute("UPDATE memory_notes SET space = ? WHERE id = ?", (space, note))
    tables.index_words(connection)
    assert found(connection, "zebra", "giraffe", "hill") == mine
