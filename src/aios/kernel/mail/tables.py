"""Mail on disk: letters that nobody took yet, who has written to whom, and who subscribes to what."""

from collections.abc import Iterable, Sequence

import apsw
import msgspec
from msgspec import Struct

from aios.abi.deadletters import DeadLetter
from aios.abi.mail import Letter
from aios.abi.types import Pid
from aios.disk.migrations import Schema
from aios.readers import from_msgpack

SCHEMA = Schema(
    "mail",
    (
        """
        CREATE TABLE letters (id INTEGER PRIMARY KEY AUTOINCREMENT, receiver INTEGER NOT NULL, letter BLOB NOT NULL);
        CREATE INDEX letters_by_receiver ON letters (receiver);
        CREATE TABLE correspondents (
            pid INTEGER NOT NULL, sender INTEGER NOT NULL, PRIMARY KEY (pid, sender)
        ) WITHOUT ROWID;
        CREATE TABLE topics (pid INTEGER NOT NULL, topic TEXT NOT NULL, PRIMARY KEY (pid, topic)) WITHOUT ROWID;
        """,
        "CREATE TABLE dead_letters (id INTEGER PRIMARY KEY AUTOINCREMENT, dead BLOB NOT NULL)",
    ),
)


class Stored(Struct, frozen=True):
    """All mail that there is, letters by id."""

    last_id: int
    letters: Sequence[Letter]
    correspondents: Sequence[tuple[Pid, Pid]]
    topics: Sequence[tuple[Pid, str]]
    dead: Sequence[DeadLetter] = ()


def put(connection: apsw.Connection, letters: Iterable[Letter]) -> None:
    """Letters lie in their mailboxes."""
    for letter in letters:
        row = (letter.id, letter.to, msgspec.msgpack.encode(letter))
        connection.execute("INSERT INTO letters VALUES (?, ?, ?)", row)
        pair = (letter.to, letter.sender)
        connection.execute("INSERT OR IGNORE INTO correspondents VALUES (?, ?)", pair)


def remove(connection: apsw.Connection, letters: Iterable[Letter]) -> None:
    """Letters were taken."""
    ids = ((letter.id,) for letter in letters)
    connection.executemany("DELETE FROM letters WHERE id = ?", ids)


def bury(connection: apsw.Connection, dead: Iterable[DeadLetter]) -> None:
    """Letters lie with the dead ones."""
    rows = ((each.letter.id, msgspec.msgpack.encode(each)) for each in dead)
    connection.executemany("INSERT INTO dead_letters VALUES (?, ?)", rows)


def forget_dead(connection: apsw.Connection, ids: Iterable[int]) -> None:
    """Dead letters were sent after all, or dropped."""
    connection.executemany("DELETE FROM dead_letters WHERE id = ?", ((number,) for number in ids))


def set_topic(connection: apsw.Connection, pid: Pid, topic: str, *, is_on: bool) -> None:
    """A process subscribes to a topic, or no longer."""
    verb = "INSERT OR IGNORE INTO topics VALUES (?, ?)"
    query = verb if is_on else "DELETE FROM topics WHERE pid = ? AND topic = ?"
    connection.execute(query, (pid, topic))


def close(connection: apsw.Connection, pid: Pid) -> None:
    """A process has ended: its mailbox goes."""
    connection.execute("DELETE FROM letters WHERE receiver = ?", (pid,))
    connection.execute("DELETE FROM topics WHERE pid = ?", (pid,))
    connection.execute("DELETE FROM correspondents WHERE pid = ?1 OR sender = ?1", (pid,))


def branch(
    connection: apsw.Connection, target: Pid, letters: Iterable[Letter], *, ids: range
) -> list[Letter]:
    """Put copies of letters, in their order, into the mailbox of another process. Returns: as many as there are ids for.

    A copy asks for no receipt and is no dead letter: its sender is told of the letter that it wrote.
    """
    copies = [
        msgspec.structs.replace(
            letter, id=number, to=target, wants_receipt=False, wants_dead_letter=False
        )
        for number, letter in zip(ids, sorted(letters, key=lambda each: each.id), strict=False)
    ]
    put(connection, copies)
    return copies


def letters_of(connection: apsw.Connection, pid: Pid) -> list[Letter]:
    """What waits in a mailbox, oldest first."""
    rows = connection.execute("SELECT letter FROM letters WHERE receiver = ? ORDER BY id", (pid,))
    return [from_msgpack(row[0], Letter) for row in rows]


def follow(connection: apsw.Connection, source: Pid, target: Pid, topics: Iterable[str]) -> None:
    """Let a process answer those whom another may answer, and subscribe to these topics."""
    query = (
        "INSERT OR IGNORE INTO correspondents SELECT ?, sender FROM correspondents WHERE pid = ?"
    )
    connection.execute(query, (target, source))
    for topic in topics:
        set_topic(connection, target, topic, is_on=True)


def topics_of(connection: apsw.Connection, pid: Pid) -> list[str]:
    """What a process subscribes to."""
    rows = connection.execute("SELECT topic FROM topics WHERE pid = ? ORDER BY topic", (pid,))
    return [str(row[0]) for row in rows]


def correspondents_of(connection: apsw.Connection, pid: Pid) -> list[Pid]:
    """Who has written to a process."""
    rows = connection.execute("SELECT sender FROM correspondents WHERE pid = ?", (pid,))
    return [Pid(int(str(row[0]))) for row in rows]


def load(connection: apsw.Connection) -> Stored:
    """Read all of it."""
    query = (
        "SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name IN ('letters', 'dead_letters')"
    )
    last_id = int(connection.execute(query).get)
    rows = connection.execute("SELECT letter FROM letters ORDER BY id")
    pairs = connection.execute("SELECT pid, sender FROM correspondents")
    topics = connection.execute("SELECT pid, topic FROM topics ORDER BY pid, topic")
    dead = connection.execute("SELECT dead FROM dead_letters ORDER BY id")
    return Stored(
        last_id,
        [from_msgpack(row[0], Letter) for row in rows],
        [(Pid(int(pid)), Pid(int(sender))) for pid, sender in pairs],
        [(Pid(int(pid)), str(topic)) for pid, topic in topics],
        [from_msgpack(row[0], DeadLetter) for row in dead],
    )
