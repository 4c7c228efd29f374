"""What a branch changed, given to its source, and what is left of branches, removed. Runs in the writer's thread.

Three states of a path decide, as in a merge of three: as it was when the branch began, as it is in the branch, and as it is at the
source. What the branch did not change stays as the source has it; what only the branch changed is taken; what both changed, and not to the same, is a
conflict, and then nothing is taken.
"""

from collections.abc import Iterable, Sequence

import apsw

from aios.abi.branches import Lasting
from aios.abi.types import Pid
from aios.disk.blobs import BlobStore
from aios.errors import Conflict, TooLarge
from aios.kernel.forking.endings import Ending
from aios.kernel.forking.tables import Group, Limb
from aios.kernel.journal import tables as journal
from aios.kernel.memory import heirs, interactions
from aios.kernel.storage.content import release_content, retain_content
from aios.kernel.storage.history import forget_marks
from aios.kernel.storage.paths import root_of
from aios.kernel.storage.tables import PAST, files_below, taint_of
from aios.kernel.storage.versions import Transaction

N_SHOWN = 5
"""Paths in the message of a conflict."""
MAX_MERGED = 20_000
"""Files of one commit, as of any other call."""
MAX_ERASED = 20_000
"""Versions that one write removes. Cost: 30 us each."""


def merge(transaction: Transaction, group: Group, limb: Limb) -> int:
    """Give the source what a branch changed in its folder. Returns: how many files.

    Raises:
        Conflict: Some of them were changed at the source, too.
        TooLarge: They are more than one call may change.
    """
    connection = transaction.connection
    base = _first(connection, limb)
    now = {
        each.path.removeprefix(limb.home): (each.content, each.size_bytes, each.version)
        for each in files_below(connection, limb.home)
    }
    there = {
        each.path.removeprefix(group.home): each.content
        for each in files_below(connection, group.home)
    }
    changed = [
        path for path in sorted({*base, *now}) if base.get(path) != now.get(path, (None,))[0]
    ]
    if len(changed) > MAX_MERGED:
        raise TooLarge(
            f"branch {limb.fork.pid} ({limb.fork.name}) changed over {MAX_MERGED} files, more than one call may",
            hint=f"nothing is merged; delete in {limb.home} what is not needed, or copy from it folder by folder and discard the branches",
        )
    clashes = [
        path
        for path in changed
        if there.get(path) not in (base.get(path), now.get(path, (None,))[0])
    ]
    if clashes:
        shown = ", ".join(path.removeprefix("/") for path in clashes[:N_SHOWN])
        more = f" and {len(clashes) - N_SHOWN} more" if len(clashes) > N_SHOWN else ""
        raise Conflict(
            f"branch {limb.fork.pid} ({limb.fork.name}) changed {shown}{more}, and so did others at {group.home} since it began; nothing is merged",
            hint=f"`aios fs diff` and `aios fs versions` show both; copy from {limb.home} what you want, or discard the branches",
        )
    note = f"from branch {limb.fork.name}"
    for path in changed:  # first what goes: a folder may come where a file was
        if path not in now:
            transaction.set_content(group.home + path, None, None, note=note)
    for path in changed:
        if path in now:
            content, size_bytes, version = now[path]
            retain_content(connection, content)
            taint, target = taint_of(connection, limb.home + path, version), group.home + path
            transaction.set_content(target, content, size_bytes, note=note, taint=taint)
    return len(changed)


def _first(connection: apsw.Connection, limb: Limb) -> dict[str, int]:
    """The contents that a branch began with, by path."""
    rows = connection.execute(
        "SELECT path, content FROM versions WHERE change <= ? AND path > ? AND path < ?",
        (limb.last_change, f"{limb.home}/", f"{limb.home}/{PAST}"),
    )
    return {str(path).removeprefix(limb.home): int(str(content)) for path, content in rows}


def hand_records(connection: apsw.Connection, group: Group, limb: Limb) -> None:
    """Add the short-term records that a branch made to those of its source, behind the last of these."""
    whose = (group.owner, group.agent)
    last = interactions.last_id(connection, whose)
    connection.execute(
        "INSERT INTO memory_interactions SELECT owner, ?, ? + row_number() OVER (ORDER BY id), unix_s, kind, text, taint, pid "
        "FROM memory_interactions WHERE owner = ? AND name = ? AND id > ?",
        (group.agent, last, group.owner, limb.agent, limb.last_record),
    )


def hand_and_erase(connection: apsw.Connection, blobs: BlobStore, ending: Ending) -> None:
    """What the winner has goes to the source, and of all branches nothing stays under their own names, but for files that are too many.

    Tells `ending` of the notes, and whether no file is left.
    """
    group, winner = ending.group, ending.winner
    notes = list[int]()
    if winner is not None:
        hand_records(connection, group, winner)
        notes += heirs.hand_over(connection, group.owner, winner.agent, group.agent)
    for each in ending.groups:
        for limb in each.limbs:
            notes += erase_memory(connection, each.owner, limb.agent)
    ending.is_erased = erase_folders(connection, blobs, ending.folders)
    ending.notes = tuple(notes)


def erase_folders(
    connection: apsw.Connection, blobs: BlobStore, folders: Iterable[tuple[str, str]]
) -> bool:
    """Remove folders, each with its heir, as `erase_files`, so much of them as one write may. Returns: whether all is gone."""
    n_left = MAX_ERASED
    for home, heir in folders:
        n_left -= erase_files(connection, blobs, home, heir=heir, most=n_left)
        if n_left <= 0:
            return False
    return True


def erase_files(
    connection: apsw.Connection, blobs: BlobStore, home: str, *, heir: str, most: int = -1
) -> int:
    """Remove a folder with all versions of what was ever in it; for contents that others have too, the folder `heir` pays from now on.

    With `most` at most so many versions go, path by path. Returns: how many went.
    """
    root, last = root_of(home), f"{home}/{PAST}"
    old = "SELECT change, path, content FROM versions WHERE path > ? AND path < ? ORDER BY path, version LIMIT ?"
    rows = connection.execute(old, (f"{home}/", last, most)).fetchall()
    if len(rows) == most:
        last = str(rows[-1][1])
    gone = "DELETE FROM files WHERE path > ? AND path <= ? RETURNING size_bytes"
    sizes = [int(str(row[0])) for row in connection.execute(gone, (f"{home}/", last))]
    connection.execute(
        "UPDATE usage SET n_files = n_files - ?, size_bytes = size_bytes - ? WHERE root = ?",
        (len(sizes), sum(sizes), root),
    )
    connection.executemany("DELETE FROM versions WHERE change = ?", [(row[0],) for row in rows])
    contents = [int(str(row[2])) for row in rows if row[2] is not None]
    for content in contents:
        release_content(connection, blobs, content)
    forget_marks(connection, home)
    if root == home:
        _change_payer(connection, set(contents), root, root_of(heir))
        connection.execute(
            "DELETE FROM usage WHERE root = ? AND n_files = 0 AND stored_bytes = 0", (root,)
        )
    return len(rows)


def _change_payer(connection: apsw.Connection, contents: set[int], root: str, heir: str) -> None:
    """Let another root pay for what is left of contents."""
    for content in contents:
        stored_bytes = connection.execute(
            "UPDATE contents SET root = ? WHERE id = ? AND root = ? RETURNING stored_bytes",
            (heir, content, root),
        ).get
        if stored_bytes is not None:
            query = (
                "INSERT INTO usage (root, stored_bytes) VALUES (?, ?) "
                "ON CONFLICT (root) DO UPDATE SET stored_bytes = stored_bytes + excluded.stored_bytes"
            )
            connection.execute(query, (heir, stored_bytes))
            connection.execute(query, (root, -stored_bytes))


def erase_memory(connection: apsw.Connection, owner: str, agent: str) -> tuple[int, ...]:
    """Remove records and notes of a branch and of those below it. Returns: the notes."""
    connection.execute(
        f"DELETE FROM memory_interactions WHERE owner = ?1 AND {heirs.IN_FAMILY}",  # noqa: S608 - our own words
        (owner, agent),
    )
    return heirs.erase(connection, owner, agent)


def erase_traces(connection: apsw.Connection, pids: Iterable[Pid]) -> None:
    """Remove the journals of processes, and the letters that they wrote or that wait for them."""
    for pid in pids:
        journal.drop(connection, pid)
        connection.execute("DELETE FROM letters WHERE receiver = ?", (pid,))


def lasting(connection: apsw.Connection, pids: Sequence[tuple[Pid, int]]) -> list[Lasting]:
    """The effects outside of AIOS of processes, behind a call each, that nothing here takes back."""
    return [
        Lasting(pid, int(str(seq)), str(call), str(effect))
        for pid, after in pids
        for seq, call, effect in connection.execute(
            "SELECT seq, call, effect FROM journal_records WHERE pid = ? AND seq > ? AND place = 'world' "
            "AND effect IN ('compensable', 'irreversible') AND within = 0 AND outcome NOT IN ('fault', 'undone') ORDER BY seq",
            (pid, after),
        )
    ]
