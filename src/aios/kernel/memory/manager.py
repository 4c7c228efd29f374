"""The memory manager: the calls about long-term memory.

Who calls is known by owner and agent (`kernel/lineage.py`), never by what the call says, and every question to the tables carries the spaces that this
caller may read; there is no other way to the notes. Init, the owner of the kernel, reads and changes all of them.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.abc
import apsw
import msgspec
from msgspec import Struct

from aios.abi.memory import (
    MAX_TAGS,
    Forget,
    Forgotten,
    LinkNotes,
    MemoryCheck,
    MemoryGet,
    MemoryList,
    MemoryUsage,
    MemoryUsed,
    Note,
    NoteDetails,
    Notes,
    NotesChecked,
    Origin,
    Recall,
    Recalled,
    Remember,
    Remembered,
    TagNote,
    Update,
)
from aios.config import MemoryConfig
from aios.disk.db import Database
from aios.errors import AccessDenied, InvalidCall, ResourceExhausted
from aios.kernel.clock import Clock
from aios.kernel.memory import tables
from aios.kernel.memory.check import check_notes
from aios.kernel.memory.indexing import Indexer, Placed
from aios.kernel.memory.reach import Reach
from aios.kernel.memory.search import follow_links, search
from aios.kernel.memory.tables import Filter, SpaceKey
from aios.kernel.memory.words import CommonWords
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.taint import source_of, take

if TYPE_CHECKING:
    from aios.kernel.memory.asking import Ask

MAX_PENDING_USES = 512
"""Notes whose use is not written down yet: a recall should not wait for the disk, and a crash may forget that many."""


MAX_KNOWN_SPACES = 1_000


class MemoryStatistics(Struct, frozen=True):
    """Counters since the kernel began; `n_vectors` are in memory."""

    n_remembered: int
    n_recalls: int
    n_vectors: int
    embedder: str


class Change(NamedTuple):
    """A note that was written, the one whose place it took, its space and its vector: what the index is told after the commit."""

    note: int
    replaced: int | None
    space: int
    placed: Placed | None


class MemoryManager:
    """The handlers of the calls about long-term memory. Nothing is opened before the first of them."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        config: MemoryConfig,
        *,
        tasks: anyio.abc.TaskGroup,
        ask: "Ask | None" = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._indexer = Indexer(db, config.embedder, tasks, ask=ask)
        self._max_notes, self._setting = config.max_notes, config.embedder
        self._reach = Reach(clock)
        self._opening = anyio.Lock()
        self._is_open = False
        self._uses: Counter[int] = Counter()
        self._common_words = CommonWords()
        self._known_spaces: dict[SpaceKey, int] = {}
        self._n_remembered = self._n_recalls = 0

    async def remember(self, run: Run, call: Remember) -> Remembered:
        """Keep a note."""
        await self._open()
        now = self._clock.unix_s()
        valid_from = now if call.valid_from_unix_s is None else call.valid_from_unix_s
        if call.valid_to_unix_s is not None and call.valid_to_unix_s <= valid_from:
            raise InvalidCall("the note would never hold", hint="`valid_to_unix_s` must be later")
        note = Note(
            id=0,
            text=call.text,
            scope=call.scope,
            origin=_origin(run, call.source),
            created_unix_s=now,
            valid_from_unix_s=valid_from,
            valid_to_unix_s=call.valid_to_unix_s,
            expires_unix_s=_expiry(call, now),
            tags=call.tags,
            importance=call.importance,
            taint=source_of(run.process) or call.taint,
        )
        key = self._reach.key(run.process, call.scope)
        placed = await self._indexer.place(call.text, self._space_of(key))

        def write(connection: apsw.Connection) -> Change:
            return self._put(connection, tables.make_space(connection, key), note, placed)

        return await self._change(run, write)

    async def recall(self, run: Run, call: Recall) -> Recalled:
        """Find notes by words and meaning."""
        await self._open()
        now = self._clock.unix_s()
        indexer = self._indexer
        asked = await indexer.ask(call.query)

        def read(connection: apsw.Connection) -> Recalled:
            which = Filter(
                self._reach.spaces(connection, run.process, call.scopes),
                now,
                call.tags,
                call.since_unix_s,
                now if call.at_unix_s is None else call.at_unix_s,
                call.include_superseded,
            )
            sense = asked or indexer.sense_here(call.query)
            hits = search(
                connection,
                call.query,
                which,
                limit=call.limit,
                common=self._common_words,
                sense=sense,
            )
            if call.follow_links:
                hits = follow_links(connection, hits, which, limit=call.limit)
            return Recalled(tuple(hits), sense.meanings.name if sense else "")

        found = await self._db.read(read)
        _take_notes(run, [hit.note for hit in found.hits])
        self._n_recalls += 1
        self._uses.update(hit.note.id for hit in found.hits)
        if len(self._uses) > MAX_PENDING_USES:
            self._db.write_soon(self._counting_uses(), on_failure=_nothing, is_needed=False)
        return found

    async def get(self, run: Run, call: MemoryGet) -> NoteDetails:
        """Read one note."""
        await self._open()
        found = await self._db.read(
            lambda connection: self._reach.details(connection, run.process, call.id)
        )
        _take_notes(run, [found.note])
        return found

    async def update(self, run: Run, call: Update) -> Remembered:
        """Put a new note in the place of one."""
        await self._open()
        now = self._clock.unix_s()
        space, _ = self._db.read_nowait(
            lambda connection: self._reach.changeable(connection, run.process, call.id)
        )
        placed = await self._indexer.place(call.text, space)

        def write(connection: apsw.Connection) -> Change:
            space, old = self._reach.in_force(connection, run.process, call.id)
            note = msgspec.structs.replace(
                old,
                text=call.text,
                origin=_origin(run, call.source),
                created_unix_s=now,
                valid_from_unix_s=now,
                valid_to_unix_s=_end_to_come(old, now),
                tags=old.tags if call.tags is None else call.tags,
                importance=old.importance if call.importance is None else call.importance,
                supersedes=old.id,
                taint=source_of(run.process)
                or (old.taint if call.tags is None and old.tags else ""),
            )
            change = self._put(connection, space, note, placed)
            tables.carry_links(connection, old.id, change.note)
            return change

        return await self._change(run, write)

    async def look(self, process: Process, note_id: int) -> None:
        """Return if a note is there that the process may change.

        Raises:
            AccessDenied: It is another's.
            NotFound: There is none, or it is not for the process.
        """
        await self._open()
        await self._db.read(lambda connection: self._reach.changeable(connection, process, note_id))

    async def forget(self, run: Run, call: Forget) -> Forgotten:
        """Delete a note and those whose place it took."""
        await self._open()

        def write(connection: apsw.Connection) -> Forgotten:
            self._reach.changeable(connection, run.process, call.id)
            ids = tables.delete_with_history(connection, call.id)
            return run.sealed(connection, Forgotten(ids))

        return await self._db.write(write, self._publish_removal)

    async def link(self, run: Run, call: LinkNotes) -> NoteDetails:
        """Link two notes, or no longer."""

        def change(connection: apsw.Connection) -> None:
            self._reach.changeable(connection, run.process, call.id)
            self._reach.visible(connection, run.process, call.to)
            if call.id == call.to:
                raise InvalidCall("a note cannot be linked with itself", hint="name another one")
            tables.set_link(connection, call.id, call.to, is_on=call.is_on)

        return await self._amend(run, call.id, change)

    async def tag(self, run: Run, call: TagNote) -> NoteDetails:
        """Change the tags of a note, which stays the same."""

        def change(connection: apsw.Connection) -> None:
            _, note = self._reach.in_force(connection, run.process, call.id)
            kept = (tag for tag in note.tags if tag not in call.remove)
            tags = tuple(dict.fromkeys((*kept, *call.add)))
            if len(tags) > MAX_TAGS:
                raise InvalidCall(
                    f"note {note.id} would have {len(tags)} tags, and may have {MAX_TAGS}",
                    hint="`remove` some in the same call",
                )
            taint = note.taint or source_of(run.process)
            tables.set_tags(connection, note.id, tags, taint=taint)

        return await self._amend(run, call.id, change)

    async def list_notes(self, run: Run, call: MemoryList) -> Notes:
        """List notes by id."""
        await self._open()
        now = self._clock.unix_s()

        def read(connection: apsw.Connection) -> Notes:
            spaces = self._reach.spaces(connection, run.process, call.scopes)
            which = Filter(spaces, now, call.tags, include_superseded=call.include_superseded)
            return Notes(*tables.page(connection, which, after=call.after, limit=call.limit))

        found = await self._db.read(read)
        _take_notes(run, found.notes)
        return found

    async def usage(self, run: Run, _: MemoryUsage) -> MemoryUsed:
        """How many notes there are, and how far the index is."""
        await self._open()
        owner = run.process.owner

        def read(connection: apsw.Connection) -> MemoryUsed:
            n_mine = tables.n_notes_of(connection, owner)
            embedder, is_wanted = self._indexer.embedder, self._indexer.is_wanted
            n_waiting = tables.n_waiting(connection, embedder) if is_wanted else 0
            return MemoryUsed(n_mine, self._max_notes, embedder, n_waiting, self._setting)

        return await self._db.read(read)

    async def check(self, run: Run, _: MemoryCheck) -> NotesChecked:
        """Compare the tables with each other and with the indexes."""
        if run.process.pid != INIT_PID:
            raise AccessDenied("only the owner may do that", hint="use `aios fsck`")
        await self._open()

        def look(connection: apsw.Connection) -> NotesChecked:
            tables.index_words(connection)  # of the notes that are written in the same commit
            meanings = self._indexer.meanings
            indexed = meanings.index.notes() if meanings is not None else None
            return check_notes(connection, embedder=self._indexer.embedder, indexed=indexed)

        # In the writer's thread, so that the index is as far as the tables.
        return await self._db.write(look)

    def _counting_uses(self) -> Callable[[apsw.Connection], None]:
        """The write of how often notes were recalled since the last one."""
        uses, self._uses = self._uses, Counter()
        return lambda connection: tables.count_uses(connection, uses)

    async def aclose(self) -> None:
        """The kernel is ending: write down what is left, and let go of the embedder."""
        try:
            if self._n_recalls:
                await self._db.write(self._counting_uses())
        finally:
            self._indexer.close()

    async def reindex(self, notes: Collection[int]) -> None:
        """Find notes where they are now, or no longer: they were removed or given away beside the calls of this manager."""
        meanings = self._indexer.meanings
        if meanings is not None and notes:
            await self._db.write(lambda connection: meanings.reload(connection, notes))

    def statistics(self) -> MemoryStatistics:
        """Counters; cheap."""
        meanings = self._indexer.meanings
        return MemoryStatistics(
            self._n_remembered,
            self._n_recalls,
            len(meanings.index) if meanings else 0,
            self._indexer.embedder,
        )

    # --- opening -------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        """At the first use: drop what is over, load the embedder and the signs."""
        if self._is_open:
            return
        async with self._opening:
            if self._is_open:
                return
            now = self._clock.unix_s()
            await self._db.write(lambda connection: _drop_what_is_over(connection, now))
            await self._indexer.open()
            self._is_open = True

    async def _amend(
        self, run: Run, note_id: int, change: Callable[[apsw.Connection], None]
    ) -> NoteDetails:
        """Change what a note has beside its text; the answer shows it."""
        await self._open()

        def write(connection: apsw.Connection) -> NoteDetails:
            change(connection)
            return run.sealed(connection, self._reach.details(connection, run.process, note_id))

        _, note = await self._db.read(
            lambda connection: self._reach.visible(connection, run.process, note_id)
        )
        _take_notes(run, [note])  # before the write that has the answer
        return await self._db.write(write)

    # --- inside a write or a read --------------------------------------------------------------------------------

    async def _change(self, run: Run, write: Callable[[apsw.Connection], Change]) -> Remembered:
        """Do a write that adds a note."""

        def sealed(connection: apsw.Connection) -> Change:
            change = write(connection)
            run.sealed(connection, Remembered(change.note))
            return change

        change = await self._db.write(
            sealed, self._publish, queueing=run.holding, closing=tables.index_words
        )
        self._indexer.note_news()
        return Remembered(change.note)

    def _put(
        self, connection: apsw.Connection, space: int, note: Note, placed: Placed | None
    ) -> Change:
        owner = note.origin.owner
        if tables.n_notes_of(connection, owner) >= self._max_notes:
            raise ResourceExhausted(
                f"{owner} has {self._max_notes} notes, which is the limit",
                hint="forget some, or raise `memory.max_notes`",
            )
        note_id = tables.insert(connection, space, note)
        meanings = self._indexer.meanings
        if meanings is not None and placed is not None:
            meanings.keep_one(connection, note_id, placed.packed)
            tables.link_neighbours(connection, note_id, space, placed.neighbours)
        return Change(note_id, note.supersedes, space, placed)

    def _publish(self, change: Change) -> None:
        """In the writer's thread, after the commit."""
        self._n_remembered += 1
        meanings = self._indexer.meanings
        if meanings is None:
            return
        if change.replaced is not None:
            meanings.remove([change.replaced])
        if change.placed is not None:
            meanings.publish_one(change.note, change.space, change.placed.signs)

    def _publish_removal(self, forgotten: Forgotten) -> None:
        """In the writer's thread, after the commit."""
        if self._indexer.meanings is not None:
            self._indexer.meanings.remove(forgotten.ids)

    def _space_of(self, key: SpaceKey) -> int:
        """The space in which a new note has its neighbours; 0 before it is there. Only a hint: a write looks again."""
        found = self._known_spaces.get(key)
        if found is None:
            found = self._db.read_nowait(lambda connection: tables.find_space(connection, key))
            if found is None:
                return 0
            if len(self._known_spaces) >= MAX_KNOWN_SPACES:
                self._known_spaces.clear()
            self._known_spaces[key] = found
        return found


def _nothing() -> None:
    """A write that failed is tried again with the next one."""


def _expiry(call: Remember, now: float) -> float | None:
    """When a new note is forgotten."""
    if call.expires_unix_s is None:
        return None if call.expires_in_s is None else now + call.expires_in_s
    if call.expires_in_s is not None:
        raise InvalidCall("two times to forget the note", hint="give one of them")
    if call.expires_unix_s <= now:
        raise InvalidCall("the note would be forgotten at once", hint="`expires_unix_s` is over")
    return call.expires_unix_s


def _end_to_come(old: Note, now: float) -> float | None:
    """Until when what takes the place of a note is valid: as that was, unless it is over."""
    end = old.valid_to_unix_s
    return end if end is not None and end > now else None


def _origin(run: Run, source: str) -> Origin:
    process = run.process
    return Origin(process.owner, process.name, process.pid, run.seq, source)


def _take_notes(run: Run, notes: Iterable[Note]) -> None:
    """A call shows notes."""
    for note in notes:
        take(run, note.taint, f"note {note.id}")


def _drop_what_is_over(connection: apsw.Connection, now_unix_s: float) -> None:
    tables.delete_processes(connection)
    tables.delete_expired(connection, now_unix_s)
