from pathlib import Path

import apsw
import pytest

from aios.abi.memory import Note, Origin, Scope
from aios.abi.types import Pid
from aios.disk.connection import connect
from aios.disk.migrations import Schema, migrate
from aios.kernel.memory import tables
from aios.kernel.memory.check import find_faults
from aios.kernel.memory.schema import SCHEMA
from aios.kernel.memory.tables import Filter

N_STEPS_WITH_A_TRIGGER = 3


def opened(folder: Path, n_steps: int = len(SCHEMA.steps)) -> apsw.Connection:
    connection = connect(folder / "a.db", is_writer=True)
    migrate(connection, [Schema(SCHEMA.area, SCHEMA.steps[:n_steps])])
    return connection


def write(connection: apsw.Connection, text: str) -> int:
    space = tables.make_space(connection, (Scope.SHARED, "", ""))
    origin = Origin("ann", "ann", Pid(1), 1)
    note = Note(0, text, Scope.SHARED, origin, created_unix_s=0.0, valid_from_unix_s=0.0)
    return tables.insert(connection, space, note)


def found(connection: apsw.Connection, *words: str, limit: int = 9) -> list[int]:
    return list(tables.by_words(connection, words, Filter((1,), 1.0), limit=limit))


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


def test_words_of_an_older_version_are_found_and_can_be_forgotten(tmp_path: Path) -> None:
    connection = opened(tmp_path, N_STEPS_WITH_A_TRIGGER)
    old = [write(connection, text) for text in ("boat red", "boat blue")]
    migrate(connection, [SCHEMA])
    tables.delete_with_history(connection, old[0])
    new = write(connection, "boat white")
    tables.index_words(connection)
    assert sorted(found(connection, "boat")) == [old[1], new]
    check(connection)


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_the_best_by_words_are_those_of_one_statement_with_all_conditions(
    tmp_path: Path, limit: int
) -> None:
    connection = opened(tmp_path)
    for number in range(200):
        note = write(connection, f"boat {'red ' * (number % 7)} {'x ' * (number % 5)}")
        if number % 3:
            connection.execute("UPDATE memory_notes SET expires_unix_s = 0.5 WHERE id = ?", (note,))
    tables.index_words(connection)
    rows = connection.execute(
        "SELECT n.id FROM memory_words w JOIN memory_notes n ON n.id = w.rowid WHERE memory_words MATCH 'boat OR red' "
        "AND n.expires_unix_s IS NULL ORDER BY bm25(memory_words), n.id LIMIT ?",
        (limit,),
    )
    assert found(connection, "boat", "red", limit=limit) == [note for (note,) in rows]
