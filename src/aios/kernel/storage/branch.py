"""A folder as it was at a moment, as the folder of somebody else: the files of a process that was forked.

Contents are shared: a file costs a row or two, however long it is. Runs in the database's writer thread.
"""

from aios.kernel.storage.content import retain_content
from aios.kernel.storage.tables import PAST, files_below
from aios.kernel.storage.versions import Transaction


def branch(transaction: Transaction, source: str, target: str, unix_s: float) -> int:
    """Make `target` what `source` was at that moment; what was there before under the same name is deleted. Returns: how many files."""
    connection = transaction.connection
    rows = list(
        connection.execute(
            "SELECT path, content, size_bytes, max(version) FROM versions "
            "WHERE path > ? AND path < ? AND unix_s <= ? GROUP BY path",
            (f"{source}/", f"{source}/{PAST}", unix_s),
        )
    )
    then = {target + path.removeprefix(source): row for path, *row in rows if row[0] is not None}
    for each in files_below(connection, target):
        if each.path not in then:
            transaction.set_content(each.path, None, None, note="left by another process")
    for path, (content, size_bytes, _) in then.items():
        retain_content(connection, content)
        transaction.set_content(path, content, size_bytes, note=f"from {source}")
    return len(then)
