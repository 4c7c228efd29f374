"""Questions and answers on disk.

A row whose answer was taken names the record of the call that took it (`taken_seq`). That is written before the intent of the call: after a crash,
an answer whose call is not in the journal was taken for nothing.
"""

import apsw
import msgspec
from msgspec import Struct

from aios.abi.approvals import Approval
from aios.disk.migrations import Schema
from aios.readers import from_msgpack

SCHEMA = Schema(
    "approvals",
    (
        "CREATE TABLE approvals (id INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL, taken_seq INTEGER, row BLOB NOT NULL)",
    ),
)


class Kept(Struct, frozen=True):
    """A row, and what is known of the call that took its answer: the outcome in its record, None if there is no record."""

    row: Approval
    taken_seq: int | None
    outcome: str | None


def save(connection: apsw.Connection, row: Approval, taken_seq: int | None = None) -> None:
    """Write a question as it is now."""
    connection.execute(
        "INSERT INTO approvals VALUES (?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET taken_seq = excluded.taken_seq, row = excluded.row",
        (row.id, row.pid, taken_seq, msgspec.msgpack.encode(row)),
    )


def drop(connection: apsw.Connection, numbers: list[int]) -> None:
    """Forget some."""
    connection.executemany("DELETE FROM approvals WHERE id = ?", ((number,) for number in numbers))


def load(connection: apsw.Connection) -> tuple[list[Kept], int]:
    """All of them, and the highest number that was given."""
    rows = connection.execute(
        "SELECT row, taken_seq, outcome FROM approvals "
        "LEFT JOIN journal_records ON journal_records.pid = approvals.pid AND seq = taken_seq ORDER BY id"
    )
    found = [Kept(from_msgpack(row, Approval), seq, end) for row, seq, end in rows]
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'approvals'").fetchone()
    return found, 0 if last is None else int(last[0])
