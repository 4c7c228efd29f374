"""The pins on disk: which servers the owner trusts, and the definitions of their tools as the owner said yes to them."""

from collections.abc import Iterable, Mapping

import apsw
import msgspec
from msgspec import Struct

from aios.disk.db import Database
from aios.disk.migrations import Schema
from aios.kernel.tools.mcp.definitions import Definition
from aios.readers import from_json

SCHEMA = Schema(
    "mcp",
    (
        """
        CREATE TABLE mcp_servers (
            name TEXT PRIMARY KEY,
            source TEXT NOT NULL,
            digest TEXT NOT NULL,      -- of what is started or reached, as the owner trusts it
            protocol TEXT NOT NULL,    -- the version spoken last
            is_listed INTEGER NOT NULL -- its tools are known
        ) WITHOUT ROWID;
        CREATE TABLE mcp_tools (
            server TEXT NOT NULL,
            name TEXT NOT NULL,
            definition BLOB NOT NULL,
            PRIMARY KEY (server, name)
        ) WITHOUT ROWID;
        CREATE TABLE mcp_sources (source TEXT PRIMARY KEY) WITHOUT ROWID;
        """,
    ),
)


class Pinned(Struct, frozen=True):
    """One server as the owner trusts it."""

    digest: str
    protocol: str = ""
    is_listed: bool = False
    tools: Mapping[str, Definition] = msgspec.field(default_factory=dict)


class AllPins(Struct, frozen=True):
    """All that is pinned, and the files that were seen before."""

    servers: Mapping[str, Pinned]
    sources: frozenset[str]


class Pins:
    """Reads and writes them."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def read(self) -> AllPins:
        """All pins.

        Raises:
            DiskFailed: They cannot be read.
        """
        return await self._db.read(_read)

    async def write(self, name: str, source: str, pinned: Pinned) -> None:
        """Pin a server.

        Raises:
            DiskFailed: It cannot be written.
        """
        await self._db.write(lambda connection: _write(connection, name, source, pinned))

    async def see(self, sources: Iterable[str]) -> None:
        """Remember files: what is added to them from now on waits for a yes."""
        rows = [(source,) for source in sources]
        await self._db.write(
            lambda connection: connection.executemany(
                "INSERT OR IGNORE INTO mcp_sources VALUES (?)", rows
            )
        )


def _read(connection: apsw.Connection) -> AllPins:
    tools: dict[str, dict[str, Definition]] = {}
    for server, name, definition in connection.execute(
        "SELECT server, name, definition FROM mcp_tools ORDER BY server, name"
    ):
        tools.setdefault(server, {})[name] = from_json(definition, Definition)
    rows = connection.execute("SELECT name, digest, protocol, is_listed FROM mcp_servers")
    servers = {
        name: Pinned(digest, protocol, bool(is_listed), tools.get(name, {}))
        for name, digest, protocol, is_listed in rows
    }
    sources = connection.execute("SELECT source FROM mcp_sources")
    return AllPins(servers, frozenset(source for (source,) in sources))


def _write(connection: apsw.Connection, name: str, source: str, pinned: Pinned) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO mcp_servers VALUES (?, ?, ?, ?, ?)",
        (name, source, pinned.digest, pinned.protocol, pinned.is_listed),
    )
    connection.execute("DELETE FROM mcp_tools WHERE server = ?", (name,))
    connection.executemany(
        "INSERT INTO mcp_tools VALUES (?, ?, ?)",
        [(name, tool, msgspec.json.encode(each)) for tool, each in pinned.tools.items()],
    )
