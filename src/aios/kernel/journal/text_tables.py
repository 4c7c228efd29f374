"""The texts that calls and answers are made of, in the database: each stored once, behind the one before it in its chain."""

import zlib
from collections.abc import Sequence

import apsw

from aios.errors import DiskFailed
from aios.kernel.journal.records import Link

PACK_BYTES = 200
"""From here on a text is packed, if that makes it a tenth smaller."""
PLAIN, ZLIB = 0, 1
MAX_READ_BYTES = 16 << 20
"""Of texts that are kept while records are read, for those that follow and share them."""
NO_MESSAGES = 0
"""The key that stands for an empty chain; NULL is a call without messages."""


def put_chain(connection: apsw.Connection, links: Sequence[Link], parent: int = NO_MESSAGES) -> int:
    """Store what is new of a chain. Returns: the key of its last text. Cost: that of what is new, and one look-up."""
    known = len(links)
    while known:
        found = _find(connection, links[known - 1].digest)
        if found is not None:
            parent = found
            break
        known -= 1
    for link in links[known:]:
        parent = put(connection, link, parent)
    return parent


def put(connection: apsw.Connection, link: Link, parent: int) -> int:
    """Store a text behind its parent, unless it is there. Returns: its key."""
    found = _find(connection, link.digest)
    if found is not None:
        return found
    packing, data = PLAIN, link.data
    if len(data) >= PACK_BYTES:
        packed = zlib.compress(data, 1)
        if len(packed) < 0.9 * len(data):
            packing, data = ZLIB, packed
    connection.execute(
        "INSERT INTO journal_texts (digest, parent, packing, data) VALUES (?, ?, ?, ?)",
        (link.digest, parent, packing, data),
    )
    return connection.last_insert_rowid()


def _find(connection: apsw.Connection, digest: bytes) -> int | None:
    row = connection.execute("SELECT key FROM journal_texts WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else int(row[0])


class TextReader:
    """Reads texts of one snapshot of the database; what chains share is read once, as long as that is not too much."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._texts: dict[int, tuple[int, bytes]] = {}
        self._n_bytes = 0
        """Of them."""

    def text(self, key: int) -> bytes:
        """One text."""
        return self._get(key)[1]

    def chain(self, key: int) -> list[bytes]:
        """A text and all before it."""
        found = []
        while key != NO_MESSAGES:
            key, data = self._get(key)
            found.append(data)
        return found[::-1]

    def _get(self, key: int) -> tuple[int, bytes]:
        found = self._texts.get(key)
        if found is None:
            query = "SELECT parent, packing, data FROM journal_texts WHERE key = ?"
            row = self._connection.execute(query, (key,)).fetchone()
            if row is None:
                raise DiskFailed(f"the journal's text {key} is gone", hint="`aios fsck`")
            parent, packing, data = row
            data = zlib.decompress(data) if packing == ZLIB else bytes(data)
            self._n_bytes += len(data)
            if self._n_bytes > MAX_READ_BYTES:
                self._texts.clear()
                self._n_bytes = len(data)
            found = self._texts[key] = (int(parent), data)
        return found
