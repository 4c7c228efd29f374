"""The changes of all files as one stream, for what follows them inside the kernel: an index, watchers, a copy elsewhere.

    cursor = ...                                     # kept by the follower, beside what it made of the changes; 0 is the beginning
    while True:
        for each in await stream.wait_newest(cursor, limit=200):
            ...                                      # each.path now has each.version; None: it is gone
            cursor = each.change

A follower reads the state that each path came to and not the way there: what was changed ten times since its cursor comes once, so it catches
up after any absence at the cost of what differs. A purge takes versions away without a change; it never takes the one that a file has.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import chain

import anyio
import anyio.lowlevel
import apsw
from msgspec import Struct

from aios.abi.storage import FileInfo, FileVersion
from aios.disk.blobs import BlobStore
from aios.disk.db import Database
from aios.kernel.process import INIT_PID, Run
from aios.kernel.storage import reading
from aios.kernel.storage.tables import (
    PAST,
    changes_since,
    files_below,
    last_change,
    tainted_between,
)
from aios.kernel.taint import take
from aios.kernel.turns import Turns

MAX_CHANGES = 1_000
"""That are looked at in one step for a watcher that is behind."""
FEW_CHANGES = 50
"""That are looked at on the event loop."""

_NEWEST = (
    "path NOT GLOB '/workspaces/*' AND path NOT GLOB '/checkpoints/*' AND NOT EXISTS "
    "(SELECT 1 FROM versions w WHERE w.path = v.path AND w.version > v.version)"
)


class Change(Struct, frozen=True):
    """The newest version of a path. `change` numbers all changes in their order; `size_bytes` is None for a deletion."""

    change: int
    path: str
    version: int
    size_bytes: int | None
    author: str
    unix_s: float


class ChangeStream:
    """What has changed since a cursor, and a signal when there is more. Followers are not known to it and cannot hold it up."""

    def __init__(self, db: Database, blobs: BlobStore) -> None:
        self._db = db
        self._blobs = blobs
        self._changed = anyio.Event()
        self._catching_up = Turns()
        self.used = anyio.Event()
        """Set by the first call about files and the first change from outside; who follows need not begin before."""
        self.n_purges = 0
        """Since the kernel began; whoever keeps what it made of files looks again which are there when it differs."""

    def note_purge(self) -> None:
        """Versions were purged: what was made of them must go too."""
        self.n_purges += 1
        self.publish()

    def publish(self) -> None:
        """Something may have changed: wake who waits. Called by every writer of files after its commit."""
        self.used.set()
        self._changed.set()
        self._changed = anyio.Event()

    def signal(self) -> anyio.Event:
        """Set at the next `publish`; take it before you look, so that no change falls between."""
        return self._changed

    async def last(self) -> int:
        """The number of the newest change, 0 before the first."""
        return await self._db.read(last_change)

    async def newest(self, since: int, *, limit: int = 500) -> list[Change]:
        """Each path that changed after `since`, with its newest version, in the order of those changes; empty if none did."""
        return await self._db.read(partial(_newest, since=since, limit=limit))

    async def count_newest(self, since: int, folders: Sequence[str], *, limit: int) -> int:
        """How many paths in these folders have changed after `since`, at most `limit`. Cost: up to 1 us a change after it."""
        look = partial(_count_newest, since=since, folders=folders, limit=limit)
        return await self._db.read(look)

    async def wait_newest(self, since: int, *, limit: int = 500) -> list[Change]:
        """As `newest`, and waits until there is one."""
        while True:
            changed = self.signal()
            if found := await self.newest(since, limit=limit):
                return found
            await changed.wait()

    async def watch(
        self, run: Run, path: str, since: int, *, is_waiting: bool
    ) -> tuple[list[FileVersion], int]:
        """The next changes of a path and of all below it that come after `since`, and where to go on; none only if the call does not wait."""
        while True:
            await anyio.lowlevel.checkpoint()
            await run.runnable()
            changed = self.signal()
            found, since, is_more = await self._look(run, path, since)
            if found or not (is_more or is_waiting):
                return found, since
            if not is_more:
                with run.parked():
                    await changed.wait()

    async def _look(self, run: Run, path: str, since: int) -> tuple[list[FileVersion], int, bool]:
        """The next few changes, as `changes_since`; who is far behind looks in a thread, one after the other."""
        if self._db.read_nowait(last_change) - since <= FEW_CHANGES:
            few = partial(changes_since, path=path, since=since, limit=FEW_CHANGES + 1)
            return self._db.read_nowait(few)
        async with self._catching_up.turn(run):
            many = partial(changes_since, path=path, since=since, limit=MAX_CHANGES)
            return await self._db.read(many)

    async def existing(self, paths: Collection[str]) -> set[str]:
        """Those of these paths where a file is now."""
        return await self._db.read(partial(_existing, paths=json.dumps(list(paths))))

    async def is_there(self, path: str) -> bool:
        """Whether a file is now at a path, or below it."""
        return bool(await self._db.read(partial(files_below, path=path, limit=1)))

    async def take(self, run: Run, shown: Collection[tuple[str, int]]) -> None:
        """A call shows what is in these versions (path, version): data in one that came from outside has reached its process."""
        found = await self._db.read(partial(_tainted, versions=json.dumps(list(shown))))
        for path, source in found:
            take(run, source, f"file {path}")

    async def take_names(
        self, run: Run, shown: Sequence[FileInfo], may_read: Callable[[str], bool]
    ) -> None:
        """A call shows these names, in their order: one that data from outside chose is such data.

        Which names it chose is not known, so each file with such data counts, also below a folder.
        """
        if not shown:
            return

        def look(connection: apsw.Connection) -> Iterator[tuple[str, str]]:
            rows = tainted_between(connection, shown[0].path, shown[-1].path)
            return (row for row in rows if may_read(row[0]))

        await self.take_first(run, look)

    async def take_below(self, run: Run, folders: Sequence[str]) -> None:
        """A call tells the names of all files below these folders."""

        def look(connection: apsw.Connection) -> Iterator[tuple[str, str]]:
            return chain.from_iterable(
                tainted_between(connection, f"{each}/", each) for each in folders
            )

        if folders:
            await self.take_first(run, look)

    async def take_first(
        self, run: Run, look: Callable[[apsw.Connection], Iterator[tuple[str, str]]]
    ) -> None:
        """A call tells of the first of these files (path, source of the data in it)."""
        if run.process.taint is not None or run.process.pid == INIT_PID:
            return
        found = await self._db.read(lambda connection: next(look(connection), None))
        if found is not None:
            path, source = found
            take(run, source, f"file {path}")

    async def size_bytes(self, path: str, version: int) -> int:
        """The length of a version.

        Raises:
            NotFound: It was purged, or is a deletion.
        """
        look = partial(
            reading.read_piece, blobs=self._blobs, path=path, version=version, span=range(0)
        )
        return (await self._db.read(look)).size_bytes

    async def read(self, path: str, version: int, span: range) -> bytes:
        """The bytes of a version at the positions of `span`; less at its end.

        Raises:
            NotFound: It was purged, or is a deletion.
            DiskFailed: What is stored is damaged.
        """
        look = partial(reading.read_piece, blobs=self._blobs, path=path, version=version, span=span)
        piece = await self._db.read(look)
        return piece.data


def _newest(connection: apsw.Connection, *, since: int, limit: int) -> list[Change]:
    rows = connection.execute(
        f"SELECT change, path, version, size_bytes, author, unix_s FROM versions v WHERE change > ? AND {_NEWEST} "  # noqa: S608 - our own words
        "ORDER BY change LIMIT ?",
        (since, limit),
    )
    return [Change(*row) for row in rows]


def _count_newest(
    connection: apsw.Connection, *, since: int, folders: Sequence[str], limit: int
) -> int:
    # The plus keeps SQLite from looking through all that ever was in a folder.
    within = " OR ".join(["+path = ? OR (+path > ? AND +path < ?)"] * len(folders)) or "0"
    ends = [(each, f"{each.rstrip('/')}/", f"{each.rstrip('/')}/{PAST}") for each in folders]
    found: int = connection.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM versions v WHERE change > ? AND ({within}) AND {_NEWEST} LIMIT ?)",  # noqa: S608 - our own words
        (since, *chain.from_iterable(ends), limit),
    ).get
    return found


def _existing(connection: apsw.Connection, *, paths: str) -> set[str]:
    rows = connection.execute(
        "SELECT path FROM files WHERE path IN (SELECT value FROM json_each(?))", (paths,)
    )
    return {str(row[0]) for row in rows}


def _tainted(connection: apsw.Connection, *, versions: str) -> list[tuple[str, str]]:
    rows = connection.execute(
        "SELECT v.path, v.taint FROM json_each(?) s JOIN versions v ON v.path = json_extract(s.value, '$[0]') "
        "AND v.version = json_extract(s.value, '$[1]') WHERE v.taint != '' LIMIT 1",
        (versions,),
    )
    return [(str(path), str(source)) for path, source in rows]
