"""One copy of what a process has on disk, up to a call: its journal, files, short-term memory and mail. Runs in the writer's thread.

Branches, forks in the past and checkpoints are all made by this, and nothing of it is computed again: texts and contents
are shared, and KV pages are found by what is in them. Since all is read in one transaction, after the effects that came before it, the
parts belong together: a letter is in the mailbox or in the answer of the call that took it.
"""

from collections.abc import Callable, Sequence

import apsw
from msgspec import Struct

from aios.abi.mail import Letter, Received, Subscribe
from aios.abi.types import Pid
from aios.abi.wire import decode_answer, decode_call
from aios.disk.blobs import BlobStore
from aios.errors import NotFound, TooLarge
from aios.kernel.journal import tables as journal
from aios.kernel.mail import tables as mail
from aios.kernel.mail.post import Before
from aios.kernel.memory import interactions
from aios.kernel.storage.branch import branch, count_files, count_versions
from aios.kernel.storage.tables import last_change
from aios.kernel.storage.versions import Author, Transaction

MAX_COPIED_FILES = 100_000
"""Of all copies that are made at once. Cost: 15 us each, for which nobody else writes."""
MAX_COPIED_RECORDS = 500_000
"""Of journals and short-term memory, likewise. Cost: 4 us each."""
MAX_READ_VERSIONS = 1_000_000
"""That are looked through for what files were at a moment. Cost: 2 us each."""


class Estate(Struct, frozen=True):
    """What things of a process are known by: its journal and mail by pid, its files by a folder, its memory by owner and agent."""

    pid: Pid
    home: str
    owner: str
    agent: str

    @property
    def whose(self) -> interactions.Whose:
        """The key of its short-term memory."""
        return self.owner, self.agent


class Store(Struct, frozen=True):
    """What a copy writes files with."""

    blobs: BlobStore
    boot: int
    unix_s: float
    quota_bytes: int


class Past(Struct, frozen=True):
    """What is copied of a source.

    Args:
        first_seq: The first record of the life that is copied.
        begun_unix_s: When the source began.
        at: The last call to be copied; None: the last one that ended, and all else as it is now.
        is_over: Whether the source has ended by now, so that its journal need not be there any more.
    """

    first_seq: int
    begun_unix_s: float
    at: int | None
    is_over: Callable[[], bool]


class Copy(Struct, frozen=True):
    """A copy that is to be made; `letter_ids` are numbers for its letters."""

    source: Estate
    target: Estate
    past: Past
    letter_ids: range


class Copied(Struct, frozen=True):
    """What a copy came to."""

    at: int
    mail: Before
    last_change: int
    """Of files, when it was made: what came later is the branch's own."""


def make_copies(connection: apsw.Connection, store: Store, copies: Sequence[Copy]) -> list[Copied]:
    """Copy one source as it is, or was at one moment, to each target, inside a write.

    Raises:
        NotFound: There is no such call, or the journal no longer has what was before it.
        TooLarge: It is more than one write may copy.
    """
    source, past = copies[0].source, copies[0].past
    at, ended_unix_s = find_point(connection, source.pid, past)
    unix_s = None if past.at is None else ended_unix_s
    _check_size(connection, copies, at, unix_s)
    first = _make_copy(connection, store, copies[0], at=at, unix_s=unix_s)
    # What the files were then is looked for once: the others are copies of the first.
    home = "" if unix_s is None else copies[0].target.home
    others = copies[1:]
    return [
        first,
        *(_make_copy(connection, store, each, at=at, unix_s=unix_s, home=home) for each in others),
    ]


def _check_size(
    connection: apsw.Connection, copies: Sequence[Copy], at: int, unix_s: float | None
) -> None:
    """Raise TooLarge if copies are too large; what is not needed for that is not counted."""
    source, n_copies = copies[0].source, len(copies)
    whose, more = f"{n_copies} copies of {source.home}", "make fewer at once, or"
    if n_copies == 1:
        whose, more = f"a copy of {source.home}", "first"
    if unix_s is not None:
        most = MAX_READ_VERSIONS
        if count_versions(connection, source.home, limit=most + 1) > most:
            raise TooLarge(
                f"{source.home} has over {most} versions of files, too many to look for those of a moment",
                hint="purge old ones (`file_purge`), or branch off where it is now",
            )
    most = MAX_COPIED_FILES // n_copies
    n_files = count_files(connection, source.home, unix_s=unix_s, limit=most + 1)
    n_there = sum(
        count_files(connection, copy.target.home, limit=MAX_COPIED_FILES + 1) for copy in copies
    )
    if n_files > most or n_files * n_copies + n_there > MAX_COPIED_FILES:
        raise TooLarge(
            f"{whose} would have over {MAX_COPIED_FILES} files",
            hint=f"{more} delete files there, or move them to a folder that is shared",
        )
    most = MAX_COPIED_RECORDS // n_copies
    n_records = journal.count_records(connection, source.pid, up_to=at, limit=most + 1)
    n_records += interactions.count(connection, source.whose, limit=most + 1)
    if n_records > most:
        raise TooLarge(
            f"{whose} would have over {MAX_COPIED_RECORDS} records of calls and short-term memory",
            hint=f"{more} forget old records of its memory; or start it anew: a new life has a new journal",
        )


def _make_copy(
    connection: apsw.Connection,
    store: Store,
    copy: Copy,
    *,
    at: int,
    unix_s: float | None,
    home: str = "",
) -> Copied:
    """One copy; its files are those that the folder `home` has now, if one is given."""
    source, target = copy.source, copy.target
    journal.branch(connection, source.pid, target.pid, up_to=at)
    author = Author(target.pid, store.boot, target.home, store.unix_s)
    files = Transaction(connection, store.blobs, author, store.quota_bytes)
    then_s = None if home else unix_s
    branch(files, home or source.home, target.home, unix_s=then_s, told=source.home)
    interactions.branch(connection, source.whose, target.whose, unix_s=unix_s)
    topics = mail.topics_of(connection, source.pid)
    letters = mail.letters_of(connection, source.pid)
    if unix_s is not None:
        topics = _topics_then(connection, source.pid, at)
        letters = _letters_then(connection, source.pid, at, letters, unix_s=unix_s)
    copies = mail.branch(connection, target.pid, letters, ids=copy.letter_ids)
    mail.follow(connection, source.pid, target.pid, topics)
    before = Before(copies, topics, mail.correspondents_of(connection, target.pid))
    return Copied(at, before, last_change(connection))


def find_point(connection: apsw.Connection, pid: Pid, past: Past) -> tuple[int, float]:
    """The last call of a copy, and when that was done.

    Raises:
        NotFound: There is no such call, or the journal no longer has what was before it.
    """
    at = past.at
    found = journal.point(connection, pid, first=past.first_seq, at=at)
    if found.at is not None:
        return found.at, found.ended_unix_s or past.begun_unix_s
    if at is None and past.is_over() and not found.lowest:
        raise NotFound(
            f"process {pid} has ended, and its journal is gone",
            hint="start it anew; `journal.keep_s` and `journal.max_bytes` say for how long journals of ended processes are kept",
        )
    if not at:
        return 0, past.begun_unix_s
    kept = f"{found.lowest} to {found.highest}" if found.lowest else "none"
    raise NotFound(
        f"process {pid} has no call {at}; its journal has {kept}",
        hint=f"`aios journal {pid}` lists them; 0 is before the first",
    )


def _letters_then(
    connection: apsw.Connection, pid: Pid, at: int, letters: list[Letter], *, unix_s: float
) -> list[Letter]:
    """A mailbox as it was: what is in it and was then, and what was taken out since."""
    found = [letter for letter in letters if letter.sent_unix_s <= unix_s]
    for row in journal.load_calls(connection, pid, "receive", after=at):
        answer = decode_answer(row.answer)
        assert isinstance(answer, Received), f"{answer} brings no letters"
        found += [letter for letter in answer.letters if letter.sent_unix_s <= unix_s]
    return found


def _topics_then(connection: apsw.Connection, pid: Pid, at: int) -> list[str]:
    """What a process subscribed to, by its calls."""
    topics: dict[str, None] = {}
    for row in journal.load_calls(connection, pid, "subscribe", up_to=at):
        call = decode_call(row.intent)
        assert isinstance(call, Subscribe), f"{call} subscribes to nothing"
        if call.is_on:
            topics[call.topic] = None
        else:
            topics.pop(call.topic, None)
    return list(topics)
