import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from aios.disk.connection import connect
from aios.disk.migrations import migrate
from aios.errors import DiskFailed
from aios.kernel.journal import tables, text_tables
from aios.kernel.journal.text_tables import MAX_READ_BYTES, NO_MESSAGES, TextReader, put_chain
from aios.kernel.journal.texts import chain

MEBIBYTE = 1 << 20


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[apsw.Connection]:
    opened = connect(tmp_path / "journal.db", is_writer=True)
    migrate(opened, [tables.SCHEMA])
    yield opened
    opened.close()


def test_chains_share_their_beginnings_and_come_back_whole(
    connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_tables, "MAX_READ_BYTES", 700)
    talk = [f"{number} ".encode() * 50 for number in range(20)]
    keys = [put_chain(connection, chain(talk[:n], b"")) for n in (5, 20, 12)]
    assert sorted(keys) == [5, 12, 20], "none was stored again"
    reader = TextReader(connection)
    assert [reader.chain(key) for key in keys] == [talk[:5], talk, talk[:12]]
    assert reader.text(keys[0]) == talk[4]
    assert reader.chain(NO_MESSAGES) == []
    with pytest.raises(DiskFailed, match="the journal's text 99 is gone"):
        reader.text(99)


def test_a_reader_keeps_no_more_than_what_may_be_needed_again(connection: apsw.Connection) -> None:
    n_texts = 3 * MAX_READ_BYTES // MEBIBYTE
    texts = (b"%9d" % number * (MEBIBYTE // 9) for number in range(n_texts))
    keys = [put_chain(connection, chain([text], b"")) for text in texts]
    reader = TextReader(connection)
    tracemalloc.start()
    try:
        assert {len(reader.text(key)) for key in keys} == {MEBIBYTE // 9 * 9}
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert MAX_READ_BYTES / 2 < kept_bytes < MAX_READ_BYTES + MEBIBYTE
