"""All notes and files of a home into one file, and out of it into a home.

Saving reads one snapshot of the database, so it may be done beside a kernel that runs. Taking in is one write: all of it is there, or
nothing; it needs a home that no kernel has open. Both go through the file once, with one entry in memory.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from typing import BinaryIO, Literal

import apsw

from aios.disk.blobs import SCHEMA as BLOBS
from aios.disk.blobs import BlobStore
from aios.disk.migrations import versions
from aios.errors import Conflict
from aios.kernel.archive.files import FileIntake, save_files
from aios.kernel.archive.format import (
    Entry,
    SavedBlob,
    SavedShare,
    SavedVersion,
    Writer,
    read_entries,
)
from aios.kernel.archive.notes import NoteIntake, save_notes
from aios.kernel.archive.taken import Taken, TakenIn
from aios.kernel.memory.interactions import SCHEMA as INTERACTIONS
from aios.kernel.memory.schema import SCHEMA as MEMORY
from aios.kernel.storage.tables import SCHEMA as STORAGE

Part = Literal["notes", "files"]
Report = Callable[[str, int, int | None], None]
"""Told what is done, how many of it were, and of how many."""

REPORTED_ENTRIES = 256
"""After so many there is a report."""


def save_all(
    connection: apsw.Connection,
    blobs: BlobStore,
    out: BinaryIO,
    *,
    parts: frozenset[Part],
    report: Report,
) -> int:
    """Write an archive of one snapshot. Returns: the number of entries.

    Raises:
        Conflict: The tables are those of another AIOS.
        DiskFailed: A content is damaged.
        OSError: `out` cannot be written to.
    """
    connection.execute("BEGIN")
    try:
        found = versions(connection)
        for schema in (BLOBS, STORAGE, MEMORY, INTERACTIONS):
            if found.get(schema.area, 0) != len(schema.steps):
                raise Conflict(
                    "the tables are those of another AIOS",
                    hint="start this one once (`aios serve`), which brings them up to date",
                )
        writer = Writer(out)
        notes = save_notes(connection) if "notes" in parts else ()
        files = save_files(connection, blobs) if "files" in parts else ()
        for entry in _reported(chain(notes, files), "saved", report):
            writer.put(entry)
        writer.seal()
    finally:
        connection.execute("ROLLBACK")
    return writer.n_entries


def check_archive(file: BinaryIO, report: Report) -> None:
    """Read an archive to its end.

    Raises:
        InvalidCall: It is none, or is damaged.
    """
    for _ in _reported(read_entries(file), "checked", report):
        pass


def take_all(
    connection: apsw.Connection,
    blobs: BlobStore,
    file: BinaryIO,
    *,
    keeps_mine: bool,
    report: Report,
) -> TakenIn:
    """Take an archive in: all of it, or nothing if something is raised.

    Args:
        connection: The writer's, outside a transaction, of a home that no kernel has open.
        blobs: Of that home.
        file: At its begin, and checked already; it is checked once more on the way.
        keeps_mine: Where something else is, leave it and go on, instead of a conflict.
        report: Told how far it is.

    Raises:
        Conflict: Something else is here already.
        DiskFailed, ResourceExhausted: The home cannot be written to.
        InvalidCall: The archive is damaged, or contradicts itself.
    """
    taken = Taken()
    with connection, ExitStack() as parts:
        notes = NoteIntake(connection, taken, keeps_mine=keeps_mine)
        parts.callback(notes.close)
        files = FileIntake(connection, blobs, taken, keeps_mine=keeps_mine)
        parts.callback(files.close)
        for entry in _reported(read_entries(file), "taken in", report):
            _take(notes, files, entry)
        notes.finish()
    return TakenIn(
        n_notes=taken.n_notes,
        n_interactions=taken.n_interactions,
        n_versions=taken.n_versions,
        n_shares=taken.n_shares,
        n_known=taken.n_known,
        kept=tuple(taken.kept),
    )


def _take(notes: NoteIntake, files: FileIntake, entry: Entry) -> None:
    if isinstance(entry, SavedBlob | SavedVersion | SavedShare):
        files.take(entry)
    else:
        notes.take(entry)


def _reported(entries: Iterator[Entry], what: str, report: Report) -> Iterator[Entry]:
    n_entries = 0
    for n_entries, entry in enumerate(entries, 1):
        if n_entries % REPORTED_ENTRIES == 0:
            report(what, n_entries, None)
        yield entry
    report(what, n_entries, n_entries)
