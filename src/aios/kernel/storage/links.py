"""Links to versions of files, signed with a key of this home: who has one may read that version, until it expires or is taken back.

    token = base64url( id (8 bytes) | HMAC-SHA256(key, id | expiry | version | path) (32 bytes) )

A link is good if its row is there, its time is not over and its signature fits; every other case is answered alike. The signature binds the path, the
version and the expiry: who can change the row and has not the key cannot make it lead elsewhere, and the table alone opens nothing.
"""

import base64
import binascii
import hmac
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import ClassVar

import anyio.to_thread
import apsw
from msgspec import Struct

from aios.abi.call import Done
from aios.abi.links import FileLink, FileLinks, FileUnlink, LinkInfo, LinkInfos
from aios.config import Home, StorageConfig
from aios.disk.blobs import failed_write, write_whole
from aios.disk.db import Database
from aios.disk.migrations import Schema
from aios.errors import AiosError, NotFound, ResourceExhausted
from aios.kernel.clock import Clock
from aios.kernel.process import Run
from aios.kernel.storage.manager import StorageManager
from aios.kernel.storage.paths import file_path, is_within
from aios.kernel.storage.tables import get_content_of, get_file

ID_BYTES, KEY_BYTES, SIGNATURE_BYTES = 8, 32, 32
PIECE_BYTES = 1 << 20

SCHEMA = Schema(
    "links",
    (
        """
        CREATE TABLE links (
            id TEXT PRIMARY KEY,
            path TEXT NOT NULL,
            version INTEGER NOT NULL,
            home TEXT NOT NULL,
            expires_unix_s REAL NOT NULL
        ) WITHOUT ROWID;
        """,
    ),
)


class Linked(Struct, frozen=True):
    """What a good link leads to."""

    path: str
    version: int
    size_bytes: int


class Links:
    """The links of one home. The key is made with the first link; a home without one has no links."""

    SCHEMA: ClassVar[Schema] = SCHEMA

    def __init__(
        self,
        storage: StorageManager,
        db: Database,
        clock: Clock,
        config: StorageConfig,
        *,
        home: Home,
    ) -> None:
        self._storage = storage
        self._db = db
        self._clock = clock
        self._config = config
        self._key_file = home.link_key
        self._key = b""

    async def link(self, run: Run, call: FileLink) -> LinkInfos:
        """Make a link."""
        await self._storage.open()
        path = file_path(self._storage.own_path(run.process, call.path))
        await self._storage.mounts.refresh(path)
        home = self._storage.home_of(run.process)
        key = await anyio.to_thread.run_sync(self._load_key)
        now_s = self._clock.unix_s()
        number, expires_s = secrets.token_bytes(ID_BYTES), now_s + call.lifetime_s

        def write(connection: apsw.Connection) -> int:
            version = call.version
            if version is None:
                version = get_file(connection, path).version
            get_content_of(connection, path, version)
            connection.execute("DELETE FROM links WHERE expires_unix_s <= ?", (now_s,))
            n_links: int = connection.execute(
                "SELECT count(*) FROM links WHERE home = ?", (home,)
            ).get
            if n_links >= self._config.max_links:
                raise ResourceExhausted(
                    f"{home} has {n_links} links", hint="end one, or raise storage.max_links"
                )
            row = (number.hex(), path, version, home, expires_s)
            connection.execute("INSERT INTO links VALUES (?, ?, ?, ?, ?)", row)
            return version

        version = await self._db.write(write)
        info = LinkInfo(number.hex(), path, version, expires_s, "")
        token = base64.urlsafe_b64encode(number + _signature(key, info)).decode().rstrip("=")
        return LinkInfos((LinkInfo(info.id, path, version, expires_s, token),))

    async def unlink(self, run: Run, call: FileUnlink) -> Done:
        """End a link."""
        await self._storage.open()
        home = self._storage.home_of(run.process)

        def write(connection: apsw.Connection) -> None:
            found = _find(connection, call.id)
            if found is None or not is_within(found.path, home):
                raise NotFound(f"no link {call.id}", hint="`aios fs links` lists them")
            connection.execute("DELETE FROM links WHERE id = ?", (call.id,))

        await self._db.write(write)
        return Done()

    async def list_all(self, run: Run, _: FileLinks) -> LinkInfos:
        """The links to files of the caller's."""
        await self._storage.open()
        home, now_s = self._storage.home_of(run.process), self._clock.unix_s()
        rows = await self._db.read(
            lambda c: list(
                c.execute(
                    "SELECT id, path, version, expires_unix_s FROM links WHERE expires_unix_s > ? "
                    "ORDER BY expires_unix_s, id",
                    (now_s,),
                )
            )
        )
        mine = tuple(LinkInfo(*row) for row in rows if is_within(str(row[1]), home))
        await self._storage.changes.take(run, [(each.path, each.version) for each in mine])
        return LinkInfos(mine)

    # --- for the server ------------------------------------------------------------------------------------------

    async def open(self, token: str) -> Linked:
        """What a link leads to.

        Raises:
            NotFound: The link is none, has expired or was ended, or its version is purged; which of these is not told.
        """
        data = _decode(token)
        with suppress(AiosError):
            await self._storage.open()
            key = await anyio.to_thread.run_sync(partial(self._load_key, makes=False))
            info = await self._db.read(lambda c: _find(c, data[:ID_BYTES].hex()))
            # Something is compared in every case, so that a row that is there does not take longer.
            signature = _signature(key, info or LinkInfo("0" * 16, "", 0, 0.0))
            is_good = hmac.compare_digest(signature, data[ID_BYTES:])
            if key and info and is_good and info.expires_unix_s > self._clock.unix_s():
                size_bytes = await self._storage.changes.size_bytes(info.path, info.version)
                return Linked(info.path, info.version, size_bytes)
        raise NotFound("this link leads to nothing", hint="it may have expired; ask for a new one")

    async def read(self, linked: Linked) -> AsyncIterator[bytes]:
        """The content in pieces of 1 MiB."""
        for offset in range(0, linked.size_bytes, PIECE_BYTES):
            span = range(offset, offset + PIECE_BYTES)
            yield await self._storage.changes.read(linked.path, linked.version, span)

    def _load_key(self, *, makes: bool = True) -> bytes:
        """The key of this home; in a thread. Empty if there is none and none is to be made."""
        if not self._key:
            if not self._key_file.exists():
                if not makes:
                    return b""
                try:
                    write_whole(self._key_file, secrets.token_bytes(KEY_BYTES))
                except OSError as error:
                    raise failed_write(error, self._key_file) from error
            self._key = self._key_file.read_bytes()
        return self._key


def _signature(key: bytes, info: LinkInfo) -> bytes:
    """Fields of fixed length first, so that no two links have the same text."""
    text = f"{info.id}|{info.expires_unix_s.hex()}|{info.version}|{info.path}"
    return hmac.digest(key or b"\0", text.encode(), "sha256")


def _find(connection: apsw.Connection, link_id: str) -> LinkInfo | None:
    row = connection.execute(
        "SELECT id, path, version, expires_unix_s FROM links WHERE id = ?", (link_id,)
    ).fetchone()
    return None if row is None else LinkInfo(*row)


def _decode(token: str) -> bytes:
    """The bytes of a token; of one that is malformed, bytes that fit nothing."""
    nothing = bytes(ID_BYTES) + os.urandom(SIGNATURE_BYTES)
    try:
        data = base64.b64decode(
            token.encode("ascii") + b"=" * (-len(token) % 4), b"-_", validate=True
        )
    except (binascii.Error, UnicodeEncodeError, ValueError):
        return nothing
    return data if len(data) == len(nothing) else nothing
