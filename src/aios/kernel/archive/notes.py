"""Notes and interactions in and out of an archive. Runs in one read, or one write, of the database.

A note that comes in gets a new id. One that is there already, by who wrote it with which call, when and what, is not written twice; so
taking the same archive in again restores what is missing and changes nothing else. Notes of processes go with their kernel, and are
in no archive.
"""

import json
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import apsw
import msgspec

from aios.abi.memory import Scope
from aios.errors import Conflict
from aios.kernel.archive.format import (
    NoteEntry,
    SavedInteraction,
    SavedLink,
    SavedNote,
    SavedReplacement,
    damaged,
)
from aios.kernel.archive.taken import Taken
from aios.kernel.memory import tables
from aios.readers import convert

KEY_BYTES = 16
_NOTES = (
    "SELECT n.id, s.scope, s.owner, s.name, n.text, n.tags, n.importance, n.owner, n.name, n.pid, n.seq, n.source, "
    "n.created_unix_s, n.valid_from_unix_s, n.valid_to_unix_s, n.expires_unix_s, n.n_used, ifnull(v.embedder, ''), "
    "ifnull(v.vector, x''), n.taint FROM memory_notes n JOIN memory_spaces s ON s.id = n.space "
    "LEFT JOIN memory_vectors v ON v.note = n.id WHERE s.scope != 'process' ORDER BY n.id"
)
TAGS_COLUMN = 5
_KEPT = "SELECT n.id FROM memory_notes n JOIN memory_spaces s ON s.id = n.space WHERE s.scope != 'process'"

_REPLACEMENTS = f"SELECT o.id, n.id FROM memory_notes n JOIN memory_notes o ON o.id = n.supersedes AND o.superseded_by = n.id WHERE n.id IN ({_KEPT})"  # noqa: S608 - our own words
_LINKS = f"SELECT a, b FROM memory_links WHERE a IN ({_KEPT}) AND b IN ({_KEPT})"  # noqa: S608 - the same


def save_notes(connection: apsw.Connection) -> Iterator[NoteEntry]:
    """All notes that outlive their kernel, what took the place of what, links, and all interactions."""
    for row in connection.execute(_NOTES):
        yield _saved(row)
    for old, new in connection.execute(f"{_REPLACEMENTS} ORDER BY n.id"):
        yield SavedReplacement(old, new)
    for a, b in connection.execute(f"{_LINKS} ORDER BY a, b"):
        yield SavedLink(a, b)
    for record in connection.execute(
        "SELECT owner, name, id, unix_s, kind, text, taint FROM memory_interactions ORDER BY owner, name, id"
    ):
        yield SavedInteraction(*record)


class NoteIntake:
    """Takes notes in, inside one write.

    Args:
        connection: The writer's.
        taken: Told what came of it.
        keeps_mine: Leave the interactions of an agent alone that has others here; else that is a conflict.
    """

    def __init__(self, connection: apsw.Connection, taken: Taken, *, keeps_mine: bool) -> None:
        self._connection = connection
        self._taken = taken
        self._keeps_mine = keeps_mine
        self._kept_agents: set[tuple[str, str]] = set()
        for table in ("archive_known (key BLOB", "archive_notes (old INTEGER"):
            connection.execute(
                f"CREATE TEMP TABLE {table} PRIMARY KEY, note INTEGER NOT NULL) WITHOUT ROWID"
            )
        known = ((_key(_saved(row)), row[0]) for row in connection.execute(_NOTES))
        connection.executemany("INSERT OR IGNORE INTO archive_known VALUES (?, ?)", known)

    def finish(self) -> None:
        """All entries are taken in: let the notes be found by their words."""
        tables.index_words(self._connection)

    def close(self) -> None:
        """Forget what was needed on the way."""
        for table in ("archive_known", "archive_notes"):
            self._connection.execute(f"DROP TABLE IF EXISTS temp.{table}")

    def take(self, entry: NoteEntry) -> None:
        """Take an entry in.

        Raises:
            Conflict: An agent has said something else here.
            InvalidCall: It refers to a note that did not stand before it.
        """
        match entry:
            case SavedNote():
                self._take_note(entry)
            case SavedReplacement():
                self._replace(self._note(entry.old), self._note(entry.new))
            case SavedLink():
                one, other = self._note(entry.a), self._note(entry.b)
                if one == other:
                    raise damaged(f"note {entry.a} is linked with itself")
                tables.set_link(self._connection, one, other, is_on=True)
            case SavedInteraction():
                self._take_interaction(entry)

    def _take_note(self, saved: SavedNote) -> None:
        note = self._find("SELECT note FROM archive_known WHERE key = ?", (_key(saved),))
        if note is None:
            note = self._insert(saved)
            self._taken.n_notes += 1
        else:
            self._taken.n_known += 1
        self._connection.execute(
            "INSERT OR REPLACE INTO archive_notes VALUES (?, ?)", (saved.id, note)
        )

    def _insert(self, saved: SavedNote) -> int:
        connection = self._connection
        key = (Scope(saved.scope), saved.space_owner, saved.space_name)
        connection.execute(
            "INSERT INTO memory_notes (space, text, tags, importance, owner, name, pid, seq, source, created_unix_s, "
            "valid_from_unix_s, valid_to_unix_s, expires_unix_s, n_used, taint) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(tables.make_space(connection, key), saved.text, json.dumps(saved.tags)),
                *(saved.importance, saved.owner, saved.name, saved.pid, saved.seq, saved.source),
                *(saved.created_unix_s, saved.valid_from_unix_s, saved.valid_to_unix_s),
                *(saved.expires_unix_s, saved.n_used, saved.taint),
            ),
        )
        note = self._find("SELECT max(id) FROM memory_notes")
        assert note is not None, "a note was written"
        # A vector of another length than its embedder's would spoil the index of all; without one, it is made again.
        if saved.embedder.replace(":", "-").rpartition("-")[2] == str(len(saved.vector)):
            connection.execute(
                "INSERT INTO memory_vectors VALUES (?, ?, ?)", (note, saved.embedder, saved.vector)
            )
        return note

    def _replace(self, old: int, new: int) -> None:
        """Let a note take the place of one, unless that was done already, perhaps otherwise, or they lie in two spaces: who may forget the one could not see the other."""
        query = "SELECT count(DISTINCT space) FROM memory_notes WHERE id IN (?, ?)"
        if self._find(query, (old, new)) != 1:
            return
        self._connection.execute(
            "UPDATE memory_notes SET supersedes = ?1 WHERE id = ?2 AND id != ?1 "
            "AND (SELECT superseded_by FROM memory_notes WHERE id = ?1) IS NULL "
            "AND NOT EXISTS (SELECT 1 FROM memory_notes o WHERE o.id = memory_notes.supersedes)",
            (old, new),
        )
        self._connection.execute(
            "UPDATE memory_notes SET superseded_by = ?2, valid_to_unix_s = (SELECT min(n.created_unix_s, "
            "ifnull(memory_notes.valid_to_unix_s, n.created_unix_s)) FROM memory_notes n WHERE n.id = ?2) "
            "WHERE id = ?1 AND superseded_by IS NULL AND (SELECT supersedes FROM memory_notes WHERE id = ?2) = ?1",
            (old, new),
        )

    def _take_interaction(self, saved: SavedInteraction) -> None:
        connection, agent = self._connection, (saved.owner, saved.name)
        if agent in self._kept_agents:
            return
        row = connection.execute(
            "SELECT unix_s, kind, text FROM memory_interactions WHERE owner = ? AND name = ? AND id = ?",
            (*agent, saved.id),
        ).fetchone()
        if row is None:
            last = self._find(
                "SELECT max(id) FROM memory_interactions WHERE owner = ? AND name = ?", agent
            )
            if last is None or saved.id > last:  # what is older was let go of here
                values = (*agent, saved.id, saved.unix_s, saved.kind, saved.text, saved.taint)
                connection.execute(
                    "INSERT INTO memory_interactions (owner, name, id, unix_s, kind, text, taint) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    values,
                )
                self._taken.n_interactions += 1
        elif row == (saved.unix_s, saved.kind, saved.text):
            self._taken.n_known += 1
        elif self._keeps_mine:
            self._kept_agents.add(agent)
            self._taken.kept.append(f"interactions of {saved.owner}/{saved.name}")
        else:
            raise Conflict(
                f"{saved.owner}/{saved.name} has other interactions here, from {saved.id} on",
                hint="leave what is here as it is with --keep-mine, or use another AIOS_HOME",
            )

    def _note(self, old: int) -> int:
        note = self._find("SELECT note FROM archive_notes WHERE old = ?", (old,))
        if note is None:
            raise damaged(f"note {old} is named before it stands there")
        return note

    def _find(self, sql: str, values: tuple[int | str | bytes, ...] = ()) -> int | None:
        """The number that a question has as its answer."""
        row = self._connection.execute(sql, values).fetchone()
        return None if row is None else msgspec.convert(row[0], int | None)


def _saved(row: Sequence[object]) -> SavedNote:
    tags = json.loads(str(row[TAGS_COLUMN]))
    return convert(("note", *row[:TAGS_COLUMN], tags, *row[TAGS_COLUMN + 1 :]), SavedNote)


def _key(saved: SavedNote) -> bytes:
    """What makes a note the same as another: where it lies, who wrote it with which call and when, and its text."""
    what = (
        *(saved.scope, saved.space_owner, saved.space_name, saved.owner, saved.name),
        *(saved.pid, saved.seq, saved.created_unix_s, saved.text),
    )
    return blake2b(msgspec.msgpack.encode(what), digest_size=KEY_BYTES).digest()
