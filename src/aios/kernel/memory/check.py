"""What `aios fsck` looks for among the notes: tables and indexes that contradict each other."""

from collections.abc import Collection

import apsw

from aios.abi.memory import NotesChecked
from aios.disk.migrations import versions
from aios.kernel.memory import tables
from aios.kernel.memory.schema import SCHEMA

QUESTIONS = {
    "it says that it took the place of a note that says otherwise": "SELECT n.id FROM memory_notes n JOIN memory_notes o "
    "ON o.id = n.supersedes WHERE o.superseded_by IS NOT n.id",
    "it was superseded by a note that does not know of it": "SELECT o.id FROM memory_notes o LEFT JOIN memory_notes n "
    "ON n.id = o.superseded_by WHERE o.superseded_by IS NOT NULL AND n.supersedes IS NOT o.id",
    "its space is not there": "SELECT id FROM memory_notes WHERE space NOT IN (SELECT id FROM memory_spaces)",
    "it is linked with itself or twice": "SELECT a FROM memory_links WHERE a >= b",
    "its owner's notes are counted wrongly": "SELECT min(n.id) FROM memory_notes n GROUP BY n.owner HAVING count(*) IS NOT "
    "(SELECT c.n_notes FROM memory_counts c WHERE c.owner = n.owner)",
}


def check_notes(
    connection: apsw.Connection, *, embedder: str = "", indexed: Collection[int] | None = None
) -> NotesChecked:
    """Count the notes and find what contradicts; tables of an older AIOS are left for the kernel that brings them up to date. See `find_faults`."""
    if versions(connection).get(SCHEMA.area, 0) != len(SCHEMA.steps):
        return NotesChecked(0, ())
    faults = find_faults(connection, embedder=embedder, indexed=indexed)
    return NotesChecked(tables.n_notes(connection), tuple(faults))


def find_faults(
    connection: apsw.Connection, *, embedder: str = "", indexed: Collection[int] | None = None
) -> list[str]:
    """Every contradiction, in words.

    Args:
        connection: In one read.
        embedder: Whose vectors the index in memory was made of.
        indexed: The notes in that index; None when there is none.
    """
    faults = [
        f"note {note}: {what}"
        for what, sql in QUESTIONS.items()
        for (note,) in connection.execute(sql)
    ]
    faults += _word_faults(connection)
    if indexed is not None:
        faults += _index_faults(connection, embedder, set(indexed))
    return faults


def _word_faults(connection: apsw.Connection) -> list[str]:
    """Notes that the index of words does not have, or has and should not."""
    rows = connection.execute(
        "SELECT id FROM memory_notes EXCEPT SELECT id FROM memory_words_docsize "
        "UNION ALL SELECT id FROM memory_words_docsize WHERE id NOT IN (SELECT id FROM memory_notes)"
    )
    return [f"note {note}: the index of words disagrees" for (note,) in rows]


def _index_faults(connection: apsw.Connection, embedder: str, indexed: set[int]) -> list[str]:
    """Notes that can be found by meaning and should not, or should and cannot."""
    rows = connection.execute(
        "SELECT v.note FROM memory_vectors v JOIN memory_notes n ON n.id = v.note "
        "WHERE v.embedder = ? AND n.superseded_by IS NULL",
        (embedder,),
    )
    differ = {note for (note,) in rows} ^ indexed
    return [f"note {note}: the index of meanings disagrees" for note in sorted(differ)]
