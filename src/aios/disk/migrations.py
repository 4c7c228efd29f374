"""Numbered steps that bring the tables of each area of the database to what this version needs.

An area (`blobs`, `storage`, `memory`) owns its tables and its own row in `schema_versions`, so areas change apart. A step
that was released is never edited: a new one is added after it.
"""

from collections.abc import Callable, Sequence

import apsw
from msgspec import Struct

from aios.errors import Conflict

Step = str | Callable[[apsw.Connection], None]
"""SQL statements, or code for what SQL cannot say."""


class Schema(Struct, frozen=True):
    """The steps of one area, oldest first; its version is how many of them were taken."""

    area: str
    steps: tuple[Step, ...]


def migrate(connection: apsw.Connection, schemas: Sequence[Schema]) -> None:
    """Take every step that is missing, all of them or none.

    Raises:
        Conflict: A newer version of AIOS has written here.
    """
    with connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_versions (area TEXT PRIMARY KEY, version INTEGER NOT NULL)"
        )
        for schema in schemas:
            _migrate_area(connection, schema)


def versions(connection: apsw.Connection) -> dict[str, int]:
    """The version of each area."""
    return dict(connection.execute("SELECT area, version FROM schema_versions"))


def _migrate_area(connection: apsw.Connection, schema: Schema) -> None:
    version = versions(connection).get(schema.area, 0)
    if version > len(schema.steps):
        raise Conflict(
            f"the tables of `{schema.area}` have version {version}; this AIOS knows {len(schema.steps)}",
            hint="use the newer AIOS that wrote them, or another AIOS_HOME",
        )
    for step in schema.steps[version:]:
        if isinstance(step, str):
            connection.execute(step)
        else:
            step(connection)
    if version < len(schema.steps):
        connection.execute(
            "INSERT INTO schema_versions VALUES (?, ?) "
            "ON CONFLICT (area) DO UPDATE SET version = excluded.version",
            (schema.area, len(schema.steps)),
        )
