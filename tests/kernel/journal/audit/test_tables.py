from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from aios.disk.connection import connect
from aios.disk.migrations import migrate
from aios.kernel.journal.audit.chain import Act, Kind, Mark
from aios.kernel.journal.audit.tables import (
    ROTATE_EVERY,
    SCHEMA,
    Wanted,
    append,
    last,
    read,
    verify,
)

KEY = b"k" * 32
N = 12
COLUMNS = {
    "unix_us": "unix_us + 1",
    "pid": "pid + 1",
    "number": "number + 1",
    "kind": "CASE kind WHEN 'effect' THEN 'denied' ELSE 'effect' END",
    "call": "call || 'x'",
    "effect": "'pure'",
    "subject": "replace(subject, 'path', 'PATH')",
    "digest": "zeroblob(length(digest))",
    "code": "zeroblob(32)",
}


@pytest.fixture
def connection() -> Iterator[apsw.Connection]:
    with apsw.Connection(":memory:") as connection:
        migrate(connection, (SCHEMA,))
        yield connection


def fill(connection: apsw.Connection, n: int, *, max_records: int = 100_000) -> None:
    for i in range(n):
        kind = Kind.DENIED if i % 3 == 0 else Kind.EFFECT
        act = Act(
            i, i % 4, i, kind, "file_edit", "reversible", f"path{i}", bytes([1 + i % 250]) * 32
        )
        append(connection, KEY, [act], max_records=max_records)


def test_what_was_written_is_whole(connection: apsw.Connection) -> None:
    fill(connection, N)
    found = verify(connection, KEY)
    assert (found.n_records, found.first, found.last, found.faults) == (N, 1, N, ())
    assert verify(connection, KEY, noted=found.head).faults == ()
    assert verify(connection, b"j" * 32).faults, "another key fits nothing"


MOVED = (
    "UPDATE audit_ends SET (seq, code) = (SELECT seq, code FROM audit_records ORDER BY seq DESC LIMIT 1) "
    "WHERE mark = 'head'"
)


@pytest.mark.parametrize("tricks", [(MOVED,), ("DELETE FROM audit_ends WHERE mark = 'head'",)])
def test_no_later_record_hides_that_others_were_cut_off(
    connection: apsw.Connection, tricks: tuple[str, ...]
) -> None:
    fill(connection, N)
    for trick in ("DELETE FROM audit_records WHERE seq > 8", *tricks):
        connection.execute(trick)
    fill(connection, 3)
    assert verify(connection, KEY).faults[0].startswith("records 9 to")


@pytest.mark.parametrize("what", ["all", "last"])
def test_an_older_end_is_no_end_for_who_knows_the_last(
    connection: apsw.Connection, what: str
) -> None:
    fill(connection, 8)
    old = list(connection.execute("SELECT * FROM audit_ends WHERE mark = 'head'"))
    fill(connection, 3)
    act = Act(0, 1, 1, Kind.EFFECT)
    known = append(connection, KEY, [act], max_records=100)
    if what == "all":
        connection.execute("DELETE FROM audit_records; DELETE FROM audit_ends")
    else:
        connection.execute("DELETE FROM audit_records WHERE seq > 8")
        connection.execute("INSERT OR REPLACE INTO audit_ends VALUES (?, ?, ?, ?)", old[0])
        assert not verify(connection, KEY).faults, "nobody else can know"
    append(connection, KEY, [act], max_records=100, known=known)
    assert any("missing" in fault for fault in verify(connection, KEY).faults)


def test_what_a_kernel_writes_meanwhile_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    with (
        closing(connect(file, is_writer=True)) as writer,
        closing(connect(file, is_writer=False)) as reader,
    ):
        migrate(writer, (SCHEMA,))
        fill(writer, N)

        def write(_: apsw.Cursor, __: str, bindings: object) -> bool:
            if bindings == (Mark.HEAD.value,):
                reader.exec_trace = None
                fill(writer, 1)
            return True

        reader.exec_trace = write
        found = verify(reader, KEY)
        assert (found.n_records, found.faults) == (N, ())
        assert verify(reader, KEY).n_records == N + 1


@pytest.mark.parametrize("seq", range(1, N + 1))
@pytest.mark.parametrize("column", COLUMNS)
def test_each_column_of_each_record_is_bound(
    connection: apsw.Connection, seq: int, column: str
) -> None:
    fill(connection, N)
    connection.execute(
        f"UPDATE audit_records SET {column} = {COLUMNS[column]} WHERE seq = ?",  # noqa: S608 - a constant
        (seq,),
    )
    assert any(f"record {seq} " in fault for fault in verify(connection, KEY).faults)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("value", [b"\0", -1, 1.5, "x", b""])
def test_a_column_of_another_type_is_a_fault_and_no_crash(
    connection: apsw.Connection, column: str, value: bytes | float | str
) -> None:
    fill(connection, N)
    connection.execute(f"UPDATE audit_records SET {column} = ? WHERE seq = 5", (value,))  # noqa: S608 - a constant
    assert verify(connection, KEY).faults


@pytest.mark.parametrize("seq", range(1, N + 1))
def test_a_record_that_is_taken_out_is_missed(connection: apsw.Connection, seq: int) -> None:
    fill(connection, N)
    connection.execute("DELETE FROM audit_records WHERE seq = ?", (seq,))
    assert verify(connection, KEY).faults
    if seq < N:
        connection.execute("UPDATE audit_records SET seq = seq - 1 WHERE seq > ?", (seq,))
        assert verify(connection, KEY).faults, "closing the gap does not hide it"


@pytest.mark.parametrize("seq", range(1, N + 1))
def test_cutting_off_either_end_is_found(connection: apsw.Connection, seq: int) -> None:
    fill(connection, N)
    connection.execute("SAVEPOINT whole")
    for condition in ("seq >= ?", "seq <= ?"):
        connection.execute(f"DELETE FROM audit_records WHERE {condition}", (seq,))  # noqa: S608 - a constant
        assert verify(connection, KEY).faults
        connection.execute("ROLLBACK TO whole")


@pytest.mark.parametrize("seq", range(1, N))
def test_two_records_that_change_places_are_found(connection: apsw.Connection, seq: int) -> None:
    fill(connection, N)
    for was, becomes in ((seq, -1), (seq + 1, seq), (-1, seq + 1)):
        connection.execute("UPDATE audit_records SET seq = ? WHERE seq = ?", (becomes, was))
    assert verify(connection, KEY).faults


def test_a_record_that_takes_anothers_place_is_found(connection: apsw.Connection) -> None:
    fill(connection, N)
    connection.execute("DELETE FROM audit_records WHERE seq = 5")
    connection.execute("UPDATE audit_records SET seq = 5 WHERE seq = 12")
    assert verify(connection, KEY).faults
    fill(connection, 0)
    connection.execute(
        "INSERT INTO audit_records SELECT 12, unix_us, pid, number, kind, call, effect, subject, digest, code FROM audit_records WHERE seq = 7"
    )
    assert verify(connection, KEY).faults


def forge_head(connection: apsw.Connection) -> None:
    connection.execute(
        "UPDATE audit_ends SET seq = 6, code = (SELECT code FROM audit_records WHERE seq = 6) WHERE mark = 'head'"
    )


def forge_base(connection: apsw.Connection) -> None:
    connection.execute(
        "UPDATE audit_ends SET seq = 6, code = (SELECT code FROM audit_records WHERE seq = 6) WHERE mark = 'base'"
    )


def swap_marks(connection: apsw.Connection) -> None:
    connection.execute(
        "UPDATE audit_ends SET mark = CASE mark WHEN 'base' THEN 'HEAD' ELSE 'base' END"
    )


@pytest.mark.parametrize("forge", [forge_head, forge_base, swap_marks])
def test_moved_ends_are_found(
    connection: apsw.Connection, forge: Callable[[apsw.Connection], None]
) -> None:
    fill(connection, N)
    forge(connection)
    connection.execute(
        "DELETE FROM audit_records WHERE seq > 6"
        if forge is forge_head
        else "DELETE FROM audit_records WHERE seq <= 6"
    )
    assert verify(connection, KEY).faults


def test_an_older_copy_of_the_whole_log_is_found_by_a_note_of_its_head(
    connection: apsw.Connection,
) -> None:
    fill(connection, N)
    connection.execute("SAVEPOINT older")
    fill(connection, 3)
    noted = verify(connection, KEY).head
    connection.execute("ROLLBACK TO older")
    assert verify(connection, KEY).faults == (), "it is whole in itself"
    assert verify(connection, KEY, noted=noted).faults
    fill(connection, 4)
    assert verify(connection, KEY, noted=f"{N + 1}:{'0' * 64}").faults


def test_growth_is_bounded_and_the_chain_goes_on(connection: apsw.Connection) -> None:
    fill(connection, 10 * ROTATE_EVERY + 5, max_records=1_000)
    found = verify(connection, KEY)
    assert found.faults == ()
    assert 1_000 <= found.n_records <= 1_000 + 2 * ROTATE_EVERY
    assert (found.first > 1, found.last) == (True, 10 * ROTATE_EVERY + 5)
    connection.execute("DELETE FROM audit_records WHERE seq = ?", (found.first,))
    assert verify(connection, KEY).faults


def test_a_note_of_a_record_that_was_let_go_of_proves_nothing(
    connection: apsw.Connection,
) -> None:
    fill(connection, ROTATE_EVERY)
    early = verify(connection, KEY).head
    fill(connection, ROTATE_EVERY, max_records=ROTATE_EVERY)
    found = verify(connection, KEY, noted=early)
    assert (found.first, found.faults) == (ROTATE_EVERY + 1, ()), "the last that went is known"
    fill(connection, ROTATE_EVERY, max_records=ROTATE_EVERY)
    assert verify(connection, KEY).faults == ()
    (fault,) = verify(connection, KEY, noted=early).faults
    assert "is no longer here" in fault
    wrong = f"{2 * ROTATE_EVERY}:{'0' * 64}"
    assert verify(connection, KEY, noted=wrong).faults


def test_records_are_found_by_what_they_are(connection: apsw.Connection) -> None:
    fill(connection, N)
    assert [link.seq for link in read(connection, Wanted(pid=2))] == [3, 7, 11]
    assert [link.seq for link in read(connection, Wanted(after=4, kind="denied"))] == [7, 10]
    assert [link.seq for link in last(connection, Wanted(call="file_edit"), 2)] == [11, 12]
    assert list(read(connection, Wanted(call="kill"))) == []
