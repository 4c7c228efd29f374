"""Timers on disk."""

import apsw
import msgspec

from aios.disk.migrations import Schema
from aios.kernel.timers.schedule import TimerRow
from aios.readers import from_msgpack

SCHEMA = Schema(
    "timers", ("CREATE TABLE timers (id INTEGER PRIMARY KEY AUTOINCREMENT, row BLOB NOT NULL)",)
)


def add(connection: apsw.Connection, timer: TimerRow) -> None:
    """A new timer."""
    connection.execute(
        "INSERT INTO timers VALUES (?, ?)", (timer.id, msgspec.msgpack.encode(timer))
    )


def keep(connection: apsw.Connection, timer: TimerRow) -> None:
    """A timer has changed: one that is done goes, and one that was removed meanwhile stays away."""
    if timer.is_done:
        remove(connection, timer.id)
    else:
        update(connection, timer)


def update(connection: apsw.Connection, timer: TimerRow) -> None:
    """A timer has changed, and stays also if it is done; one that was removed meanwhile stays away."""
    row = (msgspec.msgpack.encode(timer), timer.id)
    connection.execute("UPDATE timers SET row = ? WHERE id = ?", row)


def find(connection: apsw.Connection, timer_id: int) -> TimerRow | None:
    """A timer, if it is there."""
    row = connection.execute("SELECT row FROM timers WHERE id = ?", (timer_id,)).fetchone()
    return None if row is None else from_msgpack(row[0], TimerRow)


def remove(connection: apsw.Connection, timer_id: int) -> None:
    """A timer goes."""
    connection.execute("DELETE FROM timers WHERE id = ?", (timer_id,))


def load(connection: apsw.Connection) -> tuple[list[TimerRow], int]:
    """All timers, and the highest number that was given."""
    rows = connection.execute("SELECT row FROM timers ORDER BY id")
    timers = [from_msgpack(row[0], TimerRow) for row in rows]
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'timers'").fetchone()
    return timers, 0 if last is None else int(last[0])
