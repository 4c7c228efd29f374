"""Going back: bring paths back to a version or a moment, undo a transaction or a process.

What changes files runs in the database's writer thread, inside a write; what is to change is found before, in a reader's, for there may be any number of
versions to look through.
"""

import json
from collections.abc import Collection, Iterator, Sequence

import apsw

from aios.abi.storage import FileRollback, FileVersion
from aios.errors import AccessDenied, InvalidCall, NotFound
from aios.kernel.storage.content import retain_content
from aios.kernel.storage.tables import PAST, check_versions, find_file, last_change, taint_of
from aios.kernel.storage.versions import MAX_CALL_CHANGES, Transaction

MAX_FOUND = 10 * MAX_CALL_CHANGES
"""Paths to undo that are looked for: more than any call may."""

Change = tuple[str, int, int]
"""Of what is undone: a path, and the first and the last version."""
Past = tuple[str, int, int]
"""A path with its version at a moment (0: it was not there, or that is purged), and the oldest that is left."""


def forget_marks(connection: apsw.Connection, path: str) -> None:
    """Inside a write: the links to versions at or below a path that are gone, and what undoing knew of them. The numbers of a path with no version left begin again."""
    for table in ("links", "undo_returns"):
        connection.execute(
            f"DELETE FROM {table} WHERE (path = ? OR (path > ? AND path < ?)) AND NOT EXISTS "  # noqa: S608 - our own words
            f"(SELECT 1 FROM versions AS v WHERE v.path = {table}.path AND v.version = {table}.version)",
            (path, f"{path}/", f"{path}/{PAST}"),
        )


def check_rollback(call: FileRollback) -> None:
    """Raise InvalidCall if a rollback says not once what it goes back to, or more than goes together."""
    given = (call.version, call.unix_s, call.transaction, call.pid)
    if sum(each is not None for each in given) != 1:
        raise InvalidCall(
            "give just one of `version`, `unix_s`, `transaction` and `pid`",
            hint="see docs/reference/calls.md",
        )
    if call.with_children and call.pid is None:
        raise InvalidCall("`with_children` goes with `pid`", hint="say whose children")
    if call.path and call.version is None and call.unix_s is None:
        raise InvalidCall(
            "`path` does not go with `transaction` or `pid`, of which all is undone",
            hint="leave it out, or give a `version` or a `unix_s` of the path",
        )


def restore_version(transaction: Transaction, path: str, version: int) -> list[FileVersion]:
    """Bring a file back to a version.

    Raises:
        NotFound: There is no such version, or it was purged.
    """
    restore(transaction, path, version)
    return transaction.versions()


def find_past(connection: apsw.Connection, *, path: str, unix_s: float) -> tuple[int, list[Past]]:
    """What of a file, or of all below a folder, was something else at a moment, and the last change of files until now."""
    found = _since(connection, unix_s, "path = ? OR (path > ? AND path < ?)", path, *_below(path))
    return last_change(connection), found


def _since(connection: apsw.Connection, unix_s: float, where: str, *values: str) -> list[Past]:
    rows = connection.execute(
        "SELECT r.path, r.back, r.first FROM (SELECT path, max(CASE WHEN unix_s <= ? THEN version ELSE 0 END) AS back, "  # noqa: S608 - our own words
        f"min(version) AS first FROM versions WHERE {where} GROUP BY path HAVING back < max(version)) r "
        "LEFT JOIN versions v ON v.path = r.path AND v.version = r.back LEFT JOIN files f ON f.path = r.path "
        "WHERE v.content IS NOT f.content OR (r.back = 0 AND r.first > 1)",
        (unix_s, *values),
    )
    return [(str(path), int(str(back)), int(str(first))) for path, back, first in rows]


def _below(path: str) -> tuple[str, str]:
    return f"{path}/", f"{path}/{PAST}"


def _look_again(
    connection: apsw.Connection, path: str, unix_s: float, past: tuple[int, Sequence[Past]]
) -> list[Past]:
    """What `find_past` found, as it is by now: only what has changed meanwhile is looked at."""
    until, found = past
    rows = connection.execute(
        "SELECT DISTINCT path FROM versions WHERE change > ? AND (+path = ? OR (+path > ? AND +path < ?))",
        (until, path, *_below(path)),
    )
    newer = {str(row[0]) for row in rows}
    now = {row[0]: row for row in found if row[0] not in newer}
    now.update(
        (row[0], row) for each in newer for row in _since(connection, unix_s, "path = ?", each)
    )
    return list(now.values())


def rollback_to(
    transaction: Transaction, path: str, *, unix_s: float, past: tuple[int, Sequence[Past]]
) -> list[FileVersion]:
    """Bring a file, or all below a folder, back to a moment; `past` is what `find_past` found.

    What is closed or banned below it is left, and named in the transaction; so is what is there for which nobody knows any more what it was.

    Raises:
        NotFound: Nothing was ever there, or it was purged.
        TooLarge: It is more than the transaction may change.
    """
    rows = _look_again(transaction.connection, path, unix_s, past)
    if not rows:
        check_versions(transaction.connection, path)
    transaction.check_room(len(rows))
    rows.sort(key=lambda row: _is_there(transaction.connection, row[0], row[1]))
    for each, number, first in rows:
        if not number and first > 1:
            # What it was then is purged: nobody knows it, which is not that there was none.
            if each == path and len(rows) == 1:
                raise NotFound(
                    f"what {path} was then is purged",
                    hint="`file_versions` shows the versions that are left",
                )
            transaction.leave(each)
        elif each == path:
            restore(transaction, each, number)
        else:
            _restore_open(transaction, each, number)
    return transaction.versions()


def undo(transaction: Transaction, changes: Sequence[Change]) -> None:
    """Undo changes, given as (path, first version, last version); a path that was changed later is left, and named in the transaction."""
    connection = transaction.connection
    transaction.check_room(len(changes))
    for path, first, last in sorted(changes, key=lambda e: _is_there(connection, e[0], e[1] - 1)):
        newest: int = connection.execute(
            "SELECT max(version) FROM versions WHERE path = ?", (path,)
        ).get
        if newest == last:
            restore(transaction, path, first - 1)
        else:
            transaction.leave(path)


def _is_there(connection: apsw.Connection, path: str, version: int) -> bool:
    """Whether a version has a content. What has none goes first: a name may be a file's before and a folder's after."""
    query = "SELECT 1 FROM versions WHERE path = ? AND version = ? AND content IS NOT NULL"
    return connection.execute(query, (path, version)).fetchone() is not None


def _restore_open(transaction: Transaction, path: str, version: int) -> None:
    """As `restore`, but what is closed, or may not be changed, is left, and named in the transaction if it would change."""
    if transaction.may_write(path) and not transaction.is_closed(path):
        restore(transaction, path, version)
        return
    row = transaction.connection.execute(
        "SELECT content FROM versions WHERE path = ? AND version = ?", (path, version)
    ).fetchone()
    now = find_file(transaction.connection, path)
    if (row[0] if row else None) != (now.content if now else None):
        transaction.leave(path)


def restore(transaction: Transaction, path: str, version: int) -> None:
    """Make the content of an older version the newest; version 0 is that there was none."""
    connection = transaction.connection
    row = connection.execute(
        "SELECT content, size_bytes FROM versions WHERE path = ? AND version = ?", (path, version)
    ).fetchone()
    if row is None and version:
        raise NotFound(
            f"{path} has no version {version}",
            hint="it never had, or it was purged; see `file_versions`",
        )
    content, size_bytes = row or (None, None)
    if content is not None:
        retain_content(connection, content)
    taint, note = taint_of(connection, path, version), f"back to version {version}"
    transaction.set_content(path, content, size_bytes, note=note, taint=taint)


def undo_acts(transaction: Transaction, *, changes: Sequence[Change]) -> list[FileVersion]:
    """Undo changes, as `changes_of` found them and as `undo` does.

    Raises:
        AccessDenied: Some of the files may not be changed; nothing is undone then.
        NotFound: There are none.
        TooLarge: They are more than the transaction may change.
    """
    if not changes:
        raise NotFound("there is nothing to undo", hint="`file_versions` shows who did what")
    transaction.check_room(len(changes))
    if not all(transaction.may_write(path) for path, _, _ in changes):
        raise AccessDenied(
            "some of its files are not yours to change", hint="roll back your own, path by path"
        )
    undo(transaction, changes)
    return transaction.versions()


def tainted_below(connection: apsw.Connection, path: str) -> Iterator[tuple[str, str]]:
    """The paths below a folder where something ever was that has data from outside, each with its source."""
    rows = connection.execute(
        "SELECT path, taint FROM versions WHERE taint != '' AND path > ? AND path < ?",
        _below(path),
    )
    return ((str(each), str(source)) for each, source in rows)


def tainted_acts(
    connection: apsw.Connection, *, changes: Sequence[Change]
) -> Iterator[tuple[str, str]]:
    """As `tainted_below`, of the paths that `undo_acts` tells."""
    for path, _, _ in changes:
        if source := taint_of(connection, path):
            yield path, source


def changes_of(
    connection: apsw.Connection,
    *,
    tx: int | None = None,
    boot: int = 0,
    pids: Collection[int] = (),
) -> list[Change]:
    """What a transaction, or processes of a boot, have changed last, up to MAX_FOUND and one: each path with the first and last version that nobody else's comes between.

    Workspaces are `undo`'s.
    """
    values: tuple[int | str, ...]
    if tx is not None:
        where, values = "tx = ?", (tx,)
    else:
        of_them = json.dumps(list(pids))
        where, values = "boot = ? AND pid IN (SELECT value FROM json_each(?))", (boot, of_them)
    rows = connection.execute(
        f"SELECT path, version FROM versions WHERE {where} AND path NOT GLOB '/workspaces/*' ORDER BY path, version",  # noqa: S608 - our own words
        values,
    )
    runs: dict[str, tuple[int, int]] = {}
    for path, version in rows:
        first, last = runs.get(path, (version, version - 1))
        runs[path] = (first if version == last + 1 else version, version)
        if len(runs) > MAX_FOUND:
            break
    return [(path, first, last) for path, (first, last) in runs.items()]
