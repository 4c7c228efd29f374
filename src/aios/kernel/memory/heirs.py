"""The notes of an agent that is no more: removed, or handed to another. Inside a write; the index is told by `MemoryManager.reindex`."""

import apsw

from aios.abi.memory import Scope
from aios.kernel.memory import tables

IN_FAMILY = "(name = ?2 OR (name > ?2 || '+' AND name < ?2 || ','))"
"""It is an agent, or one of those below it, whose keys begin with its own and a plus (`,` is behind that)."""
MINE = f"SELECT id FROM memory_spaces WHERE owner = ?1 AND scope = 'agent' AND {IN_FAMILY}"  # noqa: S608 - our own words


def notes_of(connection: apsw.Connection, owner: str, agent: str) -> tuple[int, ...]:
    """The notes of an agent, and of those below it."""
    rows = connection.execute(
        f"SELECT id FROM memory_notes WHERE space IN ({MINE}) ORDER BY id",  # noqa: S608 - our own words
        (owner, agent),
    )
    return tuple(int(str(row[0])) for row in rows)


def hand_over(connection: apsw.Connection, owner: str, agent: str, heir: str) -> tuple[int, ...]:
    """Give the notes of an agent, and of those below it, to another agent of its owner. Returns: which."""
    found = notes_of(connection, owner, agent)
    if found:
        space = tables.make_space(connection, (Scope.AGENT, owner, heir))
        connection.executemany(
            "UPDATE memory_notes SET space = ? WHERE id = ?", ((space, each) for each in found)
        )
    return found


def erase(connection: apsw.Connection, owner: str, agent: str) -> tuple[int, ...]:
    """Remove the notes of an agent, and of those below it. Returns: which."""
    found = notes_of(connection, owner, agent)
    connection.executemany("DELETE FROM memory_notes WHERE id = ?", ((each,) for each in found))
    connection.execute(
        f"DELETE FROM memory_spaces WHERE id IN ({MINE}) AND NOT EXISTS "  # noqa: S608 - our own words
        "(SELECT 1 FROM memory_notes WHERE space = memory_spaces.id)",
        (owner, agent),
    )
    return found
