"""One transaction on files: every edit of a call becomes versions, all of them or none. Runs in the database's writer thread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import apsw
from msgspec import Struct

from aios.abi.storage import FileVersion
from aios.abi.types import Pid
from aios.disk.blobs import BlobStore, Piece
from aios.disk.chunks import FINE
from aios.errors import Conflict, ResourceExhausted, TooLarge
from aios.kernel.storage.content import (
    ContentId,
    Manifest,
    Stored,
    get_manifest,
    put_content,
    put_pieces,
    read_range,
    release_content,
    retain_content,
    stage_all,
)
from aios.kernel.storage.paths import Reach, ancestors, is_within, parent, root_of
from aios.kernel.storage.tables import (
    FileRow,
    files_below,
    find_file,
    find_quota,
    is_folder,
    last_change,
    no_file,
    taint_of,
    versions_since,
)

MAX_CALL_CHANGES = 20_000
"""That one call may make: it holds the only writer, for about a second, and its answer names each."""
LARGE_CHANGES = 100
"""An edit of more waits for its turn among the large ones of all: a family has one in the queue of the writer."""
TOLD_BYTES = 1_000
"""Of names and messages, for which a change counts once more, so that all of them fit into one answer."""


class Author(Struct, frozen=True):
    """Who changes files, and why."""

    pid: Pid
    boot: int
    """Pids begin again with each kernel; this tells them apart."""
    home: str
    unix_s: float
    message: str = ""
    taint: str = ""
    """Where data that reached it came from outside; what it writes carries that on."""


class PutAt(Struct, frozen=True):
    """Give a path this content."""

    path: str
    pieces: tuple[Piece, ...]
    if_version: int | None = None


class AppendAt(Struct, frozen=True):
    """Add to the end of a path: a little `data`, which is joined to a short last chunk, or whole pieces."""

    path: str
    data: bytes = b""
    pieces: tuple[Piece, ...] = ()


class CopyTo(Struct, frozen=True):
    """Give `target` the content of `source`, and delete that if it is a move."""

    source: str
    target: str
    is_move: bool = False


class DeleteAt(Struct, frozen=True):
    """Delete a path and all below it."""

    path: str


Step = PutAt | AppendAt | CopyTo | DeleteAt
"""An edit whose paths are canonical and permitted, and whose content is staged."""


def paths_of(steps: Sequence[Step]) -> list[str]:
    """Every path that the steps name."""
    return [
        path
        for step in steps
        for path in ([step.source, step.target] if isinstance(step, CopyTo) else [step.path])
    ]


def sources_of(steps: Sequence[Step]) -> list[str]:
    """The paths that the steps take all of, whatever is below them."""
    return [
        step.source if isinstance(step, CopyTo) else step.path
        for step in steps
        if isinstance(step, CopyTo | DeleteAt)
    ]


def is_large(connection: apsw.Connection, steps: Sequence[Step]) -> bool:
    """Whether the steps change many files; those that are there are counted no further than that."""
    sources = sources_of(steps)
    n_left = LARGE_CHANGES - (len(steps) - len(sources))
    for source in sources:
        if n_left < 0:
            break
        n_left -= len(files_below(connection, source, limit=n_left + 1))
    return n_left < 0


def _is_nothing_closed(_: str) -> bool:
    return False


@dataclass
class Transaction:
    """The changes of one call. Made inside `Database.write`; the pieces that it stages are settled by who made it."""

    connection: apsw.Connection
    blobs: BlobStore
    author: Author
    quota_bytes: int
    staged: list[Piece] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Paths that were to go back and do not: somebody else has changed them since, or they are closed."""
    is_closed: Callable[[str], bool] = _is_nothing_closed
    reach: Reach | None = None
    """Of who asks: also each path below a folder that is named is judged. None: the kernel acts by itself."""
    n_left: int | None = None
    """How many changes it may still make or leave. None: the kernel acts by itself."""
    number: int = 0

    def __post_init__(self) -> None:
        self.number = last_change(self.connection) + 1

    def run(self, steps: Sequence[Step]) -> list[FileVersion]:
        """Take every step; returns the versions that came of them.

        Raises:
            AiosError: One of them cannot be taken; the caller undoes the others by its savepoint.
        """
        for step in steps:
            self.take(step)
        return self.versions()

    def versions(self) -> list[FileVersion]:
        """What this transaction has changed so far."""
        return versions_since(self.connection, self.number)

    def may_write(self, path: str) -> bool:
        """Whether who asks may change a path."""
        return self.reach is None or self.reach.may_write(path)

    def leave(self, path: str) -> None:
        """A path stays as it is; it is named, if who asks may see it."""
        self._count_change(path)
        if self.reach is None or self.reach.may_read(path):
            self.left.append(path)

    def check_room(self, n_more: int) -> None:
        """Return if the transaction may make so many more changes.

        Raises:
            TooLarge: It may not.
        """
        if self.n_left is not None and self.n_left < n_more:
            raise TooLarge(
                f"one call may not change more than {MAX_CALL_CHANGES} files, fewer with long names",
                hint="nothing was changed; go folder by folder, or name up to 1,000 files in a call; roll back to a later moment first, then further",
            )

    def _count_change(self, *told: str) -> None:
        """One more, of which this is told.

        Raises:
            TooLarge: It is one too many.
        """
        if self.n_left is not None:
            self.n_left -= 1 + len("".join(told).encode()) // TOLD_BYTES
            self.check_room(0)

    def _below(self, path: str) -> list[FileRow]:
        """What is at a path and below it, if that may be changed in one call."""
        limit = -1 if self.n_left is None else self.n_left + 1
        found = files_below(self.connection, path, limit=limit)
        self.check_room(len(found))
        return found

    def take(self, step: Step) -> None:
        """Take one step.

        Raises:
            AiosError: It cannot be taken; nothing else of it may be committed.
        """
        match step:
            case PutAt():
                self._put(step)
            case AppendAt():
                self._append(step)
            case CopyTo():
                self._copy(step)
            case DeleteAt():
                self._delete(step.path)

    def _put(self, step: PutAt) -> None:
        now = find_file(self.connection, step.path)
        version = now.version if now else 0
        if step.if_version is not None and step.if_version != version:
            raise Conflict(
                f"{step.path} has version {version}, not {step.if_version}",
                hint="read it again and decide anew",
            )
        self._store(step.path, put_pieces(self.connection, self.blobs, step.pieces))

    def _append(self, step: AppendAt) -> None:
        now = find_file(self.connection, step.path)
        manifest = get_manifest(self.connection, now.content) if now else Manifest()
        # A short last chunk is cut again with what is added, so that many small appends do not leave as many blobs.
        is_short = bool(manifest.keys and step.data) and manifest.sizes[-1] < FINE.longest
        n_kept = len(manifest.keys) - is_short
        begin, end = sum(manifest.sizes[:n_kept]), manifest.size_bytes
        last = read_range(self.connection, self.blobs, manifest, range(begin, end))
        pieces = step.pieces
        if step.data:
            pieces = tuple(stage_all(self.blobs, last + step.data))
            self.staged += pieces
        tail = put_pieces(self.connection, self.blobs, pieces)
        self.blobs.retain(self.connection, manifest.keys[:n_kept])
        whole = Manifest(
            manifest.keys[:n_kept] + tail.manifest.keys,
            manifest.sizes[:n_kept] + tail.manifest.sizes,
        )
        taint = taint_of(self.connection, step.path, now.version) if now else ""
        self._store(step.path, Stored(whole, tail.new_bytes), taint=taint)

    def _copy(self, step: CopyTo) -> None:
        sources = self._below(step.source)
        if not sources:
            raise no_file(step.source)
        if is_within(step.target, step.source) or is_within(step.source, step.target):
            raise Conflict(
                f"{step.source} and {step.target} lie in each other", hint="choose another target"
            )
        if step.is_move and files_below(self.connection, step.target, limit=1):
            raise Conflict(f"{step.target} is there already", hint="delete it first")
        for source in sources:
            target = step.target + source.path.removeprefix(step.source)
            self._check_copy(step, source.path, target)
            retain_content(self.connection, source.content)
            taint = taint_of(self.connection, source.path, source.version)
            note = f"from {source.path}"
            self.set_content(target, source.content, source.size_bytes, note=note, taint=taint)
            if step.is_move:
                self.set_content(source.path, None, None, note=f"moved to {target}")

    def _check_copy(self, step: CopyTo, source: str, target: str) -> None:
        """A file may be copied, or moved, as far as who asks reaches."""
        self._check_below(step.source, source, is_write=False)
        if step.is_move:
            self._check_below(step.source, source, is_write=True)
        self._check_below(step.target, target, is_write=True)

    def _check_below(self, folder: str, path: str, *, is_write: bool) -> None:
        if self.reach is not None:
            self.reach.check_below(folder, path, is_write=is_write)

    def _delete(self, path: str) -> None:
        found = self._below(path)
        if not found:
            raise no_file(path)
        for each in found:
            self._check_below(path, each.path, is_write=True)
            self.set_content(each.path, None, None)

    def _store(self, path: str, stored: Stored, *, taint: str = "") -> None:
        content = put_content(self.connection, self.blobs, stored, root_of(path))
        if stored.new_bytes:
            self._check_quota(root_of(path))
        self.set_content(path, content, stored.manifest.size_bytes, taint=taint)

    def _check_quota(self, root: str) -> None:
        used: int = self.connection.execute(
            "SELECT stored_bytes FROM usage WHERE root = ?", (root,)
        ).get
        own = find_quota(self.connection, root)
        quota_bytes = self.quota_bytes if own is None else own
        if used > quota_bytes:
            raise ResourceExhausted(
                f"{root} may take {quota_bytes} bytes of disk and would take {used}",
                hint="delete what is not needed and its old versions (`file_purge`); the owner can raise it: `aios fs quota`",
            )

    def set_content(
        self,
        path: str,
        content: ContentId | None,
        size_bytes: int | None,
        *,
        note: str = "",
        version: int | None = None,
        taint: str = "",
    ) -> None:
        """Add a version; None deletes. It takes over the caller's reference to the content, and the mark of where that came from.

        A `version` that has its number is added as it is; else it gets the next, and none if nothing changes.
        """
        author = self.author
        self._count_change(path, author.home, author.message or note, author.taint or taint)
        now = find_file(self.connection, path)
        if version is None:
            if (now.content if now else None) == content:
                if content is not None:
                    release_content(self.connection, self.blobs, content)
                return
            version = self._next_version(path)
            if now is not None and content is None:  # whoever is told of it is told the name
                taint = taint_of(self.connection, path, now.version)
        if now is None and content is not None:
            self._check_place(path)
        self.connection.execute(
            "INSERT INTO versions (path, version, content, size_bytes, tx, boot, pid, author, unix_s, message, taint) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(path, version, content, size_bytes, self.number, author.boot, author.pid),
                *(author.home, author.unix_s, author.message or note, author.taint or taint),
            ),
        )
        self._set_file(path, version, content, size_bytes or 0)
        n_more = (content is not None) - (now is not None)
        self.count(root_of(path), n_more, (size_bytes or 0) - (now.size_bytes if now else 0))

    def _next_version(self, path: str) -> int:
        found: int = self.connection.execute(
            "SELECT coalesce(max(version), 0) + 1 FROM versions WHERE path = ?", (path,)
        ).get
        return found

    def _set_file(
        self, path: str, version: int, content: ContentId | None, size_bytes: int
    ) -> None:
        if content is None:
            self.connection.execute("DELETE FROM files WHERE path = ?", (path,))
            return
        self.connection.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
            (path, parent(path), version, content, size_bytes, self.author.unix_s),
        )

    def count(self, root: str, n_files: int, size_bytes: int) -> None:
        """Add to what a root has; both may be negative."""
        self.connection.execute(
            "INSERT INTO usage (root, n_files, size_bytes) VALUES (?, ?, ?) ON CONFLICT (root) DO UPDATE "
            "SET n_files = n_files + excluded.n_files, size_bytes = size_bytes + excluded.size_bytes",
            (root, n_files, size_bytes),
        )

    def _check_place(self, path: str) -> None:
        """A name is that of a file or of a folder, never of both."""
        if is_folder(self.connection, path):
            raise Conflict(f"{path} is a folder", hint="choose another name")
        for above in ancestors(path):
            if find_file(self.connection, above) is not None:
                raise Conflict(
                    f"{above} is a file, so nothing can be in it", hint="choose another name"
                )
