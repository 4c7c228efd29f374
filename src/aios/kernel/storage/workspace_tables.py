"""The tables of workspaces and of undoing: which folders there are, who runs in them, what was taken back, what cannot be.

`undo_returns` names the versions that an undo made, with the version whose content each has, and those that an undo found as they should be (below zero: -1 - that version); `undo_notes` what a run did that no version has.
"""

from collections.abc import Iterable, Mapping

import apsw
from msgspec import Struct

from aios.abi.types import Pid
from aios.disk.migrations import Schema

SCHEMA = Schema(
    "workspaces",
    (
        """
        CREATE TABLE workspaces (path TEXT PRIMARY KEY, folder TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE workspace_runs (
            path TEXT NOT NULL,
            pid INTEGER NOT NULL,
            boot INTEGER NOT NULL,
            author TEXT NOT NULL,
            what TEXT NOT NULL
        );
        CREATE TABLE undo_returns (
            path TEXT NOT NULL,
            version INTEGER NOT NULL,
            back_to INTEGER NOT NULL,
            PRIMARY KEY (path, version)
        ) WITHOUT ROWID;
        CREATE TABLE undo_notes (
            pid INTEGER NOT NULL,
            boot INTEGER NOT NULL,
            unix_s REAL NOT NULL,
            what TEXT NOT NULL,
            why TEXT NOT NULL
        );
        CREATE INDEX undo_notes_of_a_process ON undo_notes (pid);
        """,
    ),
)

MAX_NOTES = 100
"""Of one run; the rest is not told one by one."""


class Act(Struct, frozen=True):
    """A run of a tool: by whom, under which kernel, and what its versions say."""

    pid: Pid
    boot: int
    author: str
    what: str


def find_folder(connection: apsw.Connection, path: str) -> str | None:
    """The real folder of a workspace."""
    row = connection.execute("SELECT folder FROM workspaces WHERE path = ?", (path,)).fetchone()
    return None if row is None else str(row[0])


def begin(connection: apsw.Connection, workspace: tuple[str, str], act: Act) -> None:
    """Inside a write: a run begins in a workspace, given by path and folder. What killed kernels had there is over."""
    path = workspace[0]
    connection.execute("INSERT OR IGNORE INTO workspaces VALUES (?, ?)", workspace)
    connection.execute("DELETE FROM workspace_runs WHERE path = ? AND boot != ?", (path, act.boot))
    row = (path, act.pid, act.boot, act.author, act.what)
    connection.execute("INSERT INTO workspace_runs VALUES (?, ?, ?, ?, ?)", row)


def end(connection: apsw.Connection, paths: Iterable[str], act: Act) -> None:
    """Inside a write: a run has ended in these workspaces."""
    for path in paths:
        connection.execute(
            "DELETE FROM workspace_runs WHERE rowid = (SELECT rowid FROM workspace_runs "
            "WHERE path = ? AND pid = ? AND boot = ? LIMIT 1)",
            (path, act.pid, act.boot),
        )


def running(connection: apsw.Connection, path: str) -> list[Act]:
    """The runs in a workspace that have not ended, or were cut off with their kernel."""
    rows = connection.execute(
        "SELECT pid, boot, author, what FROM workspace_runs WHERE path = ?", (path,)
    )
    return [Act(Pid(pid), boot, author, what) for pid, boot, author, what in rows]


def note(connection: apsw.Connection, act: Act, whys: Mapping[str, str], unix_s: float) -> None:
    """Inside a write: a run did, or may have done, something that no version has."""
    for what, why in list(whys.items())[:MAX_NOTES]:
        connection.execute(
            "INSERT INTO undo_notes VALUES (?, ?, ?, ?, ?)", (act.pid, act.boot, unix_s, what, why)
        )


def notes_of(connection: apsw.Connection, pid: Pid, since_unix_s: float) -> list[tuple[str, str]]:
    """What of a process's runs cannot be undone, and why."""
    rows = connection.execute(
        "SELECT DISTINCT what, why FROM undo_notes WHERE pid = ? AND unix_s >= ? ORDER BY rowid",
        (pid, since_unix_s),
    )
    return [(str(what), str(why)) for what, why in rows]
