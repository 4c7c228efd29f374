"""The call `undo`: the acts of one process on files are found in their versions, and each path goes back as `undo_plan.py` says.

Files of the storage manager, of mounts and of workspaces go back in one transaction; real files are written before the call returns, and a kernel
that is killed in between carries that out when the folder is next used. What else the process did is read from its journal and told.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, tee
from types import MappingProxyType
from typing import Literal

import apsw

from aios.abi.storage import Edited
from aios.abi.tools import ToolRun
from aios.abi.types import Kind, Pid
from aios.abi.undo import NotUndone, Undo, Undone, UndoneAct, UndonePath
from aios.abi.wire import decode_call
from aios.disk.folder import A_LINK
from aios.errors import AccessDenied, AiosError, Conflict, InvalidCall, NotFound, TooLarge
from aios.kernel.access.manager import AccessManager
from aios.kernel.journal import tables as journal_tables
from aios.kernel.journal.journal import Journal
from aios.kernel.journal.records import Effect, Outcome
from aios.kernel.journal.tables import Row
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.process_table import ProcessTable
from aios.kernel.storage import workspace_tables
from aios.kernel.storage.authors import author_shown
from aios.kernel.storage.family import find_family
from aios.kernel.storage.history import restore
from aios.kernel.storage.manager import StorageManager
from aios.kernel.storage.mount_tables import set_pending
from aios.kernel.storage.paths import WORKSPACES, Reach, is_within
from aios.kernel.storage.tables import find_file
from aios.kernel.storage.undo_plan import Plan, Version, plan, undone
from aios.kernel.storage.versions import MAX_CALL_CHANGES, Author, Transaction
from aios.kernel.storage.workspaces import Workspace, real_path
from aios.kernel.taint import source_of, take_from

IN_VERSIONS = frozenset({"file_edit", "file_draft", "file_rollback", "undo", "tool:files"})
"""What versions have, and so what is undone here, or is no change of the world."""
IN_WORKSPACES = frozenset({"tool:shell", "tool:python"})
IN_MEMORY = ("context_", "exit", "file_lock", "file_unlock", "log", "nice", "tool_")
WHYS: Mapping[str, str] = MappingProxyType(
    {
        "send": "a letter that was delivered cannot be called back",
        "publish": "a letter that was delivered cannot be called back",
        "spawn": "what a child did is undone by its own pid, or with `--tree`",
        "file_purge": "versions that were purged are gone",
        "tool:http_fetch": "what was asked of a host cannot be called back",
    }
)

MAX_TOLD = 100


@dataclass
class _Work:
    """What an undo is about to do, and what it finds out on the way."""

    acts: list[UndoneAct]
    mine: frozenset[int]
    """The transactions that are taken back, whether they are already or not."""
    since_unix_s: float
    reach: Reach
    plans: dict[str, Plan] = field(default_factory=dict)
    paths: list[UndonePath] = field(default_factory=list)
    conflicts: list[NotUndone] = field(default_factory=list)
    spaces: dict[str, Workspace] = field(default_factory=dict)


class Undoer:
    """Takes back what processes did to files."""

    def __init__(
        self, storage: StorageManager, access: AccessManager, table: ProcessTable, journal: Journal
    ) -> None:
        self._storage = storage
        self._access = access
        self._table = table
        self._journal = journal
        self._db, self._blobs, self._clock = storage.parts

    async def undo(self, run: Run, call: Undo) -> Undone:
        """Bring files back."""
        self._check(run.process, call)
        await self._storage.open()
        pids = sorted(await self._db.read(lambda c: self._pids(c, call)))
        self._check_idle(pids)
        await self._storage.mounts.take_notices()
        acts, mine = await self._db.read(lambda c: self._acts_of(c, pids, call))
        for act in acts:  # what it said of it is told
            author = self._table.find(act.pid)
            if author is not None:
                take_from(run, author)
        since_unix_s = min((act.unix_s for act in acts), default=0.0) if call.last else 0.0
        work = _Work(acts, mine, since_unix_s, await self._storage.reach_of(run.process))
        n_paths = await self._find_spaces(work)
        if not acts and self._table.find(call.pid) is None:
            raise NotFound(
                f"no process {call.pid} has changed a file, or all of it is undone",
                hint="`aios ps --all`",
            )
        is_bounded = run.process.pid != INIT_PID and not call.is_dry_run and len(acts) > 1
        if is_bounded and n_paths > MAX_CALL_CHANGES:  # it would hold the only writer
            parts = "undo the newest acts first (`last`)"
            if run.process.pid in pids:  # an undo of its own is its newest act
                parts = "roll folders back to a moment, one by one (`file_rollback`, `unix_s`)"
            raise TooLarge(
                f"{len(acts)} acts changed {n_paths} files, one call takes {MAX_CALL_CHANGES} back",
                hint=f"{parts}, or let the owner do it: `aios undo`",
            )
        if call.is_dry_run or not acts:
            await self._db.read(lambda c: self._plan(c, run.process, work))
            transaction = 0
        else:
            transaction = await self._carry_out(run, call, work)
        told = [each for pid in pids for each in await self._cannot(Pid(pid), work, call)]
        cannot = list(dict.fromkeys([*_modes_lost(work), *told]))[:MAX_TOLD]
        return Undone(
            pid=call.pid,
            is_dry_run=call.is_dry_run,
            transaction=transaction,
            acts=tuple(acts),
            paths=tuple(work.paths),
            conflicts=tuple(work.conflicts),
            cannot=tuple(cannot),
        )

    def _check(self, process: Process, call: Undo) -> None:
        target = self._table.find(call.pid)
        reaches = process.pid == INIT_PID if target is None else self._access.may_reach(process, target)  # fmt: skip
        if not reaches:
            raise AccessDenied(
                f"process {process.pid} ({process.name}) may not undo what {call.pid} did",
                hint="a process reaches only itself and its descendants",
            )
        if call.pid == INIT_PID and call.last is None:
            raise InvalidCall(
                "all that the owner ever did is too much", hint="say how many acts: `last`"
            )

    def _check_idle(self, pids: Sequence[int]) -> None:
        for pid in pids:
            if self._storage.workspaces.is_busy(Pid(pid)):
                raise Conflict(
                    f"a tool of process {pid} is running in its workspace",
                    hint="wait for it, or `aios kill` the process",
                )

    def _pids(self, connection: apsw.Connection, call: Undo) -> frozenset[int]:
        """Whose acts are undone."""
        if not call.with_children:
            return frozenset((call.pid,))
        process, boot = self._table.find(call.pid), self._storage.boot
        if process is None:
            query, value = "SELECT max(boot) FROM versions WHERE pid = ?", float(call.pid)
        else:
            query, value = (
                "SELECT min(boot) FROM versions WHERE unix_s >= ?",
                process.started_unix_s,
            )
        first = connection.execute(query, (value,)).get or boot
        boots = (first, first if process is None else boot)
        table = [] if process is None else list(self._table)
        return find_family(connection, call.pid, boots=boots, table=table)

    def _acts_of(
        self, connection: apsw.Connection, pids: Sequence[int], call: Undo
    ) -> tuple[list[UndoneAct], frozenset[int]]:
        """The acts that are not undone, newest first, at most `last` of them; and the transactions that are taken back.

        Where all are, those that are undone belong to them: an undo of the process itself is taken back with what it took back.
        """
        gone = _Gone(connection)
        acts: list[UndoneAct] = []
        every: list[UndoneAct] = []
        for pid in pids:
            its = _acts_of(connection, self._table.find(Pid(pid)), pid)
            if call.last is None:
                its, all_its = tee(its)
                every += all_its
            is_open = (act for act in its if not gone.has_all(act.transaction, act.pid))
            acts += islice(is_open, call.last)
        acts = sorted(acts, key=lambda each: -each.transaction)[: call.last]
        return acts, frozenset(act.transaction for act in every or acts)

    async def _find_spaces(self, work: _Work) -> int:
        """Look at the workspaces that the acts were in: what others have changed since is a version then. Returns: how many paths the acts changed."""
        numbers = [act.transaction for act in work.acts]
        # Also those of acts that are undone: an undo that was cut off is carried out there.
        paths, every = await self._db.read(
            lambda c: (_paths_of(c, numbers), _paths_of(c, sorted(work.mine)))
        )
        for root in sorted({_root(path) for path in every if is_within(path, f"/{WORKSPACES}")}):
            space = await self._storage.workspaces.refresh(root)
            if space is not None:
                work.spaces[root] = space
        return len(paths)

    # --- deciding ------------------------------------------------------------------------------------------------

    def _plan(self, connection: apsw.Connection, process: Process, work: _Work) -> None:
        """Where each path goes back to; told in `work`."""
        numbers = sorted(act.transaction for act in work.acts)
        for path in _paths_of(connection, numbers):
            space = work.spaces.get(_root(path))
            shown = path if space is None else real_path(space.mount, path)
            history, newest = _history(connection, path, work.mine)
            found = plan(history, newest)
            if found.buried:
                why = f"{author_shown(found.buried_under)} has changed it since"
                work.conflicts.append(NotUndone(shown, why, len(found.buried)))
            if found.target is None:
                continue
            why = _why_not(connection, path, found.target, space=space)
            if not why and not (
                work.reach.may_write(path) if space is None else _may(process, space)
            ):
                why = "the caller may not change it"
            if why:
                work.conflicts.append(NotUndone(shown, why))
                continue
            work.plans[path] = found
            if what := _what(connection, path, found.target):
                work.paths.append(UndonePath(path, shown if space is not None else "", what))

    # --- doing ---------------------------------------------------------------------------------------------------

    async def _carry_out(self, run: Run, call: Undo, work: _Work) -> int:
        process = run.process
        author = Author(
            process.pid,
            self._storage.boot,
            self._storage.home_of(process),
            self._clock.unix_s(),
            f"undo of process {call.pid}" + " and what it started" * call.with_children,
            source_of(process),
        )

        def write(connection: apsw.Connection) -> Edited:
            self._plan(connection, process, work)
            tx = Transaction(connection, self._blobs, author, self._storage.quota_bytes)
            is_first = {path: not found.target for path, found in work.plans.items()}
            # Deletions first: a name may be a file's before and a folder's after.
            for path in sorted(work.plans, key=lambda each: not is_first[each]):
                self._restore(tx, path, work)
            edited = tx.versions()
            ours = [each.path for each in edited if is_within(each.path, f"/{WORKSPACES}")]
            set_pending(connection, ours, is_pending=True)
            return Edited(tx.number if edited else 0, tuple(edited))

        edited = await self._storage.mounts.write(None, write, queueing=run.holding)
        for root, space in work.spaces.items():
            ours = [each.path for each in edited.versions if is_within(each.path, root)]
            async with space.turn:
                failed = await self._storage.workspaces.write_back(space, ours)
            for path, why in failed.items():
                work.conflicts.append(NotUndone(real_path(space.mount, path), why))
                work.paths = [each for each in work.paths if each.path != path]
        self._storage.changes.publish()
        return edited.transaction

    def _restore(self, tx: Transaction, path: str, work: _Work) -> None:
        target = work.plans[path].target
        assert target is not None, "nothing is to be done about this path"
        try:
            with tx.connection:
                restore(tx, path, target)
                newest, number = next(
                    tx.connection.execute(
                        "SELECT version, tx FROM versions WHERE path = ? ORDER BY version DESC LIMIT 1",
                        (path,),
                    )
                )
                is_made = number == tx.number
                tx.connection.execute(
                    "INSERT OR REPLACE INTO undo_returns VALUES (?, ?, ?)",
                    (path, newest, target if is_made else _undone(target)),
                )
        except AiosError as error:
            work.conflicts.append(NotUndone(path, error.message))
            work.paths = [each for each in work.paths if each.path != path]

    # --- what stays ----------------------------------------------------------------------------------------------

    async def _cannot(self, pid: Pid, work: _Work, call: Undo) -> list[NotUndone]:
        notes = await self._db.read(
            lambda c: workspace_tables.notes_of(c, pid, work.since_unix_s - 1.0)
        )
        told = [NotUndone(what, why) for what, why in notes]
        disk, since_unix_s = self._journal.disk, work.since_unix_s - 1.0
        if disk is not None:
            counts = await disk.read_all(lambda c: _count(_rows(c, pid), since_unix_s))
        else:
            counts = _count(map(Row, self._journal.records(pid)), since_unix_s)
        if call.with_children:
            counts = Counter({what: n for what, n in counts.items() if what[0] != "spawn"})
        told += [
            NotUndone(name.removeprefix("tool:"), f"{effect}: {WHYS.get(name, 'no version has it')}", n)
            for (name, effect), n in sorted(counts.items())
        ]  # fmt: skip
        process = self._table.find(pid)
        if process is not None and process.network:
            told.append(
                NotUndone("network", "what its programs sent to hosts cannot be called back")
            )
        if process is not None and process.view is not None and process.view.writable:
            folders = ", ".join(map(str, process.view.writable))
            told.append(
                NotUndone(folders, "what the program itself wrote there, without a tool, is no version")
            )  # fmt: skip
        return told


def _modes_lost(work: _Work) -> list[NotUndone]:
    """The files of workspaces that are made again without what no version has, by folder."""
    roots = Counter(_root(each.path) for each in work.paths if each.real and each.what == "remade")
    why = "the mode of a file that was deleted, such as its right to be run, is in no version"
    return [NotUndone(str(work.spaces[root].mount.folder), why, n) for root, n in roots.items()]


def _rows(connection: apsw.Connection, pid: Pid) -> Iterator[Row]:
    """The records of a process; those of tools with what was asked of them."""
    for row in journal_tables.each(connection, pid, texts=False):
        if row.record.call != "tool_run":
            yield row
    yield from journal_tables.each(connection, pid, calls=("tool_run",))


def _count(rows: Iterable[Row], since_unix_s: float) -> Counter[tuple[str, str]]:
    """How often a process did since then what files know nothing of, by name and effect."""
    recent = (row for row in rows if row.record.begun_unix_s >= since_unix_s)
    return Counter(each for row in recent for each in _outside_of_files(row))


def _outside_of_files(row: Row) -> list[tuple[str, str]]:
    """What a call did that files know nothing of: its name and its effect."""
    record = row.record
    name = record.call
    if name == "tool_run" and row.intent:
        name = _tool_of(row.intent)
    is_fetch = name == "tool:http_fetch"
    is_nothing = record.outcome in {Outcome.FAULT, Outcome.UNDONE}
    if (record.effect is Effect.PURE and not is_fetch) or is_nothing:
        return []
    is_kept = name in IN_VERSIONS or name in IN_WORKSPACES
    if is_kept or (name.startswith(IN_MEMORY) and name != "tool_run"):
        return []
    return [(name, "network" if is_fetch else record.effect.value)]


def _tool_of(intent: bytes) -> str:
    try:
        call = decode_call(intent)
    except InvalidCall:
        return "tool_run"  # another version of AIOS wrote it
    return f"tool:{call.name}" if isinstance(call, ToolRun) else "tool_run"


def _acts_of(connection: apsw.Connection, process: Process | None, pid: int) -> Iterator[UndoneAct]:
    """The acts of a process, newest first.

    Pids of kernels without a journal begin again: one that is known began at its time.
    """
    where, value = "boot = (SELECT max(boot) FROM versions WHERE pid = ?1) AND ?2 = ?2", 0.0
    if process is not None and process.pid != INIT_PID:
        where, value = "unix_s >= ?2", process.started_unix_s
    rows = connection.execute(
        f"SELECT tx, max(unix_s), max(message), count(DISTINCT path) FROM versions WHERE pid = ?1 AND {where} "  # noqa: S608 - our own words
        "GROUP BY tx ORDER BY tx DESC",
        (pid, value),
    )
    return (
        UndoneAct(tx, unix_s, message, n_files, Pid(pid)) for tx, unix_s, message, n_files in rows
    )


class _Gone:
    """Which versions are undone."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        rows = connection.execute("SELECT DISTINCT path FROM undo_returns")
        self._by_path: dict[str, frozenset[int] | None] = {path: None for (path,) in rows}
        """For the paths where anything was undone ever; None: not looked at yet."""

    def has_all(self, transaction: int, pid: int) -> bool:
        """Whether all that a process did in a transaction is undone."""
        rows = self._connection.execute(
            "SELECT path, version FROM versions WHERE tx = ? AND pid = ?", (transaction, pid)
        )
        return all(version in self._versions(path) for path, version in rows)

    def _versions(self, path: str) -> frozenset[int]:
        if path not in self._by_path:
            return frozenset()
        found = self._by_path[path]
        if found is None:
            found = self._by_path[path] = undone(*_history(self._connection, path, frozenset()))
        return found


def _paths_of(connection: apsw.Connection, numbers: Sequence[int]) -> list[str]:
    found: set[str] = set()
    for number in numbers:
        rows = connection.execute("SELECT DISTINCT path FROM versions WHERE tx = ?", (number,))
        found |= {str(path) for (path,) in rows}
    return sorted(found)


def _root(path: str) -> str:
    return "/".join(path.split("/")[:3])


def _history(
    connection: apsw.Connection, path: str, numbers: frozenset[int]
) -> tuple[dict[int, Version], int]:
    rows = connection.execute(
        "SELECT v.version, v.tx, v.author, r.back_to FROM versions v LEFT JOIN undo_returns r "
        "ON r.path = v.path AND r.version = v.version WHERE v.path = ?",
        (path,),
    )
    history: dict[int, Version] = {}
    for version, tx, author, back_to in rows:
        is_undone = back_to is not None and back_to < 0
        target = _undone(back_to) if is_undone else back_to
        history[version] = Version(version, tx in numbers, author, target, is_undone)
    return history, max(history)


def _undone(version: int) -> int:
    """How a version to go back to is written if nothing had to be changed for that, and how such a one is read: 0 and -1, 1 and -2."""
    return -1 - version


def _why_not(
    connection: apsw.Connection, path: str, target: int, *, space: Workspace | None
) -> str:
    """Why a path cannot go back to a version; empty if it can."""
    row = connection.execute(
        "SELECT 1 FROM versions WHERE path = ? AND version = ?", (path, target)
    ).fetchone()
    if row is None and target:
        return f"version {target} was purged"
    if is_within(path, f"/{WORKSPACES}") and (space is None or space.why_not):
        return space.why_not if space is not None else "its folder is not known any more"
    if space is not None and _what(connection, path, target) in {"restored", "remade"}:
        for each, why in space.unknown.items():
            if why == A_LINK and is_within(path, each):  # once that is gone it can be undone
                return f"a symbolic link stands at {real_path(space.mount, each)}"
    return ""


def _what(
    connection: apsw.Connection, path: str, target: int
) -> Literal["restored", "removed", "remade", ""]:
    """What going back does to a file; empty if it is so already."""
    row = connection.execute(
        "SELECT content FROM versions WHERE path = ? AND version = ?", (path, target)
    ).fetchone()
    content, now = row[0] if row else None, find_file(connection, path)
    if content == (now.content if now else None):
        return ""
    if content is None:
        return "removed"
    return "restored" if now else "remade"


def _may(process: Process, space: Workspace) -> bool:
    """Whether a process may change what is in a workspace."""
    if process.pid == INIT_PID:
        return True
    if process.view is not None:
        return process.view.may_write(space.mount.folder)
    return process.kind is Kind.TASK
