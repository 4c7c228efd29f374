"""The handlers of the calls that find files by what is in them.

Each asks first what the caller may read, and then looks at nothing else. The index may be a little behind the files: a file that is gone
meanwhile is left out, one that was changed is found by the version that was indexed, which the hit names.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio
import apsw
from anyio import from_thread
from msgspec import Struct

from aios.abi.call import Done
from aios.abi.retrieval import (
    MAX_PENDING,
    FileGroup,
    FileGroupBy,
    FileGroups,
    FileHit,
    FileIndex,
    FileJoin,
    FileJoined,
    FilePair,
    FileReindex,
    FileRetrieve,
    IndexInfo,
    IndexProblem,
    Retrieved,
)
from aios.config import Config, Home
from aios.disk.db import Database
from aios.errors import AccessDenied, InvalidCall, NotFound, Unsupported
from aios.kernel.clock import Clock
from aios.kernel.memory.words import register
from aios.kernel.process import INIT_PID, Run
from aios.kernel.retrieval import tables
from aios.kernel.retrieval.indexer import Indexer
from aios.kernel.retrieval.search import Asked, allowed, asked, search
from aios.kernel.retrieval.tables import FILE_BITS, IndexedFile, Which
from aios.kernel.storage.manager import StorageManager
from aios.kernel.storage.paths import Reach, is_within, parse
from aios.kernel.turns import Turns

MAX_TOPIC_FILES = 2_000
N_SHOWN = 20
"""Paths in a group, and problems in the state of the index."""


class View(Struct, frozen=True):
    """What a call may look at."""

    which: Which
    n_pending: int


class Retriever:
    """Finds files. The index follows them from the first call about files on; in a command's own kernel from the first call here."""

    def __init__(
        self,
        path: Path,
        storage: StorageManager,
        clock: Clock,
        config: Config,
    ) -> None:
        db = Database(path, [tables.SCHEMA], prepare=(register,))
        self._storage = storage
        self._clock = clock
        self._is_off = config.memory.embedder == "none"
        self._indexer = Indexer(db, storage.changes, config.storage, config.memory.embedder)
        self._asked = anyio.Event()
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._is_running = False
        self._turns, self._searches = Turns(), Turns()
        """For what takes a reader's thread for seconds, and for what a family may do once at a time: there are four readers for all."""

    async def run(self, *, waits_for_a_call: bool) -> None:
        """Follow the files until `aclose`."""
        self._is_running = True
        try:
            with self._scope:
                await (self._asked if waits_for_a_call else self._storage.changes.used).wait()
                await self._indexer.follow()
        finally:
            self._ended.set()

    async def aclose(self) -> None:
        """Stop following and let go of the index."""
        self._scope.cancel()
        if self._is_running:
            await self._ended.wait()
        await self._indexer.db.aclose()
        self._indexer.meanings = (
            None  # its weights: what is left of a kernel may wait long to be collected
        )

    # --- the calls -----------------------------------------------------------------------------------------------

    async def retrieve(self, run: Run, call: FileRetrieve) -> Retrieved:
        """Find files by words and meaning."""
        text = call.query.strip() or " ".join(call.keywords)
        if not text:
            raise InvalidCall("give a query or keywords", hint="`file_list` lists all files")
        view = await self._view(run, call)
        meanings, now = self._indexer.meanings, self._clock.unix_s()

        def look(connection: apsw.Connection) -> tuple[list[FileHit], int]:
            numbers = allowed(connection, view.which, call.keywords)
            what = asked(text, meanings, now, call.k)
            what = Asked(what.words, what.vector, now, call.k, call.per_file)
            return search(connection, what, numbers, meanings), len(numbers)

        async with self._searches.turn(run, is_alone=False):
            hits, n_files = await self._indexer.db.read(look)
        reach = await self._storage.reach_of(run.process)  # a share may have ended meanwhile
        there = await self._storage.changes.existing({hit.path for hit in hits})
        hits = [hit for hit in hits if hit.path in there and reach.may_read(hit.path)]
        await self._storage.changes.take(run, [(hit.path, hit.version) for hit in hits])
        return Retrieved(tuple(hits), n_files, view.n_pending, self._indexer.embedder)

    async def group_by(self, run: Run, call: FileGroupBy) -> FileGroups:
        """Put files into groups."""
        if call.by == "topic" and self._indexer.meanings is None:
            await self._indexer.open()
            if self._indexer.meanings is None:
                hint = "pip install 'aios-kernel[memory]' and start the kernel anew"
                if self._is_off:
                    hint = "memory.embedder is none; `auto` compares meanings"
                raise Unsupported("topics need an embedder", hint=hint)
        view = await self._view(run, call)
        now = self._clock.unix_s()

        def look(connection: apsw.Connection) -> tuple[list[FileGroup], int]:
            numbers = allowed(connection, view.which, call.keywords)
            if text := call.query.strip() or " ".join(call.keywords):
                meanings = self._indexer.meanings
                hits = search(connection, asked(text, meanings, now, call.k), numbers, meanings)
                order = {hit.path: place for place, hit in enumerate(hits)}
                files = [
                    f for f in tables.files_of(connection, numbers).values() if f.path in order
                ]
                files.sort(key=lambda file: order[file.path])
            else:
                files = list(tables.files_of(connection, numbers).values())
                files.sort(key=lambda file: (-file.changed_unix_s, file.path))
            files = [file for file in files if reach.may_read(file.path)]
            shown.extend((file.path, file.version) for file in files)
            return self._groups(connection, call, files), len(files)

        shown: list[tuple[str, int]] = []
        is_alone = call.by == "topic"
        turns = self._turns if is_alone else self._searches
        async with turns.turn(run, is_alone=is_alone):
            reach = await self._storage.reach_of(run.process)
            groups, n_files = await self._indexer.db.read(look)
        await self._storage.changes.take(run, shown)
        return FileGroups(tuple(groups), n_files, view.n_pending)

    async def join(self, run: Run, call: FileJoin) -> FileJoined:
        """Pair the files of two folders by likeness."""
        left = await self._view(run, call, under=call.left)
        right = await self._view(run, call, under=call.right)
        async with self._turns.turn(run):
            found = await self._indexer.db.read(
                partial(self._pairs, call=call, left=left.which, right=right.which)
            )
        reach = await self._storage.reach_of(run.process)  # a share may have ended meanwhile
        there = await self._storage.changes.existing(
            {pair.path for pair in found} | {pair.hit.path for pair in found}
        )
        seen = {path for path in there if reach.may_read(path)}
        pairs = [pair for pair in found if {pair.path, pair.hit.path} <= seen]
        shown = [(p.path, p.version) for p in pairs] + [(p.hit.path, p.hit.version) for p in pairs]
        await self._storage.changes.take(run, shown)
        return FileJoined(tuple(pairs), max(left.n_pending, right.n_pending))

    async def index(self, run: Run, call: FileIndex) -> IndexInfo:
        """How far the index is."""
        view = await self._view(run, call, under="/")
        async with self._searches.turn(run, is_alone=False):
            n_files, n_texts, n_passages, unread, n_unlike = await self._indexer.db.read(
                partial(self._count, which=view.which)
            )
        reach = await self._storage.reach_of(run.process)  # a share may have ended meanwhile
        unread = [each for each in unread if reach.may_read(each.path)]
        await self._storage.changes.take(run, [(each.path, each.version) for each in unread])
        is_owner = run.process.pid == INIT_PID
        return IndexInfo(
            n_files=n_files,
            n_text_files=n_texts,
            n_passages=n_passages,
            n_pending=view.n_pending,
            embedder=self._indexer.embedder,
            n_unlike=n_unlike,
            problems=tuple(
                IndexProblem(each.path, each.problem, is_partial=bool(each.n_pieces))
                for each in unread
            ),
            disk_bytes=self._indexer.db.statistics().size_bytes if is_owner else 0,
            fault=self._indexer.fault if is_owner else "",
        )

    async def reindex(self, run: Run, _: FileReindex) -> Done:
        """Make the index anew."""
        if run.process.pid != INIT_PID:
            raise AccessDenied("only the owner may do that", hint="use `aios fs index --rebuild`")
        self._asked.set()
        await self._indexer.restart()
        return Done()

    # --- what a call may look at ---------------------------------------------------------------------------------

    async def _view(
        self,
        run: Run,
        call: FileRetrieve | FileGroupBy | FileJoin | FileIndex,
        under: str | None = None,
    ) -> View:
        """What the caller may read of what it asks about, when the index is as far as the call wants it."""
        self._asked.set()
        reach = await self._storage.reach_of(run.process)
        await self._indexer.open()
        if call.is_waiting:
            last = await self._storage.changes.last()
            with run.parked():
                await self._indexer.wait_for(last)
            await run.runnable()
            reach = await self._storage.reach_of(run.process)  # a share may have ended meanwhile
        where = under if under is not None else getattr(call, "under", "")
        folder = parse(where, reach.home) if where else "/"
        folders = reach.readable_below(folder)
        if where and not folders:
            reach.check(folder, is_write=False)
        await self._check_there(folder, reach)
        which = Which(folders, getattr(call, "type", ""), getattr(call, "since_unix_s", None))
        changes, since = self._storage.changes, self._indexer.cursor
        n_pending = await changes.count_newest(since, folders, limit=MAX_PENDING)
        return View(which, n_pending)

    async def _check_there(self, folder: str, reach: Reach) -> None:
        """Refuse to look below a path where nothing is; the folders that hold everything and the caller's own may be empty."""
        self._storage.check_root(folder)
        may_be_empty = folder.count("/") == 1 or folder == reach.group
        if may_be_empty or is_within(reach.home, folder):
            return
        await self._storage.mounts.refresh(folder)
        if not await self._storage.changes.is_there(folder):
            raise NotFound(f"no file or folder {folder}", hint="`file_list` shows what is there")

    # --- inside a read of the index ------------------------------------------------------------------------------

    def _groups(
        self, connection: apsw.Connection, call: FileGroupBy, files: Sequence[IndexedFile]
    ) -> list[FileGroup]:
        from aios.kernel.retrieval.grouping import key_of  # noqa: PLC0415 - start-up time: it brings numpy

        members: dict[str, list[IndexedFile]] = {}
        if call.by == "topic":
            members = self._topics(connection, files[:MAX_TOPIC_FILES])
        else:
            for file in files:
                members.setdefault(key_of(file, call.by), []).append(file)
        groups = [
            FileGroup(
                key,
                len(each),
                sum(file.size_bytes for file in each),
                tuple(file.path for file in each[:N_SHOWN]),
            )
            for key, each in members.items()
        ]
        return sorted(groups, key=lambda group: (-group.n_files, group.key))

    def _topics(
        self, connection: apsw.Connection, files: Sequence[IndexedFile]
    ) -> dict[str, list[IndexedFile]]:
        from aios.kernel.retrieval.grouping import labels, topics  # noqa: PLC0415 - as above

        assert self._indexer.meanings is not None
        groups = topics(self._indexer.meanings.means(connection, [file.file for file in files]))
        firsts = tables.texts_of(connection, [(file.file << FILE_BITS) + 1 for file in files])
        texts = [
            f"{tables.name_words(file.path)} {firsts[place].text if (place := (file.file << FILE_BITS) + 1) in firsts else ''}"
            for file in files
        ]
        found: dict[str, list[IndexedFile]] = {}
        for label, group in zip(labels(texts, groups), groups, strict=True):
            found.setdefault(label, []).extend(files[number] for number in group)
        return found

    def _pairs(
        self, connection: apsw.Connection, *, call: FileJoin, left: Which, right: Which
    ) -> list[FilePair]:
        meanings, now = self._indexer.meanings, self._clock.unix_s()
        files = sorted(
            tables.files_of(connection, tables.numbers_of(connection, left)).values(),
            key=lambda file: file.path,
        )[: call.max_left]
        numbers = tables.numbers_of(connection, right)
        pairs = []
        for file in files:
            from_thread.check_cancelled()
            first = (file.file << FILE_BITS) + 1
            piece = tables.texts_of(connection, [first]).get(first)
            text = f"{tables.name_words(file.path)} {piece.text if piece else ''}"
            what = asked(text, meanings, now, call.k)
            if meanings is not None:
                what = Asked(what.words, meanings.means(connection, [file.file])[0], now, call.k)
            others = [number for number in numbers if number != file.file]
            hits = search(connection, what, others, meanings)
            pairs += [FilePair(file.path, file.version, hit) for hit in hits]
        return pairs

    def _count(
        self, connection: apsw.Connection, *, which: Which
    ) -> tuple[int, int, int, list[tables.IndexedFile], int]:
        numbers = tables.numbers_of(connection, which)
        files = tables.files_of(connection, numbers).values()
        unread = [each for each in files if each.problem]
        n_passages = sum(each.n_pieces for each in files)
        embedder = self._indexer.embedder
        n_unlike = tables.n_without_vector(connection, numbers, embedder) if embedder else 0
        n_texts = sum(1 for each in files if each.n_pieces or not each.problem)
        return len(files), n_texts, n_passages, unread[:N_SHOWN], n_unlike


class RetrieverServices(Protocol):
    """What finding files uses of the kernel."""

    config: Config
    home: Home
    clock: Clock
    storage: StorageManager


def open_retriever(kernel: RetrieverServices) -> Retriever:
    """The retriever of a kernel, with the index of its home."""
    return Retriever(kernel.home.index, kernel.storage, kernel.clock, kernel.config)
