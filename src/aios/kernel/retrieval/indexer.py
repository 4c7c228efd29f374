"""Keeps the index up to date with the files: follows their changes, has them read, embeds and writes, a batch at a time.

The place in the stream of changes is written in the same transaction as what was made of it, so after a kill the index goes on where it
was: nothing is missed and nothing is there twice.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import apsw
from msgspec import Struct
from msgspec.structs import replace

from aios.config import StorageConfig
from aios.disk.db import Database
from aios.errors import AiosError, DiskFailed, NotFound, edge
from aios.kernel.retrieval import tables
from aios.kernel.retrieval.extraction import SNIFFED_BYTES, is_binary
from aios.kernel.retrieval.extraction_process import ExtractionProcess
from aios.kernel.retrieval.extractor import Piece
from aios.kernel.retrieval.formats import Form, form_of
from aios.kernel.retrieval.tables import FILE_BITS, IndexedFile
from aios.kernel.storage.changes import Change, ChangeStream

if TYPE_CHECKING:
    from aios.kernel.memory.embedding import Vectors
    from aios.kernel.retrieval.meaning import Kept, Meanings

BATCH_CHANGES = 256
BATCH_BYTES = 4 << 20
"""Text that is embedded and written at once: about a second of work."""
GATHER_S = 0.25
"""After a quiet time, wait so long for more changes: what is written many times in a row is read once."""
SWEPT_PATHS = 5_000
"""Looked at together, so that the event loop does not stand still where there are a million."""
RETRY_S = 5.0
"""After the disk failed."""


class Read(Struct, frozen=True):
    """What a change came to: a file with its pieces, or None if the path is empty now."""

    change: Change
    file: IndexedFile | None
    pieces: Sequence[Piece] = ()


class Written(Struct, frozen=True):
    """What a write came to: the place in the stream, the numbers of the files that are gone, and what is new."""

    cursor: int
    gone: Sequence[int] = ()
    new: "Sequence[Kept]" = ()


class Indexer:
    """The index of all files, in a database of its own. `meanings` is None without an embedder."""

    def __init__(
        self,
        db: Database,
        stream: ChangeStream,
        config: StorageConfig,
        embedder: str,
    ) -> None:
        self.db = db
        self.meanings: Meanings | None = None
        self.fault = ""
        self.cursor = 0
        self._stream = stream
        self._config = config
        self._kind = embedder
        self._reader = ExtractionProcess(config.index_timeout_s)
        self._advanced = anyio.Event()
        self._hurried = anyio.Event()
        self._opening = anyio.Lock()
        self._is_open = False
        self._thread = anyio.CapacityLimiter(1)
        self._n_purges_seen = -1

    @property
    def embedder(self) -> str:
        """The name of the embedder, empty without one."""
        return self.meanings.name if self.meanings is not None else ""

    async def open(self) -> None:
        """Open the index, or begin a new one if it is lost, damaged, or of other files; once open this is nothing."""
        async with self._opening:
            if self._is_open:
                return
            try:
                await self._prepare()
            except DiskFailed:
                # All of it can be made again from the files.
                await self.db.reset()
                await self._prepare()
            self._is_open = True

    async def follow(self) -> None:
        """Index every change, for ever; what fails is tried again, and told by `fault` meanwhile."""
        try:
            while True:
                try:
                    await _within_edge(self.open)
                    self.fault = ""
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(_within_edge, self._catch_up)
                        await _within_edge(self._follow)
                except* AiosError as group:
                    self.fault = str(group.exceptions[0])
                    self._advance()
                await anyio.sleep(RETRY_S)
        finally:
            await self._reader.aclose()

    async def wait_for(self, change: int) -> None:
        """Wait until a change is indexed.

        Raises:
            DiskFailed: The index cannot go on.
        """
        self._hurried.set()
        while self.cursor < change:
            if self.fault:
                raise DiskFailed(
                    f"the index of files stands still: {self.fault}", hint="try again later"
                )
            await self._advanced.wait()

    async def restart(self) -> None:
        """Forget everything and index all files anew."""
        await self.open()
        await self.db.write(tables.clear, self._emptied)
        self._stream.publish()

    # --- following -----------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        is_idle = True
        while True:
            changes = await self._stream.newest(self.cursor, limit=BATCH_CHANGES)
            if not changes:
                await self._pause()
                is_idle = True
                continue
            if is_idle:
                with anyio.move_on_after(GATHER_S):
                    await self._hurried.wait()
                is_idle = False
                continue
            await self._index(changes)

    async def _pause(self) -> None:
        """Nothing more changed: let those go on who waited for more than there is, and wait for the next change."""
        signal = self._stream.signal()
        cursor = self.cursor  # one for all that follows: the index may be begun anew meanwhile
        last, n_purges = await self._stream.last(), self._stream.n_purges
        if await self._stream.newest(cursor, limit=1):
            return
        if self._n_purges_seen != n_purges:
            await self._sweep()
            self._n_purges_seen = n_purges
        if cursor < last:  # purged versions have numbers too
            await self.db.write(partial(_skip, since=cursor, cursor=last), self._move)
        if self.cursor < cursor:
            return  # begun anew
        self._advance()
        self._hurried = anyio.Event()
        await signal.wait()

    async def _sweep(self) -> None:
        """Forget the files whose deletion was purged before it was seen; of them the stream says nothing."""
        after = ""
        while indexed := await self.db.read(
            partial(tables.paths_after, path=after, limit=SWEPT_PATHS)
        ):
            gone = set(indexed) - await self._stream.existing(indexed)
            if gone:
                await self.db.write(partial(_remove, paths=gone), self._publish)
            after = indexed[-1]

    async def _index(self, changes: Sequence[Change]) -> None:
        """Read, embed and write as many of these changes as make a batch."""
        batch: list[Read] = []
        n_chars, since = 0, self.cursor
        for change in changes:
            read = await self._read(change)
            batch.append(read)
            n_chars += sum(len(piece.text) for piece in read.pieces)
            if n_chars > BATCH_BYTES:
                break
        vectors = await anyio.to_thread.run_sync(self._embed, batch, limiter=self._thread)
        write = partial(self._write, since=since, batch=batch, vectors=vectors)
        await self.db.write(write, self._publish)
        self._advance()

    def _advance(self) -> None:
        self._advanced.set()
        self._advanced = anyio.Event()

    async def _read(self, change: Change) -> Read:
        """The text of a changed file, or why it has none."""
        if change.size_bytes is None:
            return Read(change, None)
        blank = tables.record(change.path, change.version, change.author, change.unix_s)
        file = replace(blank, size_bytes=change.size_bytes)
        try:
            data = await self._data_of(change)
        except NotFound:
            return Read(change, None)  # purged since; a newer change says what is there
        except DiskFailed as error:
            return Read(change, replace(file, problem=f"cannot be read: {error.message}"))
        if isinstance(data, str):
            return Read(change, replace(file, problem=data))
        extracted = await self._reader.extract(form_of(change.path), data)
        pieces = extracted.pieces[: tables.MAX_PIECES]
        problem, limit_bytes = extracted.problem, self._config.max_indexed_bytes
        if not problem and change.size_bytes > limit_bytes:
            problem = f"its first {limit_bytes} bytes, storage.max_indexed_bytes"
        return Read(change, replace(file, n_pieces=len(pieces), problem=problem), pieces)

    async def _data_of(self, change: Change) -> bytes | str:
        """The bytes to read, or why not: a long text is read from its beginning, a long document not at all."""
        form, limit_bytes = form_of(change.path), self._config.max_indexed_bytes
        is_document = form in (Form.PDF, Form.DOCX)
        assert change.size_bytes is not None
        if is_document and change.size_bytes > limit_bytes:
            return f"over {limit_bytes} bytes (storage.max_indexed_bytes)"
        if not is_document and change.size_bytes > SNIFFED_BYTES:
            head = await self._stream.read(change.path, change.version, range(SNIFFED_BYTES))
            if is_binary(head):
                return "no text"
        return await self._stream.read(change.path, change.version, range(limit_bytes))

    # --- in threads ----------------------------------------------------------------------------------------------

    def _embed(self, batch: Sequence[Read]) -> "list[Vectors] | None":
        """The vectors of each file's name and pieces."""
        if self.meanings is None:
            return None
        embed = self.meanings.embedder.embed
        return [
            embed([tables.name_words(each.file.path), *(piece.text for piece in each.pieces)])
            if each.file is not None
            else embed([])
            for each in batch
        ]

    def _write(
        self,
        connection: apsw.Connection,
        *,
        since: int,
        batch: Sequence[Read],
        vectors: "list[Vectors] | None",
    ) -> "Written":
        """Write what came of the changes after `since`; nothing if the index was begun anew meanwhile."""
        cursor = tables.get_state(connection, "cursor")
        if cursor != since:
            return Written(cursor)
        gone: list[int] = []
        new: list[Kept] = []
        for number, each in enumerate(batch):
            gone += tables.remove(connection, each.change.path)
            if each.file is None:
                continue
            first = tables.add(connection, each.file, each.pieces) << FILE_BITS
            if self.meanings is not None and vectors is not None:
                kept = self.meanings.kept(
                    range(first, first + len(each.pieces) + 1), vectors[number]
                )
                self.meanings.keep(connection, kept)
                new.append(kept)
        cursor = batch[-1].change.change
        tables.set_state(connection, "cursor", cursor)
        return Written(cursor, gone, new)

    def _move(self, cursor: int) -> None:
        """Said of each write when it is on disk, in their order: a task that hears of its own later must not undo a newer one."""
        self.cursor = cursor

    def _publish(self, written: "Written") -> None:
        self._move(written.cursor)
        if self.meanings is not None:
            self.meanings.index.remove_spaces(written.gone)
            for kept in written.new:
                self.meanings.publish(kept)

    # --- opening -------------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        await self.db.open()
        last = await self._stream.last()
        self.cursor = await self.db.write(partial(_begin, last=last))
        # Also beside a far embedder of notes: whole files are too much to send away.
        if self._kind == "wordllama" or (
            self._kind != "none" and find_spec("wordllama") is not None
        ):
            meanings = await anyio.to_thread.run_sync(_open_meanings)
            await self.db.write(meanings.load)
            self.meanings = meanings

    async def _catch_up(self) -> None:
        """Give vectors to the passages that have none of this embedder's, some in each write, so that files come between."""
        if self.meanings is None:
            return
        after, is_more = 0, True
        while is_more:
            kept = await self.db.write(
                partial(self.meanings.catch_up, after=after), self.meanings.publish
            )
            is_more = bool(kept.passages)
            after = kept.passages[-1] if is_more else after

    def _emptied(self, _: None) -> None:
        if self.meanings is not None:
            self.meanings.index.clear()
        self._move(0)


async def _within_edge(work: Callable[[], Awaitable[None]]) -> None:
    """A file that brings a bug of ours to light stops the index, and not the kernel."""
    with edge("the index"):
        await work()


def _begin(connection: apsw.Connection, last: int) -> int:
    """The place in the stream to go on at; 0, with nothing indexed, if another reader made the index or it is of other files."""
    cursor = tables.get_state(connection, "cursor")
    if tables.get_state(connection, "reader") != tables.READER or cursor > last:
        tables.clear(connection)
        return 0
    return cursor


def _remove(connection: apsw.Connection, paths: Collection[str]) -> Written:
    gone = [file for path in sorted(paths) for file in tables.remove(connection, path)]
    return Written(tables.get_state(connection, "cursor"), gone)


def _skip(connection: apsw.Connection, since: int, cursor: int) -> int:
    """Move on to a place, if nobody has begun anew since."""
    if tables.get_state(connection, "cursor") == since:
        tables.set_state(connection, "cursor", cursor)
    return tables.get_state(connection, "cursor")


def _open_meanings() -> "Meanings":
    from aios.kernel.retrieval.meaning import open_meanings  # noqa: PLC0415 - takes packages of an extra

    return open_meanings()
