from pathlib import Path

import apsw
import pytest

from aios.disk.connection import connect, find_translation
from aios.errors import DiskFailed, ResourceExhausted


def test_a_connection_syncs_its_log_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = connect(path, is_writer=True)
    assert connection.pragma("journal_mode") == "wal"
    assert connection.pragma("synchronous") == 2
    connection.execute("CREATE TABLE t (a)")
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    connect(tmp_path / "a.db", is_writer=True).execute("CREATE TABLE t (a)")
    reader = connect(tmp_path / "a.db", is_writer=False)
    with pytest.raises(apsw.ReadOnlyError):
        reader.execute("INSERT INTO t VALUES (1)")


def test_a_file_that_is_no_database_is_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database " * 1000)
    with pytest.raises(DiskFailed, match="damaged") as caught:
        connect(tmp_path / "a.db", is_writer=True)
    assert "fsck" in caught.value.hint


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (apsw.FullError("full"), ResourceExhausted, "disk is full"),
        (apsw.CorruptError("bad"), DiskFailed, "damaged"),
        (apsw.BusyError("busy"), DiskFailed, "another program"),
        (apsw.CantOpenError("no"), DiskFailed, "written"),
        (apsw.IOError("io"), DiskFailed, "disk failed"),
    ],
)
def test_errors_of_the_disk_say_how_to_mend_them(error: apsw.Error, kind: type, words: str) -> None:
    ours = find_translation(error, Path("x.db"))
    assert isinstance(ours, kind)
    assert words in str(ours)
    assert getattr(ours, "hint", "")


def test_a_wrong_statement_stays_a_bug() -> None:
    assert find_translation(apsw.SQLError("syntax"), Path("x.db")) is None
