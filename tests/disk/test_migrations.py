from pathlib import Path

import apsw
import pytest

from aios.disk.connection import connect
from aios.disk.migrations import Schema, migrate, versions
from aios.errors import Conflict


def fill(connection: apsw.Connection) -> None:
    connection.execute("UPDATE notes SET size = length(body)")


STEPS = (
    "CREATE TABLE notes (body TEXT); INSERT INTO notes VALUES ('old')",
    "ALTER TABLE notes ADD COLUMN size INTEGER",
    fill,
)


@pytest.mark.parametrize("version", range(len(STEPS) + 1))
def test_every_older_version_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    connection = connect(tmp_path / "a.db", is_writer=True)
    migrate(connection, [Schema("notes", STEPS[:version])])
    migrate(connection, [Schema("notes", STEPS), Schema("other", ("CREATE TABLE other (a)",))])
    assert versions(connection) == {"notes": 3, "other": 1}
    assert connection.execute("SELECT body, size FROM notes").fetchall() == [("old", 3)]
    migrate(connection, [Schema("notes", STEPS)])
    assert versions(connection) == {"notes": 3, "other": 1}


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    connection = connect(tmp_path / "a.db", is_writer=True)
    migrate(connection, [Schema("notes", STEPS)])
    with pytest.raises(Conflict, match="version 3"):
        migrate(connection, [Schema("notes", STEPS[:2])])


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    connection = connect(tmp_path / "a.db", is_writer=True)
    with pytest.raises(apsw.SQLError):
        migrate(connection, [Schema("notes", STEPS), Schema("bad", ("CREATE NONSENSE",))])
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == []
