"""The tables of long-term memory, and what is asked of them. Every function runs inside a write or a read of the database.

A *space* is who may read: a scope, with the owner and the agent or process that it belongs to. Each note lies in one space, and every question
names the spaces that it may look into.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

import apsw
import msgspec
from msgspec import Struct

from aios.abi.memory import Note, Scope
from aios.kernel.lineage import path_of
from aios.kernel.memory.recall import Traits
from aios.readers import convert

_NOTE = (
    "n.id, n.text, s.scope, iif(s.scope = 'agent', s.name, ''), n.owner, n.name, n.pid, n.seq, n.source, n.created_unix_s, n.valid_from_unix_s, n.valid_to_unix_s, "
    "n.expires_unix_s, n.tags, n.importance, n.n_used, n.supersedes, n.superseded_by, n.taint"
)
_FROM = "FROM memory_notes n JOIN memory_spaces s ON s.id = n.space"
TRAITS = "n.id, :now - n.created_unix_s, n.n_used, n.importance"
"""What ranking looks at in a note, by its id."""
PAGE_CHARS = 4 << 20
"""Of the texts of notes, at which a page of them ends: up to 16 MiB, and a packet holds 64."""

SpaceKey = tuple[Scope, str, str]
"""The scope of a space, and the owner and the agent or process that it belongs to; the column of the last is called `name`."""


class Filter(Struct, frozen=True):
    """Which notes may be found. `spaces` are ids; the validity is not looked at when `at_unix_s` is None."""

    spaces: tuple[int, ...]
    now_unix_s: float
    tags: tuple[str, ...] = ()
    since_unix_s: float | None = None
    at_unix_s: float | None = None
    include_superseded: bool = False

    @property
    def is_narrow(self) -> bool:
        """It asks for more than spaces and validity, so that few notes of a space may pass."""
        return bool(self.tags) or self.since_unix_s is not None

    def condition(self) -> tuple[str, dict[str, str | float]]:
        """The condition on `n`, and its values."""
        parts = [
            f"n.space IN ({','.join(str(space) for space in self.spaces)})",
            "(n.expires_unix_s IS NULL OR n.expires_unix_s > :now)",
        ]
        values: dict[str, str | float] = {"now": self.now_unix_s}
        if not self.include_superseded:
            parts.append("n.superseded_by IS NULL")
        if self.tags:
            parts.append(
                "NOT EXISTS (SELECT 1 FROM json_each(:tags) t WHERE t.value NOT IN (SELECT value FROM json_each(n.tags)))"
            )
            values["tags"] = json.dumps(self.tags)
        if self.since_unix_s is not None:
            parts.append("n.created_unix_s > :since")
            values["since"] = self.since_unix_s
        if self.at_unix_s is not None:
            parts.append("n.valid_from_unix_s <= :at")
            if not self.include_superseded:
                parts.append("(n.valid_to_unix_s IS NULL OR n.valid_to_unix_s > :at)")
            values["at"] = self.at_unix_s
        return " AND ".join(parts), values


def find_space(connection: apsw.Connection, key: SpaceKey) -> int | None:
    """The id of a space, if it exists."""
    scope, owner, name = key
    found: int | None = connection.execute(
        "SELECT id FROM memory_spaces WHERE scope = ? AND owner = ? AND name = ?",
        (scope.value, owner, name),
    ).get
    return found


def find_spaces(connection: apsw.Connection, keys: Iterable[SpaceKey]) -> tuple[int, ...]:
    """The ids of those of these spaces that exist."""
    found = (find_space(connection, key) for key in keys)
    return tuple(space for space in found if space is not None)


def all_spaces(connection: apsw.Connection, scopes: Collection[Scope]) -> tuple[int, ...]:
    """The ids of all spaces of these scopes."""
    values = json.dumps([scope.value for scope in scopes])
    rows = connection.execute(
        "SELECT id FROM memory_spaces WHERE scope IN (SELECT value FROM json_each(?))", (values,)
    )
    return tuple(ints(rows))


def make_space(connection: apsw.Connection, key: SpaceKey) -> int:
    """The id of a space, which is made if it is not there."""
    found = find_space(connection, key)
    if found is not None:
        return found
    scope, owner, name = key
    connection.execute(
        "INSERT INTO memory_spaces (scope, owner, name) VALUES (?, ?, ?)",
        (scope.value, owner, name),
    )
    return connection.last_insert_rowid()


def insert(connection: apsw.Connection, space: int, note: Note) -> int:
    """Write a note (its id is not looked at), which `index_words` must follow in the same commit. Returns: its id."""
    origin = note.origin
    note_id: int = connection.execute(
        "INSERT INTO memory_notes (space, text, tags, importance, owner, name, pid, seq, source, created_unix_s, "
        "valid_from_unix_s, valid_to_unix_s, expires_unix_s, supersedes, taint) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (
            space,
            note.text,
            json.dumps(note.tags),
            note.importance,
            origin.owner,
            origin.name,
            origin.pid,
            origin.seq,
            origin.source,
            note.created_unix_s,
            note.valid_from_unix_s,
            note.valid_to_unix_s,
            note.expires_unix_s,
            note.supersedes,
            note.taint,
        ),
    ).get
    if note.supersedes is not None:
        connection.execute(
            "UPDATE memory_notes SET superseded_by = ?1, valid_to_unix_s = min(?2, ifnull(valid_to_unix_s, ?2)) WHERE id = ?3",
            (note_id, note.created_unix_s, note.supersedes),
        )
    return note_id


def index_words(connection: apsw.Connection) -> None:
    """Let the notes that were written since the last time be found by their words."""
    connection.execute(
        "INSERT INTO memory_words (rowid, text) SELECT id, text FROM memory_notes WHERE id > (SELECT last FROM memory_worded)"
    )
    connection.execute(
        "UPDATE memory_worded SET last = max(last, (SELECT ifnull(max(id), 0) FROM memory_notes))"
    )


def find_note(connection: apsw.Connection, note: int, which: Filter) -> tuple[int, Note] | None:
    """The space of a note and the note, if it passes."""
    condition, values = which.condition()
    rows = connection.execute(
        f"SELECT n.space, {_NOTE} {_FROM} WHERE n.id = :id AND {condition}",
        {**values, "id": note},
    ).fetchall()
    return (ints(rows)[0], _note(rows[0][1:])) if rows else None


def notes_of(connection: apsw.Connection, ids: Collection[int], which: Filter) -> dict[int, Note]:
    """Those of these notes that pass."""
    condition, values = which.condition()
    rows = connection.execute(
        # The texts are fixed; what comes from callers is bound. A cross join keeps SQLite from the index of spaces, which takes twice as long.
        f"SELECT {_NOTE} FROM json_each(:ids) i CROSS JOIN memory_notes n ON n.id = i.value "  # noqa: S608
        f"CROSS JOIN memory_spaces s ON s.id = n.space WHERE {condition}",
        {**values, "ids": json.dumps(list(ids))},
    )
    return {note.id: note for note in map(_note, rows)}


def traits_of(
    connection: apsw.Connection, ids: Collection[int], which: Filter
) -> dict[int, Traits]:
    """What ranking looks at in those of these notes that pass."""
    condition, values = which.condition()
    rows = connection.execute(
        f"SELECT {TRAITS} FROM json_each(:ids) i CROSS JOIN memory_notes n ON n.id = i.value WHERE {condition}",  # noqa: S608 - the same: fixed texts
        {**values, "ids": json.dumps(list(ids))},
    )
    return traits_from(rows)


def page(
    connection: apsw.Connection, which: Filter, *, after: int, limit: int
) -> tuple[tuple[Note, ...], int]:
    """The notes after an id that pass, and how many there are; fewer than `limit` once their texts are long enough."""
    condition, values = which.condition()
    values = {**values, "after": after, "limit": limit}
    where = f"{_FROM} WHERE n.id > :after AND {condition}"
    n_all = ints(connection.execute(f"SELECT count(*) {where}", values))[0]
    rows = connection.execute(f"SELECT {_NOTE} {where} ORDER BY n.id LIMIT :limit", values)
    notes, n_chars = list[Note](), 0
    for row in rows:
        notes.append(_note(row))
        n_chars += len(notes[-1].text)
        if n_chars >= PAGE_CHARS:
            break
    return tuple(notes), n_all


def in_force(connection: apsw.Connection, notes: Collection[int]) -> dict[int, int]:
    """Those of these notes that are there and that no other took the place of, with their spaces."""
    rows = connection.execute(
        "SELECT id, space FROM memory_notes WHERE id IN (SELECT value FROM json_each(?)) AND superseded_by IS NULL",
        (json.dumps(list(notes)),),
    )
    return dict(msgspec.convert(list(rows), list[tuple[int, int]]))


def ids_of(connection: apsw.Connection, which: Filter) -> list[int]:
    """The ids of all notes that pass."""
    condition, values = which.condition()
    return ints(connection.execute(f"SELECT n.id {_FROM} WHERE {condition}", values))


def delete_with_history(connection: apsw.Connection, note: int) -> tuple[int, ...]:
    """Delete a note and those whose place it took. Returns: their ids."""
    rows = connection.execute(
        "WITH RECURSIVE chain (id) AS (SELECT ? UNION SELECT n.supersedes FROM memory_notes n JOIN chain ON chain.id = n.id "
        "WHERE n.supersedes IS NOT NULL) SELECT id FROM chain",
        (note,),
    ).fetchall()
    ids = tuple(ints(rows))
    connection.executemany("DELETE FROM memory_notes WHERE id = ?", [(each,) for each in ids])
    return ids


def delete_expired(connection: apsw.Connection, now_unix_s: float) -> None:
    """Delete the notes whose time is over."""
    connection.execute("DELETE FROM memory_notes WHERE expires_unix_s <= ?", (now_unix_s,))


def delete_processes(connection: apsw.Connection) -> None:
    """Delete what belonged to processes of an earlier kernel."""
    connection.execute(
        "DELETE FROM memory_notes WHERE space IN (SELECT id FROM memory_spaces WHERE scope = 'process')"
    )
    connection.execute("DELETE FROM memory_spaces WHERE scope = 'process'")


def n_notes_of(connection: apsw.Connection, owner: str) -> int:
    """How many notes processes of an owner have written that are still there, with those that were superseded."""
    found: int | None = connection.execute(
        "SELECT n_notes FROM memory_counts WHERE owner = ?", (owner,)
    ).get
    return found or 0


def n_gone(connection: apsw.Connection) -> int:
    """How many notes were ever deleted: what was counted of them holds as long as that is the same, but for those that came."""
    (gone,) = ints(
        connection.execute(
            "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'memory_notes'), 0) - (SELECT ifnull(sum(n_notes), 0) FROM memory_counts)"
        )
    )
    return gone


def n_in(connection: apsw.Connection, spaces: Collection[int], *, most: int) -> int:
    """How many notes there are in some spaces, with those that were superseded; at most `most`."""
    listed = ",".join(map(str, spaces))
    (found,) = ints(
        connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM memory_notes WHERE space IN ({listed}) LIMIT ?)",  # noqa: S608 - numbers of ours
            (most,),
        )
    )
    return found


def n_notes(connection: apsw.Connection) -> int:
    """How many notes there are, with those that were superseded."""
    return ints(connection.execute("SELECT count(*) FROM memory_notes"))[0]


def n_waiting(connection: apsw.Connection, embedder: str) -> int:
    """How many notes in force have no vector of this embedder's. Cost: 50 ms for 100,000 notes."""
    rows = connection.execute(
        "SELECT count(*) FROM memory_notes n LEFT JOIN memory_vectors v ON v.note = n.id AND v.embedder = ? "
        "WHERE v.note IS NULL AND n.superseded_by IS NULL",
        (embedder,),
    )
    return ints(rows)[0]


def probes_of(connection: apsw.Connection, embedder: str) -> list[bytes] | None:
    """What an embedder made of the probes, as `embedding.packed` has it; None if it is not known."""
    found = connection.execute(
        "SELECT probes FROM memory_embedders WHERE name = ?", (embedder,)
    ).fetchone()
    return None if found is None else msgspec.msgpack.decode(found[0], type=list[bytes])


def keep_probes(connection: apsw.Connection, embedder: str, probes: Sequence[bytes]) -> None:
    """Know an embedder by what it made of the probes."""
    connection.execute(
        "INSERT INTO memory_embedders VALUES (?, ?)", (embedder, msgspec.msgpack.encode(probes))
    )


def links_of(connection: apsw.Connection, note: int, which: Filter) -> tuple[int, ...]:
    """The ids of the notes that one is linked with and that pass."""
    rows = connection.execute(
        "SELECT b FROM memory_links WHERE a = ?1 UNION SELECT a FROM memory_links WHERE b = ?1",
        (note,),
    ).fetchall()
    return tuple(sorted(traits_of(connection, ints(rows), which)))


def links_from(connection: apsw.Connection, notes: Collection[int]) -> list[tuple[int, int]]:
    """The links of some notes, each as (one of them, the other end)."""
    ids = json.dumps(list(notes))
    rows = connection.execute(
        "SELECT a, b FROM memory_links WHERE a IN (SELECT value FROM json_each(?1)) "
        "UNION SELECT b, a FROM memory_links WHERE b IN (SELECT value FROM json_each(?1))",
        (ids,),
    )
    return msgspec.convert(list(rows), list[tuple[int, int]])


def link_neighbours(
    connection: apsw.Connection, note: int, space: int, neighbours: Collection[int]
) -> None:
    """Link a note with those of its neighbours that are still there, in its space and in force."""
    if neighbours:
        marks = ",".join("?" * len(neighbours))
        connection.execute(
            "INSERT OR IGNORE INTO memory_links SELECT min(id, ?1), max(id, ?1) FROM memory_notes "  # noqa: S608 - marks only
            f"WHERE space = ?2 AND superseded_by IS NULL AND id != ?1 AND id IN ({marks})",
            (note, space, *neighbours),
        )


def set_tags(connection: apsw.Connection, note: int, tags: Sequence[str], *, taint: str) -> None:
    """Let a note have these tags."""
    connection.execute(
        "UPDATE memory_notes SET tags = ?, taint = ? WHERE id = ?", (json.dumps(tags), taint, note)
    )


def carry_links(connection: apsw.Connection, old: int, new: int) -> None:
    """Link a note with all that the one is linked with whose place it takes."""
    for _, other in links_from(connection, [old]):
        set_link(connection, new, other, is_on=True)


def set_link(connection: apsw.Connection, one: int, other: int, *, is_on: bool) -> None:
    """Link two notes, or no longer."""
    ends = (min(one, other), max(one, other))
    if is_on:
        connection.execute("INSERT OR IGNORE INTO memory_links VALUES (?, ?)", ends)
    else:
        connection.execute("DELETE FROM memory_links WHERE a = ? AND b = ?", ends)


def count_uses(connection: apsw.Connection, uses: Mapping[int, int]) -> None:
    """Add to how often notes were recalled."""
    connection.execute(
        "UPDATE memory_notes SET n_used = n_used + used.value FROM json_each(?) used WHERE memory_notes.id = CAST(used.key AS INTEGER)",
        (json.dumps(uses),),
    )


def traits_from(rows: Iterable[Sequence[object]]) -> dict[int, Traits]:
    """Rows of `TRAITS`, in their order."""
    found = msgspec.convert(list(rows), list[tuple[int, float, int, float]])
    return {note: Traits(age_s, n_used, weight) for note, age_s, n_used, weight in found}


def ints(rows: Iterable[Sequence[object]]) -> list[int]:
    """The first column, of whole numbers."""
    return msgspec.convert([row[0] for row in rows], list[int])


def _note(row: Sequence[object]) -> Note:
    """A note from a row of `_NOTE`."""
    (note, text, scope, agent, owner, name, pid, seq, source, *rest) = row
    created, valid_from, valid_to, expires, tags, importance, n_used, *ends = rest
    supersedes, superseded_by, taint = ends
    return convert(
        {
            "id": note,
            "text": text,
            "scope": scope,
            "origin": {"owner": owner, "name": name, "pid": pid, "seq": seq, "source": source},
            "created_unix_s": created,
            "valid_from_unix_s": valid_from,
            "valid_to_unix_s": valid_to,
            "expires_unix_s": expires,
            "tags": json.loads(str(tags)),
            "importance": importance,
            "n_used": n_used,
            "supersedes": supersedes,
            "superseded_by": superseded_by,
            "taint": taint,
            "agent": path_of(str(agent)),
        },
        Note,
    )
