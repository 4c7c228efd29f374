"""The journal in the database: one row a call, and the texts that calls and answers are made of, each stored once."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

import apsw
import msgspec
from msgspec import Struct

from aios.abi.gate import Fault
from aios.abi.types import Pid
from aios.abi.wire import decode_answer, decode_call, decode_fault
from aios.disk.migrations import Schema
from aios.errors import DiskFailed, OutcomeUnknown
from aios.kernel.journal.records import Effect, Link, Outcome, Record, Where, Written
from aios.kernel.journal.retention import Held
from aios.kernel.journal.text_tables import NO_MESSAGES, TextReader, put, put_chain
from aios.kernel.journal.texts import (
    MAX_INTENT_BYTES,
    digest_of,
    join_answer,
    join_call,
    write_answer,
    write_call,
    write_fault,
)

INLINE_BYTES = 256
"""Up to here an answer is in its row: most are different, and a text of its own costs 60 bytes more."""
ROW_BYTES = 150
"""What a row takes, about, without its texts."""
ROW_COLUMNS = (
    "pid, seq, call, digest, effect, begun, place, outcome, ended, waited, ran, n_preemptions, "
    "n_urgent, within, cure, job, intent, said, answer, answer_text, message"
)
HANDING_IN = frozenset({"tool_take", "tool_return"})
WITH_TOOLS = frozenset({"chat", "context_open"})

SCHEMA = Schema(
    "journal",
    (
        """
        CREATE TABLE journal_texts (
            key INTEGER PRIMARY KEY,
            digest BLOB NOT NULL UNIQUE,
            parent INTEGER NOT NULL,  -- the text before it in its chain; 0: it is the first
            packing INTEGER NOT NULL,
            data BLOB NOT NULL
        );
        CREATE TABLE journal_records (
            pid INTEGER NOT NULL, seq INTEGER NOT NULL, call TEXT NOT NULL, digest BLOB NOT NULL, effect TEXT NOT NULL,
            place TEXT NOT NULL, outcome TEXT NOT NULL, begun REAL NOT NULL, ended REAL NOT NULL, waited REAL NOT NULL,
            ran REAL NOT NULL, n_preemptions INTEGER NOT NULL, intent INTEGER NOT NULL, said INTEGER,
            answer BLOB, answer_text INTEGER, message INTEGER,
            PRIMARY KEY (pid, seq)
        ) WITHOUT ROWID;
        """,
        "ALTER TABLE journal_records ADD COLUMN n_urgent INTEGER NOT NULL DEFAULT 0",
        """
        ALTER TABLE journal_records ADD COLUMN within INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE journal_records ADD COLUMN cure TEXT NOT NULL DEFAULT '';
        """,
        "ALTER TABLE journal_records ADD COLUMN job INTEGER NOT NULL DEFAULT 0",
    ),
)

IN_WORLD = "place = 'world' AND effect <> 'pure'"
"""A record of a call that may have done something which no transaction holds."""


class Row(Struct, frozen=True):
    """A record as it was read; `intent` and `answer` are bytes of the wire, and empty where they were not read."""

    record: Record
    intent: bytes = b""
    answer: bytes = b""


class Point(Struct, frozen=True):
    """Where a process is branched off; what is None is not there."""

    at: int | None
    lowest: int | None
    """Of its records that are kept."""
    highest: int | None
    ended_unix_s: float | None
    """When all up to it was done."""


def save(connection: apsw.Connection, record: Record) -> None:
    """Write a record as it is now. One that is done on disk stays so: its effect came with it."""
    if record.is_written:
        _save_end(connection, record)
        return
    assert record.intent is not None, f"{record} has no intent"
    head, messages = _cut_short(record), record.intent.messages
    intent = put(connection, Link(digest_of(head), head), NO_MESSAGES)
    said = None if messages is None else put_chain(connection, messages)
    answer, answer_text, message = _put_answer(connection, record.answer, said)
    connection.execute(
        "INSERT INTO journal_records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (pid, seq) DO UPDATE SET place = excluded.place, outcome = excluded.outcome, ended = excluded.ended, "
        "waited = excluded.waited, ran = excluded.ran, n_preemptions = excluded.n_preemptions, answer = excluded.answer, "
        "answer_text = excluded.answer_text, message = excluded.message, n_urgent = excluded.n_urgent "
        "WHERE outcome <> 'done' OR excluded.outcome = 'fault'",
        (record.pid, record.seq, record.call, record.digest, record.effect.value, record.where.value,
         record.outcome.value, record.begun_unix_s, record.ended_unix_s, record.waited_s, record.ran_s,
         record.n_preemptions, intent, said, answer, answer_text, message, record.n_urgent, record.within, record.cure,
         record.job),
    )  # fmt: skip


def take_back(connection: apsw.Connection, record: Record) -> None:
    """A call that failed is made again: what it was told is no part of its process's journal any more."""
    connection.execute(
        "UPDATE journal_records SET outcome = ?, answer = NULL, answer_text = NULL, message = NULL WHERE pid = ? AND seq = ?",
        (Outcome.UNDONE.value, record.pid, record.seq),
    )


def leave(connection: apsw.Connection, records: Iterable[Record]) -> None:
    """Programs that ran again went on without asking for these calls; what they were told stays to be seen."""
    connection.executemany(
        "UPDATE journal_records SET outcome = ? WHERE pid = ? AND seq = ?",
        ((Outcome.LEFT.value, record.pid, record.seq) for record in records),
    )


def load(
    connection: apsw.Connection, pid: Pid, *, after: int = 0, limit: int = -1, texts: bool = True
) -> list[Row]:
    """As `each`, all at once: with `texts` they may take any multiple of what is on disk, which is nothing for a kernel."""
    return list(each(connection, pid, after=after, limit=limit, texts=texts))


def each(
    connection: apsw.Connection,
    pid: Pid,
    *,
    after: int = 0,
    limit: int = -1,
    calls: Collection[str] = (),
    of_functions: bool | None = None,
    texts: bool = True,
) -> Iterator[Row]:
    """The records of a process behind a number, in order. Each is read when it is looked at: a conversation is in every call of it, whole.

    Args:
        connection: Where they are read, until the last is.
        pid: Of the process.
        after: The number.
        limit: How many at most; negative: all.
        calls: Only those of these names; empty: of all.
        of_functions: Only those that functions which the process serves asked, or only those that they did not.
        texts: With what was asked and answered; else only with answers that are short.
    """
    which = f"AND call IN ({', '.join('?' * len(calls))}) " if calls else ""
    if of_functions is not None:
        which += f"AND job {'<>' if of_functions else '='} 0 "
    rows = connection.execute(
        f"SELECT {ROW_COLUMNS} FROM journal_records WHERE pid = ? AND seq > ? {which}ORDER BY seq LIMIT ?",  # noqa: S608 - our own words
        (pid, after, *calls, limit),
    )
    reader = TextReader(connection)
    for columns in rows:
        yield _row(columns, reader, texts=texts)


def asked(connection: apsw.Connection, record: Record) -> bytes:
    """What a call asked; empty if it was too long to be kept.

    Raises:
        DiskFailed: It is gone.
    """
    keys = _keys(connection, "intent, said", record)
    intent, said = msgspec.convert(keys, tuple[int, int | None])
    return _joined_call(TextReader(connection), intent, said)


def told(connection: apsw.Connection, record: Record) -> bytes:
    """What a call was told; empty if it was told nothing.

    Raises:
        DiskFailed: It is gone.
    """
    keys = _keys(connection, "answer, answer_text, message", record)
    answer = msgspec.convert(keys, tuple[bytes | None, int | None, int | None])
    return _joined_answer(TextReader(connection), *answer)


def load_calls(
    connection: apsw.Connection, pid: Pid, call: str, *, after: int = 0, up_to: int | None = None
) -> Iterator[Row]:
    """The records of one kind of call that were carried out, in order, with what was asked and answered; each is read when it is looked at."""
    rows = connection.execute(
        f"SELECT {ROW_COLUMNS} FROM journal_records WHERE pid = ? AND seq > ? AND seq <= ifnull(?, seq) "  # noqa: S608 - our own words
        "AND call = ? AND outcome IN ('done', 'left') ORDER BY seq",
        (pid, after, up_to, call),
    )
    reader = TextReader(connection)
    for columns in rows:
        yield _row(columns, reader, texts=True)


def take_in(connection: apsw.Connection, pid: Pid, rows: Sequence[Row]) -> None:
    """Write a run that was read elsewhere as that of a process that has none here yet."""
    for row in rows:
        intent = Written(b"", None, row.record.digest)
        if row.intent:
            intent = write_call(decode_call(row.intent))
        answer = None
        if row.answer and row.record.outcome is Outcome.FAULT:
            answer = write_fault(decode_fault(row.answer))
        elif row.answer:
            answer = write_answer(decode_answer(row.answer), intent)
        save(connection, replace(row.record, pid=pid, intent=intent, answer=answer))


def mark_urgent(connection: apsw.Connection, record: Record) -> None:
    """Write how many urgent letters were announced with an answer that is on disk already."""
    query = "UPDATE journal_records SET n_urgent = ? WHERE pid = ? AND seq = ?"
    connection.execute(query, (record.n_urgent, record.pid, record.seq))


def count_records(connection: apsw.Connection, pid: Pid, *, up_to: int, limit: int) -> int:
    """How many records a process has up to a number; counted up to a limit."""
    query = (
        "SELECT count(*) FROM (SELECT 1 FROM journal_records WHERE pid = ? AND seq <= ? LIMIT ?)"
    )
    found: int = connection.execute(query, (pid, up_to, limit)).get
    return found


def branch(connection: apsw.Connection, source: Pid, target: Pid, *, up_to: int) -> None:
    """Give a process the records of another, up to a number; their texts are shared.

    A call that the source is in the middle of is the source's to carry out: if it acts in the world, the other is told that
    nobody knows of it, and so it is of one that was cut off: what may have happened is not the other's to undo. All else of what is open it asks anew.
    """
    now = connection.execute(
        "SELECT max(max(begun, ended)) FROM journal_records WHERE pid = ? AND seq <= ?",
        (source, up_to),
    ).get
    connection.execute(
        "INSERT INTO journal_records SELECT ?1, seq, call, digest, effect, place, iif(outcome = 'open', 'fault', outcome), begun, "  # noqa: S608 - our own words
        "iif(outcome = 'open', ?4, ended), waited, ran, n_preemptions, intent, said, iif(outcome = 'open', ?5, answer), answer_text, "
        f"message, n_urgent, within, '', job FROM journal_records WHERE pid = ?2 AND seq <= ?3 AND (outcome <> 'open' OR {IN_WORLD})",
        (target, source, up_to, now, _unknown(source)),
    )


def _unknown(source: Pid) -> bytes:
    """What a branch is told of a call that its source is in the middle of."""
    fault = Fault(
        OutcomeUnknown.code,
        f"process {source} was in the middle of this call when the branch began; it is not done again here",
        "look whether it happened before asking again",
    )
    return write_fault(fault).head


def point(connection: apsw.Connection, pid: Pid, *, first: int, at: int | None) -> Point:
    """A call of a process as a point to branch off at; None: its last one that is settled and is not its end, or may act in the world."""
    lowest, highest, is_there, ended = connection.execute(
        f"""
        WITH mine AS (SELECT seq, ended FROM journal_records WHERE pid = ?1 AND seq >= ?2),
            wanted AS (SELECT ifnull(?3, (SELECT max(seq) FROM journal_records WHERE pid = ?1 AND seq >= ?2
                AND (outcome IN ('done', 'fault') AND call <> 'exit' OR outcome IN ('open', 'cancelled') AND {IN_WORLD}))) AS seq)
        SELECT (SELECT min(seq) FROM mine), (SELECT max(seq) FROM mine), (SELECT seq FROM mine WHERE seq = wanted.seq),
            (SELECT max(ended) FROM mine WHERE seq <= wanted.seq) FROM wanted
        """,  # noqa: S608 - our own words
        (pid, first, at),
    ).get
    return Point(is_there, lowest, highest, ended)


def last_pid(connection: apsw.Connection) -> Pid:
    """The highest pid that has a record."""
    return Pid(connection.execute("SELECT ifnull(max(pid), 0) FROM journal_records").get)


def drop(connection: apsw.Connection, pid: Pid, *, up_to: int | None = None) -> int:
    """Forget the records of a process, up to a number. Returns: how many."""
    where, values = "pid = ?", [int(pid)]
    if up_to is not None:
        where, values = f"{where} AND seq <= ?", [*values, up_to]
    connection.execute(f"DELETE FROM journal_records WHERE {where}", values)  # noqa: S608 - no value in the text
    return connection.changes()


def drop_one(connection: apsw.Connection, record: Record) -> None:
    """Forget one record."""
    query = "DELETE FROM journal_records WHERE pid = ? AND seq = ?"
    connection.execute(query, (record.pid, record.seq))


def open_records(connection: apsw.Connection, pid: Pid | None = None) -> list[Record]:
    """The records without an outcome, of all processes or one, in order. Cost: looks at each of their records."""
    which, values = ("pid = ? AND", (pid,)) if pid is not None else ("", ())
    rows = connection.execute(
        f"SELECT {ROW_COLUMNS} FROM journal_records WHERE {which} outcome = 'open' ORDER BY pid, seq",  # noqa: S608 - our own words
        values,
    )
    reader = TextReader(connection)
    return [_row(columns, reader, texts=False).record for columns in rows]


def last_unix_s(connection: apsw.Connection, pid: Pid) -> float:
    """When a process last began or ended a call; 0 if it made none."""
    query = "SELECT ifnull(max(max(begun, ended)), 0.0) FROM journal_records WHERE pid = ?"
    return float(connection.execute(query, (pid,)).get)


def last_seqs(connection: apsw.Connection) -> dict[Pid, int]:
    """The number of the last record of each process."""
    rows = connection.execute("SELECT pid, max(seq) FROM journal_records GROUP BY pid")
    return {Pid(int(pid)): int(seq) for pid, seq in rows}


def sizes(connection: apsw.Connection) -> tuple[int, int, int]:
    """How many records and texts there are, and the bytes of the texts."""
    n_records = int(connection.execute("SELECT count(*) FROM journal_records").get)
    query = "SELECT count(*), ifnull(sum(length(data)), 0) FROM journal_texts"
    n_texts, n_bytes = connection.execute(query).get
    return n_records, int(n_texts), int(n_bytes)


def survey(connection: apsw.Connection) -> list[Held]:
    """What each process has here. Its size is that of its rows and of what only it asked and was told, about."""
    rows = connection.execute(
        """
        SELECT pid, max(seq), max(begun), sum(? + ifnull(length(answer), 0) + ifnull(length(asked.data), 0)
            + ifnull(length(told.data), 0) + ifnull(length(said.data), 0))
        FROM journal_records LEFT JOIN journal_texts asked ON asked.key = intent
            LEFT JOIN journal_texts told ON told.key = answer_text LEFT JOIN journal_texts said ON said.key = message
        GROUP BY pid
        """,
        (ROW_BYTES,),
    )
    return [Held(Pid(int(pid)), int(seq), float(unix_s), int(n)) for pid, seq, unix_s, n in rows]


def collect(connection: apsw.Connection) -> int:
    """Remove the texts that no record needs. Returns: how many. Cost: reads all keys of records and texts."""
    connection.execute(
        """
        WITH RECURSIVE used (key) AS (
            SELECT intent FROM journal_records UNION SELECT said FROM journal_records WHERE said IS NOT NULL
            UNION SELECT answer_text FROM journal_records WHERE answer_text IS NOT NULL
            UNION SELECT message FROM journal_records WHERE message IS NOT NULL
            UNION SELECT parent FROM journal_texts JOIN used USING (key)
        )
        DELETE FROM journal_texts WHERE key NOT IN (SELECT key FROM used)
        """
    )
    return connection.changes()


def _save_end(connection: apsw.Connection, record: Record) -> None:
    query = "SELECT said FROM journal_records WHERE pid = ? AND seq = ?"
    said = connection.execute(query, (record.pid, record.seq)).get
    answer, answer_text, message = _put_answer(connection, record.answer, said)
    connection.execute(
        "UPDATE journal_records SET outcome = ?, ended = ?, waited = ?, ran = ?, n_preemptions = ?, answer = ?, "
        "answer_text = ?, message = ?, n_urgent = ? WHERE pid = ? AND seq = ? AND outcome <> 'done'",
        (record.outcome.value, record.ended_unix_s, record.waited_s, record.ran_s, record.n_preemptions, answer,
         answer_text, message, record.n_urgent, record.pid, record.seq),
    )  # fmt: skip


def _put_answer(
    connection: apsw.Connection, answer: Written | None, said: int | None
) -> tuple[bytes | None, int | None, int | None]:
    """The columns `answer`, `answer_text` and `message`."""
    if answer is None:
        return None, None, None
    message = None
    if answer.messages is not None:
        message = put_chain(connection, answer.messages, said or NO_MESSAGES)
    if len(answer.head) <= INLINE_BYTES:
        return answer.head, None, message
    text = put(connection, Link(digest_of(answer.head), answer.head), NO_MESSAGES)
    return None, text, message


def _cut_short(record: Record) -> bytes:
    """What is kept of a call: nothing of one that is too long, unless it hands in how a call of a tool ended, which is told again, or a function made it, and it is done again."""
    assert record.intent is not None, "it is read and not written"
    head = record.intent.head
    is_needed = record.call in HANDING_IN or (record.job and record.call in WITH_TOOLS)
    return head if is_needed or len(head) <= MAX_INTENT_BYTES else b""


Columns = tuple[
    int, int, str, bytes, str, float, str, str, float, float, float, int, int, int, str, int,
    int, int | None, bytes | None, int | None, int | None,
]  # fmt: skip


def _row(columns: Iterable[object], reader: TextReader, *, texts: bool) -> Row:
    """A row from its columns in the order of `load`."""
    values = msgspec.convert(tuple(columns), Columns)
    record = Record(
        Pid(values[0]), values[1], values[2], values[3], Effect(values[4]), values[5], Where(values[6]),
        Outcome(values[7]), "", *values[8:13],
    )  # fmt: skip
    record.within, record.cure, record.job = values[13:16]
    intent, said, answer, answer_text, message = values[16:]
    is_fault = record.outcome is Outcome.FAULT
    is_short = answer_text is None and message is None
    answered = b""
    if texts or is_fault or is_short:
        answered = _joined_answer(reader, answer, answer_text, message)
    if is_fault:
        record.code = decode_fault(answered).code
    if not texts:
        return Row(record, answer=answered if is_short else b"")
    return Row(record, _joined_call(reader, intent, said), answered)


def _keys(connection: apsw.Connection, names: str, record: Record) -> tuple[object, ...]:
    """Columns of a record that say where its texts are."""
    query = f"SELECT {names} FROM journal_records WHERE pid = ? AND seq = ?"  # noqa: S608 - our own words
    found: tuple[object, ...] | None = connection.execute(
        query, (record.pid, record.seq)
    ).fetchone()
    if found is None:
        raise DiskFailed(
            f"the journal's record {record.seq} of process {record.pid} is gone", hint="`aios fsck`"
        )
    return found


def _joined_call(reader: TextReader, intent: int, said: int | None) -> bytes:
    return join_call(reader.text(intent), None if said is None else reader.chain(said))


def _joined_answer(
    reader: TextReader, answer: bytes | None, answer_text: int | None, message: int | None
) -> bytes:
    if answer is None and answer_text is not None:
        answer = reader.text(answer_text)
    return b"" if answer is None else join_answer(answer, reader.text(message) if message else None)
