"""The audit log's tables: appending, letting go of the oldest, reading, and checking all of it.

A record is appended in the transaction that has the effect, or in one before it. `base` and `head` mark the ends of the chain.
"""

from collections.abc import Iterator, Sequence

import apsw
from msgspec import Struct

from aios.disk.migrations import Schema
from aios.kernel.journal.audit.chain import NO_CODE, Act, Kind, Link, Mark, code_of, seal_of

ROTATE_EVERY = 256
"""Records that are let go of at once: rare enough to cost nothing, few enough to hold nobody up."""
MAX_FAULTS = 100
"""More tell nothing new."""

SCHEMA = Schema(
    "audit",
    (
        """
        CREATE TABLE audit_records (
            seq INTEGER PRIMARY KEY, unix_us INTEGER NOT NULL, pid INTEGER NOT NULL, number INTEGER NOT NULL,
            kind TEXT NOT NULL, call TEXT NOT NULL, effect TEXT NOT NULL, subject TEXT NOT NULL, digest BLOB NOT NULL,
            code BLOB NOT NULL
        );
        CREATE TABLE audit_ends (mark TEXT PRIMARY KEY, seq INTEGER NOT NULL, code BLOB NOT NULL, seal BLOB NOT NULL)
            WITHOUT ROWID;
        """,
    ),
)

End = tuple[int, bytes]
"""A record at an end of the chain: its number and its code."""

_COLUMNS = "seq, unix_us, pid, number, kind, call, effect, subject, digest, code"


class Verified(Struct, frozen=True):
    """What a check of the whole log has found. `head` is `SEQ:CODE` of its last record: a note of it elsewhere shows later cuts."""

    n_records: int
    first: int
    last: int
    head: str
    faults: tuple[str, ...]


class Wanted(Struct, frozen=True):
    """Which records are asked for; None and "" ask for any."""

    after: int = 0
    pid: int | None = None
    kind: str = ""
    call: str = ""


def append(
    connection: apsw.Connection,
    key: bytes,
    acts: Sequence[Act],
    *,
    max_records: int,
    known: End | None = None,
) -> End:
    """Add records to the chain. Cost: 12 us, and 5 us a record.

    Args:
        connection: In a transaction.
        key: What the codes are made with.
        acts: What is to be written.
        max_records: Older ones are let go of.
        known: The last record, as who wrote it knows.

    Returns: The last record now.
    """
    seq, code = before, _ = _continued(connection, key, known)
    rows = []
    for act in acts:
        seq += 1
        code = code_of(key, code, seq, act)
        rows.append((seq, act.unix_us, act.pid, act.number, act.kind.value, act.call, act.effect, act.subject, act.digest, code))  # fmt: skip
    connection.executemany(
        f"INSERT INTO audit_records ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
        rows,
    )
    _put_end(connection, key, Mark.HEAD, (seq, code))
    if before // ROTATE_EVERY != seq // ROTATE_EVERY:
        _rotate(connection, key, up_to=seq - max_records)
    return seq, code


def read(connection: apsw.Connection, wanted: Wanted, *, limit: int = -1) -> Iterator[Link]:
    """The records that are asked for, in order."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM audit_records WHERE seq > ?1 AND (?2 IS NULL OR pid = ?2) "  # noqa: S608 - a constant
        "AND (?3 = '' OR kind = ?3) AND (?4 = '' OR call = ?4) ORDER BY seq LIMIT ?5",
        (wanted.after, wanted.pid, wanted.kind, wanted.call, limit),
    )
    return (_link(row) for row in rows)


def last(connection: apsw.Connection, wanted: Wanted, n: int) -> list[Link]:
    """The last n of the records that are asked for, in order."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM audit_records WHERE seq > ?1 AND (?2 IS NULL OR pid = ?2) "  # noqa: S608 - a constant
        "AND (?3 = '' OR kind = ?3) AND (?4 = '' OR call = ?4) ORDER BY seq DESC LIMIT ?5",
        (wanted.after, wanted.pid, wanted.kind, wanted.call, n),
    )
    return [_link(row) for row in rows][::-1]


def verify(connection: apsw.Connection, key: bytes, *, noted: str = "") -> Verified:
    """Check every record, the order, and both ends, as they are at one moment: a kernel may go on writing.

    Args:
        connection: To the database.
        key: What the codes were made with.
        noted: `SEQ:CODE`, the head of an earlier time as it was noted elsewhere; the log must still hold it.

    Cost: 5 us a record.
    """
    connection.execute("SAVEPOINT verify")  # what is read from here on is of one moment
    try:
        return _verified(connection, key, noted)
    finally:
        connection.execute("RELEASE verify")


def _verified(connection: apsw.Connection, key: bytes, noted: str) -> Verified:
    faults: list[str] = []
    first, base = _marked(connection, key, Mark.BASE, faults)
    code = base
    seq, n_records = first, 0
    noted_seq, _, noted_code = noted.partition(":")
    for row in connection.execute(f"SELECT {_COLUMNS} FROM audit_records ORDER BY seq"):  # noqa: S608 - a constant
        n_records += 1
        found = _readable(row)
        if found is None:
            faults.append(f"record {row[0]} is damaged")
            seq, code = int(row[0]), _bytes(row[-1])
            continue
        if found.seq != seq + 1:
            faults.append(f"records {seq + 1} to {found.seq - 1} are missing")
        elif found.code != code_of(key, code, found.seq, found.act):
            faults.append(
                f"record {found.seq} is not what was written, or does not follow the one before it"
            )
        if str(found.seq) == noted_seq and found.code.hex() != noted_code:
            faults.append(f"record {found.seq} is not the one that was noted")
        seq, code = found.seq, found.code
        if len(faults) >= MAX_FAULTS:
            break
    head, head_code = _marked(connection, key, Mark.HEAD, faults)
    if len(faults) < MAX_FAULTS and (head, head_code) != (seq, code):
        faults.append(f"the log ends with record {seq}; it was written up to {head}")
    if noted and int(noted_seq or 0) > seq:
        faults.append(f"record {noted_seq}, which was noted, is missing")
    if noted and int(noted_seq or 0) <= first and noted != f"{first}:{base.hex()}":
        faults.append(
            f"record {noted_seq}, which was noted, is no longer here: the log begins behind record {first}, so nobody can tell; note a head more often"
        )
    return Verified(n_records, first + 1, seq, f"{seq}:{code.hex()}", tuple(faults))


def _rotate(connection: apsw.Connection, key: bytes, *, up_to: int) -> None:
    """Let go of the oldest records; the chain then begins behind the last of them."""
    row = connection.execute("SELECT code FROM audit_records WHERE seq = ?", (up_to,)).fetchone()
    if row is None:
        return
    connection.execute("DELETE FROM audit_records WHERE seq <= ?", (up_to,))
    _put_end(connection, key, Mark.BASE, (up_to, bytes(row[0])))


def _continued(connection: apsw.Connection, key: bytes, known: End | None) -> End:
    """The record behind which the chain goes on.

    If the end is not what was written, a number is left out for good: a new mark would hide that records were cut off.
    """
    faults: list[str] = []
    end = _marked(connection, key, Mark.HEAD, faults)
    if not faults and known in (None, end):
        return end
    query = "SELECT (SELECT count(*) FROM audit_ends), (SELECT coalesce(max(seq), 0) FROM audit_records)"
    [(n_ends, last_seq)] = connection.execute(query)
    if known is None and n_ends == last_seq == 0:
        _put_end(connection, key, Mark.BASE, (0, NO_CODE))
        return end
    return max(end[0], last_seq, known[0] if known else 0) + 1, NO_CODE


def _put_end(connection: apsw.Connection, key: bytes, mark: Mark, end: End) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO audit_ends (mark, seq, code, seal) VALUES (?, ?, ?, ?)",
        (mark.value, *end, seal_of(key, mark, *end)),
    )


def _marked(
    connection: apsw.Connection, key: bytes, mark: Mark, faults: list[str]
) -> tuple[int, bytes]:
    """An end of the chain; a fault is added if nobody who has the key put it there."""
    query = "SELECT seq, code, seal FROM audit_ends WHERE mark = ?"
    row = connection.execute(query, (mark.value,)).fetchone()
    if row is None:
        faults.append(f"the mark of the log's {mark.value} is missing")
        return 0, NO_CODE
    seq, code, seal = row
    if not isinstance(seq, int) or _bytes(seal) != seal_of(key, mark, seq, _bytes(code)):
        faults.append(f"the mark of the log's {mark.value} is not what was written")
    return (seq if isinstance(seq, int) else 0), _bytes(code)


def _readable(row: tuple[object, ...]) -> Link | None:
    """A record, unless a column holds what no record can."""
    texts, numbers = row[4:8], row[:4]
    if not all(isinstance(each, str) for each in texts):
        return None
    if not all(isinstance(each, int) for each in numbers) or not isinstance(row[8], bytes):
        return None
    if row[4] not in {kind.value for kind in Kind} or not isinstance(row[9], bytes):
        return None
    return _link(row)


def _link(row: tuple[object, ...]) -> Link:
    seq, unix_us, pid, number = (int(str(each)) for each in row[:4])
    kind, call, effect, subject = (str(each) for each in row[4:8])
    act = Act(unix_us, pid, number, Kind(kind), call, effect, subject, _bytes(row[8]))
    return Link(seq, act, _bytes(row[9]))


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
