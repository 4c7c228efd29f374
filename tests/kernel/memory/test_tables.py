from pathlib import Path

import apsw

from aios.abi.memory import Note, Origin, Scope
from aios.abi.types import Pid
from aios.disk.connection import connect
from aios.disk.migrations import Schema, migrate
from aios.kernel.memory import tables
from aios.kernel.memory.check import find_faults
from aios.kernel.memory.schema import SCHEMA
from aios.kernel.memory.tables import Filter
from aios.kernel.memory.words import CommonWords, by_words, register

N_STEPS_WITH_A_TRIGGER = 3


def opened(folder: Path, n_steps: int = len(SCHEMA.steps)) -> apsw.Connection:
    connection = connect(folder / "a.db", is_writer=True, prepare=(register,))
    migrate(connection, [Schema(SCHEMA.area, SCHEMA.steps[:n_steps])])
    return connection


def write(connection: apsw.Connection, text: str) -> int:
    space = tables.make_space(connection, (Scope.SHARED, "", ""))
    origin = Origin("ann", "ann", Pid(1), 1)
    note = Note(0, text, Scope.SHARED, origin, created_unix_s=0.0, valid_from_unix_s=0.0)
    return tables.insert(connection, space, note)


def found(connection: apsw.Connection, *words: str, limit: int = 9) -> list[int]:
    which = Filter((1,), 1.0)
    return list(by_words(connection, words, which, limit=limit, common=CommonWords()))


def check(connection: apsw.Connection) -> None:
    assert find_faults(connection) == []
    connection.execute(
        "INSERT INTO memory_words (memory_words, rank) VALUES ('integrity-check', 1)"
    )


def test_words_are_indexed_together_also_when_notes_went_before(tmp_path: Path) -> None:
    connection = opened(tmp_path)
    one, two, three = (write(connection, f"boat {name}") for name in ("red", "blue", "white"))
    tables.delete_with_history(connection, two)
    assert found(connection, "boat") == []
    tables.index_words(connection)
    assert sorted(found(connection, "boat")) == [one, three]
    check(connection)
    tables.delete_with_history(connection, three)
    four = write(connection, "boat green")
    tables.index_words(connection)
    tables.index_words(connection)
    assert sorted(found(connection, "boat")) == [one, four]
    check(connection)


def test_a_page_of_long_notes_ends_early_and_the_next_goes_on(tmp_path: Path) -> None:
    connection = opened(tmp_path)
    ids = [write(connection, "\N{BUG}" * (1 << 16)) for _ in range(70)]
    which = Filter((1,), 1.0)
    first, n_all = tables.page(connection, which, after=0, limit=500)
    assert n_all == 70
    assert sum(len(note.text.encode()) for note in first) <= 16 << 20
    rest, n_left = tables.page(connection, which, after=first[-1].id, limit=500)
    assert [note.id for note in (*first, *rest)] == ids
    assert n_left == len(rest)


def test_words_of_an_older_version_are_found_and_can_be_forgotten(tmp_path: Path) -> None:
    connection = opened(tmp_path, N_STEPS_WITH_A_TRIGGER)
    old = [write(connection, text) for text in ("boat red", "boat blue")]
    migrate(connection, [SCHEMA])
    tables.delete_with_history(connection, old[0])
    new = write(connection, "boat white")
    tables.index_words(connection)
    assert sorted(found(connection, "boat")) == [old[1], new]
    check(connection)


def test_uses_are_added_to_the_notes_that_are_still_there(tmp_path: Path) -> None:
    connection = opened(tmp_path)
    one, two, gone = (write(connection, name) for name in ("one", "two", "gone"))
    tables.delete_with_history(connection, gone)
    tables.count_uses(connection, {})
    for _ in range(2):
        tables.count_uses(connection, {one: 2, two: 1, gone: 5})
    rows = connection.execute("SELECT id, n_used FROM memory_notes")
    assert list(rows) == [(one, 4), (two, 2)]
