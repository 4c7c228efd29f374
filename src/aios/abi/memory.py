"""The calls about long-term memory. What they do is `kernel/memory/manager.py`."""

from enum import Enum
from typing import Annotated

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call
from aios.abi.types import MAX_INT, Count, Pid, ShortText

NoteId = Annotated[int, Meta(ge=1, le=MAX_INT)]
"""Positive and growing; never given twice."""
NoteText = Annotated[str, Meta(pattern=r"\S", max_length=1 << 16)]
Tag = Annotated[str, Meta(pattern=r"\S", max_length=64)]
MAX_TAGS = 32
Tags = Annotated[tuple[Tag, ...], Meta(max_length=MAX_TAGS)]
Importance = Annotated[float, Meta(ge=0, le=1)]
UnixSeconds = Annotated[float, Meta(ge=0, le=1e11)]


class Scope(Enum):
    """Who may read a note."""

    PROCESS = "process"  # the process that wrote it; gone with the kernel
    AGENT = "agent"  # processes of the same owner and lineage, also later ones
    GROUP = "group"  # all processes of the same owner
    SHARED = "shared"  # every process of this kernel


Scopes = Annotated[tuple[Scope, ...], Meta(max_length=4)]
"""Empty stands for all that the caller may read."""


class Origin(Struct, frozen=True):
    """Where a note comes from: who wrote it with which of its calls, and what it named as the source."""

    owner: str
    name: str
    pid: Pid
    seq: int
    source: str = ""


class Note(Struct, frozen=True):
    """Something remembered. It holds from `valid_from_unix_s` until `valid_to_unix_s`, if that is set.

    `superseded_by` names the note that took its place; `supersedes` the one whose place it took. `taint` is where data in it came
    from outside, empty if none did. `agent` is whose it is, if it is one of scope `agent`: its folder below `/agents`.
    """

    id: int
    text: str
    scope: Scope
    origin: Origin
    created_unix_s: float
    valid_from_unix_s: float
    valid_to_unix_s: float | None = None
    expires_unix_s: float | None = None
    tags: tuple[str, ...] = ()
    importance: float = 0.5
    n_used: int = 0
    supersedes: int | None = None
    superseded_by: int | None = None
    taint: str = ""
    agent: str = ""


class Remembered(Answer, frozen=True):
    """The note is on disk and can be recalled."""

    id: int


class Remember(Call[Remembered], frozen=True):
    """Keep a note. It is forgotten after `expires_in_s` seconds or at `expires_unix_s`, if one of them is given.

    `taint` says where data in it came from outside, if it did; a caller that such data has reached need not say so, and cannot say that it has not.

    Raises:
        InvalidCall: `valid_to_unix_s` is not after `valid_from_unix_s`, it would be forgotten at once, or both expiries are given.
    """

    text: NoteText
    scope: Scope = Scope.AGENT
    tags: Tags = ()
    importance: Importance = 0.5
    source: ShortText = ""
    valid_from_unix_s: UnixSeconds | None = None
    valid_to_unix_s: UnixSeconds | None = None
    expires_in_s: Annotated[float, Meta(gt=0, le=1e10)] | None = None
    expires_unix_s: UnixSeconds | None = None
    taint: ShortText = ""


class Hit(Struct, frozen=True):
    """A note that was found, best first. `why` says what made it match, such as `words #1`, `meaning 0.62`."""

    note: Note
    score: float
    why: tuple[str, ...]


class Recalled(Answer, frozen=True):
    """The best notes. `embedder` is what compared meanings, empty when only words were compared."""

    hits: tuple[Hit, ...]
    embedder: str = ""


class Recall(Call[Recalled], frozen=True):
    """Find what is known about something, by words and by meaning.

    Only notes that have all the `tags`, were written after `since_unix_s`, and hold at `at_unix_s` (now, if not given) are
    found. With `include_superseded` notes that another took the place of are found too, by their words only. With `follow_links`
    notes that the best hits are linked with are found too; `why` says `linked to 12` then.
    """

    query: NoteText
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    scopes: Scopes = ()
    tags: Tags = ()
    since_unix_s: UnixSeconds | None = None
    at_unix_s: UnixSeconds | None = None
    include_superseded: bool = False
    follow_links: bool = False


class NoteDetails(Answer, frozen=True):
    """A note, and the ids of those it is linked with that the caller may read."""

    note: Note
    links: tuple[int, ...]


class MemoryGet(Call[NoteDetails], frozen=True, tag="memory_get"):
    """Read one note.

    Raises:
        NotFound: There is none of that id, or it is not for the caller.
    """

    id: NoteId


class Update(Call[Remembered], frozen=True):
    """Put a new note in the place of one. The old one is kept and marked.

    Tags and importance stay unless given; so do its expiry, and the end of its validity if that is to come. It is valid from now on.

    The new one is linked with all that the old one was linked with.

    Raises:
        AccessDenied: Another owner wrote it.
        Conflict: Another note has taken its place already.
        NotFound: There is none of that id, or it is not for the caller.
    """

    id: NoteId
    text: NoteText
    tags: Tags | None = None
    importance: Importance | None = None
    source: ShortText = ""


class Forgotten(Answer, frozen=True):
    """The notes that are gone: the one that was named, and those whose place it took."""

    ids: tuple[int, ...]


class Forget(Call[Forgotten], frozen=True):
    """Delete a note, and all those whose place it took, for good.

    Raises:
        AccessDenied: Another owner wrote it.
        NotFound: There is none of that id, or it is not for the caller.
    """

    id: NoteId


class LinkNotes(Call[NoteDetails], frozen=True, tag="link"):
    """Link two notes, in both directions; with `is_on` false, no longer. The answer is the first of them.

    Raises:
        AccessDenied: Another owner wrote the first one.
        NotFound: There is none of that id, or it is not for the caller.
    """

    id: NoteId
    to: NoteId
    is_on: bool = True


class TagNote(Call[NoteDetails], frozen=True, tag="memory_tag"):
    """Give a note tags, and take some away. It stays the same note: its text, origin, age and uses are kept.

    A tag that it has, or has not, already is no error. Data from outside that the caller has read taints the note, as tags may carry it.

    Raises:
        AccessDenied: Another owner wrote it.
        Conflict: Another note has taken its place.
        InvalidCall: It would have more tags than a note may have.
        NotFound: There is none of that id, or it is not for the caller.
    """

    id: NoteId
    add: Tags = ()
    remove: Tags = ()


class Notes(Answer, frozen=True):
    """Notes by id; `n_all` are there if the list were not cut."""

    notes: tuple[Note, ...]
    n_all: Count


class MemoryList(Call[Notes], frozen=True, tag="memory_list"):
    """List notes whose id is greater than `after`, oldest first.

    An answer of over 4 MiB of text ends before `limit`; as long as `n_all` is more than came, go on after the last one.
    """

    scopes: Scopes = ()
    tags: Tags = ()
    after: Count = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    include_superseded: bool = False


class MemoryUsed(Answer, frozen=True):
    """What the caller's owner has in memory, and how far the index of meanings is.

    `n_notes` of at most `max_notes` were written by processes of the owner, superseded ones too. `n_waiting` notes of all owners
    have no vector of the `embedder` yet, as when it has just been changed, and are found by their words only; the embedder is
    empty when there is none, or when it has not answered yet. `setting` is what `memory.embedder` says: `auto`, `wordllama`, `engine` or
    `none`.
    """

    n_notes: Count
    max_notes: Count
    embedder: str
    n_waiting: Count
    setting: str = ""


class MemoryUsage(Call[MemoryUsed], frozen=True, tag="memory_usage"):
    """Ask how much of its memory an owner has used, and how far the index is."""


class NotesChecked(Answer, frozen=True):
    """How many notes there are, superseded ones too, and every fault that was found."""

    n_notes: Count
    faults: tuple[str, ...]


class MemoryCheck(Call[NotesChecked], frozen=True, tag="memory_check"):
    """Compare the tables of memory with each other and with its indexes. Only the owner may.

    Raises:
        AccessDenied: The caller is not init.
    """
