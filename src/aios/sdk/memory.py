"""Memory for agents: `await client.memory.remember("...")`, `await client.memory.recall("...")`, and the same for plain code."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from aios.abi.interactions import (
    BlockStatistics,
    Interactions,
    MemoryLog,
    MemoryRead,
    MemoryStat,
)
from aios.abi.memory import (
    Forget,
    LinkNotes,
    MemoryCheck,
    MemoryGet,
    MemoryList,
    MemoryUsage,
    MemoryUsed,
    Note,
    NoteDetails,
    NotesChecked,
    Recall,
    Recalled,
    Remember,
    Scope,
    TagNote,
    Update,
)
from aios.sdk.requests import build

if TYPE_CHECKING:
    from aios.abi.gate import Gate
    from aios.sdk.blocking import BlockingGate

ScopeName = Literal["process", "agent", "group", "shared"]
"""Who may read: this process; the same agent, also when it is started again; all of this owner; all."""
PAGE_NOTES = 500
MAX_SOURCE_CHARS = 4_000


class RememberOptions(TypedDict, total=False):
    """What may be said of a note besides its text; see `aios.abi.memory.Note`."""

    scope: ScopeName
    tags: Sequence[str]
    importance: float
    source: str
    valid_from_unix_s: float
    valid_to_unix_s: float
    expires_in_s: float
    expires_unix_s: float
    taint: str


class RecallOptions(TypedDict, total=False):
    """What a note must have to be found; see `aios.abi.memory.Recall`."""

    scopes: Sequence[ScopeName]
    tags: Sequence[str]
    since_unix_s: float
    at_unix_s: float
    include_superseded: bool
    follow_links: bool


class UpdateOptions(TypedDict, total=False):
    """What changes in a note besides its text; what is not given stays. The new note is valid from now on."""

    tags: Sequence[str]
    importance: float
    source: str


class ListOptions(TypedDict, total=False):
    """Which notes to list."""

    scopes: Sequence[ScopeName]
    tags: Sequence[str]
    include_superseded: bool


class Memory:
    """The long-term memory of the process that a client stands for."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate

    async def remember(self, text: str, **options: Unpack[RememberOptions]) -> int:
        """Keep a note, on disk when this returns; returns its id. Without a `scope` it is for this agent, also when it is started again."""
        return (await self._gate.call(build(Remember, text=text, **options))).value.id

    async def import_note(self, note: Note, scope: ScopeName | None = None) -> int:
        """Keep a note that `notes` gave, of another kernel as well, as one's own; returns its id.

        Text, tags, importance, validity, expiry and the mark of data from outside come along; whose it was is named in its source. Without a `scope` it keeps its own
        (an agent's, if that was of a process).

        Raises:
            InvalidCall: It has expired, or would never hold.
        """
        return (await self._gate.call(_imported(note, scope))).value.id

    async def recall(
        self, query: str, limit: int = 10, **options: Unpack[RecallOptions]
    ) -> Recalled:
        """The notes that say most about something, best first, each with why it was found."""
        call = build(Recall, query=query, limit=limit, **options)
        return (await self._gate.call(call)).value

    async def get(self, note: int) -> NoteDetails:
        """One note, and what it is linked with.

        Raises:
            NotFound: There is none of that id, or it is not for the caller.
        """
        return (await self._gate.call(build(MemoryGet, id=note))).value

    async def update(self, note: int, text: str, **options: Unpack[UpdateOptions]) -> int:
        """Put a new note in the place of one, which is kept and marked; returns the id of the new one.

        Raises:
            AccessDenied: Another owner wrote it.
            Conflict: Another note has taken its place already.
            NotFound: There is none of that id, or it is not for the caller.
        """
        return (await self._gate.call(build(Update, id=note, text=text, **options))).value.id

    async def forget(self, note: int) -> tuple[int, ...]:
        """Delete a note, and all those whose place it took; returns their ids.

        Raises:
            AccessDenied: Another owner wrote it.
            NotFound: There is none of that id, or it is not for the caller.
        """
        return (await self._gate.call(build(Forget, id=note))).value.ids

    async def link(self, note: int, to: int, *, is_on: bool = True) -> None:
        """Link two notes, in both directions, or no longer.

        Raises:
            AccessDenied: Another owner wrote the first one.
            NotFound: There is none of that id, or it is not for the caller.
        """
        await self._gate.call(build(LinkNotes, id=note, to=to, is_on=is_on))

    async def tag(
        self, note: int, *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> NoteDetails:
        """Give a note tags, and take some away; it stays the same note. Returns: the note as it is then.

        Raises:
            AccessDenied: Another owner wrote it.
            Conflict: Another note has taken its place.
            InvalidCall: It would have more tags than a note may have.
            NotFound: There is none of that id, or it is not for the caller.
        """
        return (await self._gate.call(build(TagNote, id=note, add=add, remove=remove))).value

    async def notes(self, **options: Unpack[ListOptions]) -> AsyncIterator[Note]:
        """All notes that the caller may read, by id, fetched in pages."""
        after, is_more = 0, True
        while is_more:
            call = build(MemoryList, after=after, limit=PAGE_NOTES, **options)
            page = (await self._gate.call(call)).value
            for note in page.notes:
                yield note
                after = note.id
            is_more = len(page.notes) < page.n_all

    async def check(self) -> NotesChecked:
        """Compare the tables of memory with each other and with the indexes; only the owner may."""
        return (await self._gate.call(MemoryCheck())).value

    async def usage(self) -> MemoryUsed:
        """How many notes the owner has of how many, and whether all of them can be found by meaning."""
        return (await self._gate.call(MemoryUsage())).value

    async def log(self, text: str, kind: str = "said") -> int:
        """Add a record to the interactions of this agent, on disk when this returns; returns its id."""
        return (await self._gate.call(build(MemoryLog, text=text, kind=kind))).value.id

    async def read(
        self, first: int | None = None, limit: int = 1, *, pid: int | None = None
    ) -> Interactions:
        """At most `limit` records from `first` on, without it the last ones: one's own, or of a process that one may see.

        Of over 4 MiB of text it is fewer: to have all, go on after the last one until there is none.

        Raises:
            AccessDenied: That process is neither the caller nor below it.
            NotFound: There is none of that pid, or it is forgotten.
        """
        call = build(MemoryRead, pid=pid, first=first, limit=limit)
        return (await self._gate.call(call)).value

    async def stat(self, *, pid: int | None = None) -> BlockStatistics:
        """The memory block of this process, or of one that it may see: its size, and how many reads had to go to the disk.

        Raises:
            AccessDenied: That process is neither the caller nor below it.
            NotFound: There is none of that pid, or it is forgotten.
        """
        return (await self._gate.call(build(MemoryStat, pid=pid))).value


class BlockingMemory:
    """`Memory` for code that waits; its methods say more."""

    def __init__(self, gate: "BlockingGate") -> None:
        self._gate = gate

    def remember(self, text: str, **options: Unpack[RememberOptions]) -> int:
        """Keep a note, on disk when this returns; returns its id. Without a `scope` it is for this agent, also when it is started again."""
        return (self._gate.call(build(Remember, text=text, **options))).value.id

    def import_note(self, note: Note, scope: ScopeName | None = None) -> int:
        """Keep a note that `notes` gave, of another kernel as well, as one's own; returns its id.

        Text, tags, importance, validity, expiry and the mark of data from outside come along; whose it was is named in its source. Without a `scope` it keeps its own
        (an agent's, if that was of a process).

        Raises:
            InvalidCall: It has expired, or would never hold.
        """
        return (self._gate.call(_imported(note, scope))).value.id

    def recall(self, query: str, limit: int = 10, **options: Unpack[RecallOptions]) -> Recalled:
        """The notes that say most about something, best first, each with why it was found."""
        call = build(Recall, query=query, limit=limit, **options)
        return (self._gate.call(call)).value

    def get(self, note: int) -> NoteDetails:
        """One note, and what it is linked with.

        Raises:
            NotFound: There is none of that id, or it is not for the caller.
        """
        return (self._gate.call(build(MemoryGet, id=note))).value

    def update(self, note: int, text: str, **options: Unpack[UpdateOptions]) -> int:
        """Put a new note in the place of one, which is kept and marked; returns the id of the new one.

        Raises:
            AccessDenied: Another owner wrote it.
            Conflict: Another note has taken its place already.
            NotFound: There is none of that id, or it is not for the caller.
        """
        return (self._gate.call(build(Update, id=note, text=text, **options))).value.id

    def forget(self, note: int) -> tuple[int, ...]:
        """Delete a note, and all those whose place it took; returns their ids.

        Raises:
            AccessDenied: Another owner wrote it.
            NotFound: There is none of that id, or it is not for the caller.
        """
        return (self._gate.call(build(Forget, id=note))).value.ids

    def link(self, note: int, to: int, *, is_on: bool = True) -> None:
        """Link two notes, in both directions, or no longer.

        Raises:
            AccessDenied: Another owner wrote the first one.
            NotFound: There is none of that id, or it is not for the caller.
        """
        self._gate.call(build(LinkNotes, id=note, to=to, is_on=is_on))

    def tag(self, note: int, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> NoteDetails:
        """Give a note tags, and take some away; it stays the same note. Returns: the note as it is then.

        Raises:
            AccessDenied: Another owner wrote it.
            Conflict: Another note has taken its place.
            InvalidCall: It would have more tags than a note may have.
            NotFound: There is none of that id, or it is not for the caller.
        """
        return (self._gate.call(build(TagNote, id=note, add=add, remove=remove))).value

    def notes(self, **options: Unpack[ListOptions]) -> Iterator[Note]:
        """All notes that the caller may read, by id, fetched in pages."""
        after, is_more = 0, True
        while is_more:
            call = build(MemoryList, after=after, limit=PAGE_NOTES, **options)
            page = (self._gate.call(call)).value
            for note in page.notes:
                yield note
                after = note.id
            is_more = len(page.notes) < page.n_all

    def check(self) -> NotesChecked:
        """Compare the tables of memory with each other and with the indexes; only the owner may."""
        return (self._gate.call(MemoryCheck())).value

    def usage(self) -> MemoryUsed:
        """How many notes the owner has of how many, and whether all of them can be found by meaning."""
        return (self._gate.call(MemoryUsage())).value

    def log(self, text: str, kind: str = "said") -> int:
        """Add a record to the interactions of this agent, on disk when this returns; returns its id."""
        return (self._gate.call(build(MemoryLog, text=text, kind=kind))).value.id

    def read(
        self, first: int | None = None, limit: int = 1, *, pid: int | None = None
    ) -> Interactions:
        """At most `limit` records from `first` on, without it the last ones: one's own, or of a process that one may see.

        Of over 4 MiB of text it is fewer: to have all, go on after the last one until there is none.

        Raises:
            AccessDenied: That process is neither the caller nor below it.
            NotFound: There is none of that pid, or it is forgotten.
        """
        call = build(MemoryRead, pid=pid, first=first, limit=limit)
        return (self._gate.call(call)).value

    def stat(self, *, pid: int | None = None) -> BlockStatistics:
        """The memory block of this process, or of one that it may see: its size, and how many reads had to go to the disk.

        Raises:
            AccessDenied: That process is neither the caller nor below it.
            NotFound: There is none of that pid, or it is forgotten.
        """
        return (self._gate.call(build(MemoryStat, pid=pid))).value


def imported_source(note: Note) -> str:
    """What names the origin of a note that was imported."""
    origin = note.origin
    whose = f"(note {note.id} of {origin.owner}/{origin.name})"
    return f"{origin.source[: MAX_SOURCE_CHARS - len(whose)]} {whose}".strip()


def _imported(note: Note, scope: ScopeName | None) -> Remember:
    return build(
        Remember,
        text=note.text,
        scope=scope or ("agent" if note.scope is Scope.PROCESS else note.scope.value),
        tags=note.tags,
        importance=note.importance,
        source=imported_source(note),
        valid_from_unix_s=note.valid_from_unix_s,
        valid_to_unix_s=note.valid_to_unix_s,
        expires_unix_s=note.expires_unix_s,
        taint=note.taint,
    )
