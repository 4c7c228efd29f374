"""A folder as it is, or was at a moment, as the folder of somebody else: the files of a process that was forked.

Contents are shared: a file costs a row or two, however long it is. Runs in the database's writer thread.
"""

import apsw

from aios.kernel.storage.content import retain_content
from aios.kernel.storage.paths import root_of
from aios.kernel.storage.tables import PAST, files_below
from aios.kernel.storage.versions import Transaction

NOW = (
    "SELECT f.path AS path, f.content AS content, f.size_bytes AS size_bytes, v.taint AS taint FROM files f "
    "JOIN versions v ON v.path = f.path AND v.version = f.version WHERE f.path > ? AND f.path < ?"
)
THEN = (
    "SELECT path, content, size_bytes, taint FROM (SELECT path, content, size_bytes, taint, max(version) FROM versions "
    "WHERE path > ? AND path < ? AND unix_s <= ? GROUP BY path) WHERE content NOT NULL"
)

PUT = (
    "INSERT INTO versions (path, version, content, size_bytes, tx, boot, pid, author, unix_s, message, taint) "
    "SELECT ? || substr(path, ?), 1, content, size_bytes, ?, ?, ?, ?, ?, ?, taint"
)
LIST = (
    "INSERT INTO files SELECT path, rtrim(rtrim(path, replace(path, '/', '')), '/'), 1, content, size_bytes, unix_s "
    "FROM versions WHERE path > ? AND path < ?"
)
COUNT = (
    "UPDATE contents SET n_refs = n_refs + n FROM (SELECT content, count(*) AS n FROM versions WHERE path > ? AND path < ? "
    "GROUP BY content) AS new WHERE id = new.content"
)
SUM = "SELECT count(*), ifnull(sum(size_bytes), 0) FROM versions WHERE path > ? AND path < ?"


def branch(
    transaction: Transaction,
    source: str,
    target: str,
    *,
    unix_s: float | None = None,
    told: str = "",
) -> int:
    """Make `target` what `source` is, or was at a moment; what is there under the same name is deleted. Returns: how many files.

    Its versions tell where they are from: `told`, or the source.

    Cost: 15 us a file for a target that nobody had before.
    """
    connection, note = transaction.connection, f"from {told or source}"
    if is_unused(connection, target):
        return _copied(transaction, source, target, unix_s=unix_s, note=note)
    query, values = _question(source, unix_s)
    rows = list(connection.execute(query, values))
    then = {target + path.removeprefix(source): row for path, *row in rows}
    for each in files_below(connection, target):
        if each.path not in then:
            transaction.set_content(each.path, None, None, note="left by another process")
    for path, (content, size_bytes, taint) in then.items():
        retain_content(connection, content)
        transaction.set_content(path, content, size_bytes, note=note, taint=taint)
    return len(then)


def is_unused(connection: apsw.Connection, folder: str) -> bool:
    """Whether nothing ever was in a folder, or in its place, as far as is known."""
    query = "SELECT 1 FROM versions WHERE path = ? OR (path > ? AND path < ?) LIMIT 1"
    return connection.execute(query, (folder, *_span(folder))).fetchone() is None


def count_files(
    connection: apsw.Connection, folder: str, *, unix_s: float | None = None, limit: int
) -> int:
    """How many files are in a folder, or were at a moment; counted up to a limit."""
    query, values = _question(folder, unix_s)
    found: int = connection.execute(f"SELECT count(*) FROM ({query} LIMIT ?)", (*values, limit)).get  # noqa: S608 - our own words
    return found


def count_versions(connection: apsw.Connection, folder: str, *, limit: int) -> int:
    """How many versions there are of what is or was in a folder; counted up to a limit."""
    query = "SELECT count(*) FROM (SELECT 1 FROM versions WHERE path > ? AND path < ? LIMIT ?)"
    found: int = connection.execute(query, (*_span(folder), limit)).get
    return found


def _span(folder: str) -> tuple[str, str]:
    return f"{folder}/", f"{folder}/{PAST}"


def _question(source: str, unix_s: float | None) -> tuple[str, tuple[str | float, ...]]:
    return (NOW, _span(source)) if unix_s is None else (THEN, (*_span(source), unix_s))


def _copied(
    transaction: Transaction, source: str, target: str, *, unix_s: float | None, note: str
) -> int:
    """All files at once, as first versions with a reference each: a fifth of what it takes file by file."""
    connection, author = transaction.connection, transaction.author
    query, values = _question(source, unix_s)
    put = f"{PUT} FROM ({query})"
    who = (transaction.number, author.boot, author.pid, author.home, author.unix_s)
    connection.execute(put, (target, len(source) + 1, *who, note, *values))
    connection.execute(LIST, _span(target))
    connection.execute(COUNT, _span(target))
    n_files, size_bytes = connection.execute(SUM, _span(target)).get
    if n_files:
        transaction.count(root_of(target), n_files, size_bytes)
    return int(n_files)
