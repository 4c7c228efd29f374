"""`aios.sdk.files` for code that waits: `client.files.write("plan.md", "...")`."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal

from aios.abi.gate import Change
from aios.abi.links import FileLink, FileLinks, FileUnlink, LinkInfo
from aios.abi.mounts import FileMount, FileMounts, FileUmount, MountInfo
from aios.abi.storage import (
    MAX_PIECE_BYTES,
    Append,
    Changes,
    Checked,
    Content,
    Copy,
    Delete,
    Edit,
    Edited,
    FileCheck,
    FileCollect,
    FileDiff,
    FileDraft,
    FileEdit,
    FileInfo,
    FileList,
    FileLock,
    FilePurge,
    FileQuota,
    FileRead,
    FileRollback,
    FileShare,
    FileShares,
    FileStat,
    FileUnlock,
    FileUsage,
    FileVersion,
    FileVersions,
    FileWatch,
    Move,
    Purged,
    Put,
    Share,
    Usages,
)
from aios.abi.types import Pid
from aios.abi.undo import Undo, Undone
from aios.errors import AiosError
from aios.sdk.filecommand import BlockingFileCommands
from aios.sdk.files import LIST_PAGE, decoded, encoded
from aios.sdk.requests import build, checked
from aios.sdk.retrieval_blocking import BlockingFileSearch

if TYPE_CHECKING:
    from aios.sdk.blocking import BlockingFrames


class BlockingFiles(BlockingFileSearch, BlockingFileCommands):
    """`Files` for code that waits; its methods say more."""

    def write(
        self, path: str, data: str | bytes, *, message: str = "", if_version: int | None = None
    ) -> Edited:
        """Make or replace a file of at most 8 MiB; on disk when this returns."""
        put = Put(path=path, data=encoded(data), if_version=if_version)
        return self.edit([put], message=message)

    def append(self, path: str, data: str | bytes, *, message: str = "") -> Edited:
        """Add to the end of a file, which is made if need be."""
        return self.edit([Append(path=path, data=encoded(data))], message=message)

    def delete(self, path: str, *, message: str = "") -> Edited:
        """Delete a file, or a folder with all below it; `rollback` brings it back until it is purged."""
        return self.edit([Delete(path=path)], message=message)

    def move(self, source: str, target: str, *, message: str = "") -> Edited:
        """Give a file or folder another path."""
        return self.edit([Move(source=source, target=target)], message=message)

    def copy(self, source: str, target: str, *, message: str = "") -> Edited:
        """Copy a file or folder; nothing is stored twice."""
        return self.edit([Copy(source=source, target=target)], message=message)

    def edit(self, edits: Iterable[Edit], *, message: str = "") -> Edited:
        """Do several edits, all or none of them; see `aios.abi.storage.FileEdit`."""
        return (
            self._gate.call(build(FileEdit, edits=tuple(map(checked, edits)), message=message))
        ).value

    def upload(self, path: str, pieces: Iterator[bytes], *, message: str = "") -> Edited:
        """Make or replace a file of any length from pieces of at most 8 MiB, which are never all in memory."""
        draft = 0
        try:
            for piece in pieces:
                call = build(FileDraft, data=piece, draft=draft)
                draft = self._gate.call(call).value.draft
            return self.edit([Put(path=path, draft=draft)], message=message)
        except BaseException:
            if draft:
                with suppress(AiosError):  # it has gone into the edit, or its kernel has ended
                    self._gate.call(build(FileDraft, data=b"", draft=draft, is_dropped=True))
            raise

    def read(self, path: str, *, version: int | None = None) -> bytes:
        """The whole content of a file, in memory.

        Raises:
            AccessDenied: The path may not be read.
            NotFound: No such file or version.
        """
        return b"".join(self.download(path, version=version))

    def read_text(self, path: str, *, version: int | None = None) -> str:
        """The whole content of a text in UTF-8.

        Raises:
            InvalidCall: It is none.
        """
        return decoded(path, self.read(path, version=version))

    def read_piece(
        self, path: str, *, offset: int, length: int = MAX_PIECE_BYTES, version: int | None = None
    ) -> Content:
        """At most 8 MiB of a file, from a position on."""
        call = build(FileRead, path=path, offset=offset, length=length, version=version)
        return self._gate.call(call).value

    def download(self, path: str, *, version: int | None = None) -> Iterator[bytes]:
        """The content of a file in pieces, all of one version whatever is written meanwhile."""
        offset = 0
        while True:
            piece = self.read_piece(path, offset=offset, version=version)
            version, offset = piece.version, offset + len(piece.data)
            if piece.data:
                yield piece.data
            if offset >= piece.size_bytes or not piece.data:
                return

    def list(
        self, path: str = "", *, is_deep: bool = False, limit: int | None = None
    ) -> list[FileInfo]:
        """What is in a folder; with `is_deep` all files below it; the first `limit` of it, by path."""
        found: list[FileInfo] = []
        after, is_more = "", True
        while is_more and len(found) != limit:
            n = LIST_PAGE if limit is None else min(LIST_PAGE, limit - len(found))
            call = build(FileList, path=path, is_deep=is_deep, after=after, limit=n)
            page = self._gate.call(call).value
            found += page.files
            after, is_more = page.next, bool(page.next)
        return found

    def stat(self, path: str) -> FileInfo:
        """One file or folder.

        Raises:
            NotFound: There is none.
        """
        return self._gate.call(build(FileStat, path=path)).value.files[0]

    def versions(self, path: str, *, limit: int = 100) -> tuple[FileVersion, ...]:
        """The versions of a file, newest first."""
        return self._gate.call(build(FileVersions, path=path, limit=limit)).value.versions

    def diff(self, path: str, old: int | None = None, new: int | None = None) -> str:
        """A unified diff between two versions; the newest against the one before, if none are named.

        Where too many lines are alike too often, it shows whole pieces as taken out and put in; see `FileDiff`.
        """
        return self._gate.call(build(FileDiff, path=path, old=old, new=new)).value.text

    def rollback(
        self,
        path: str = "",
        *,
        version: int | None = None,
        unix_s: float | None = None,
        transaction: int | None = None,
        pid: int | None = None,
        with_children: bool = False,
    ) -> Edited:
        """Go back to a version or a moment, or undo a transaction or all that a process did, `with_children` also what it started did."""
        call = build(
            FileRollback,
            path=path,
            version=version,
            unix_s=unix_s,
            transaction=transaction,
            pid=None if pid is None else Pid(pid),
            with_children=with_children,
        )
        return self._gate.call(call).value

    def undo(
        self,
        pid: int,
        *,
        last: int | None = None,
        is_dry_run: bool = False,
        with_children: bool = False,
    ) -> Undone:
        """Take back what a process did to files, in its workspace too; `last` of its acts only; `with_children` also what it started did.

        Raises:
            AccessDenied: The caller does not reach the process.
            Conflict: A tool of it is running in its workspace.
            NotFound: There is no such process, and it has changed no file.
        """
        call = build(
            Undo, pid=Pid(pid), last=last, is_dry_run=is_dry_run, with_children=with_children
        )
        return self._gate.call(call).value

    def purge(self, path: str, *, keep: int = 1) -> Purged:
        """Forget all but the newest `keep` versions; this cannot be undone."""
        call = build(FilePurge, path=path, keep=keep)
        purged = self._gate.call(call).value
        while purged.n_left:
            purged = purged.plus(self._gate.call(call).value)
        return purged

    def watch(
        self,
        path: str = "",
        *,
        since: int | None = None,
        is_waiting: bool = True,
        deadline_s: float | None = None,
    ) -> Changes:
        """Wait for changes of a path or below it; go on with the answer's `next` as `since`."""
        call = build(
            FileWatch, path=path, since=since, is_waiting=is_waiting, deadline_s=deadline_s
        )
        return self._gate.call(call).value

    @contextmanager
    def follow(
        self, path: str = "", *, since: int | None = None
    ) -> Iterator["BlockingChangesAsTheyCome"]:
        """Every change of a path, or of any below a folder, as it comes, until the block is left."""
        call = build(FileWatch, path=path, since=since, follow=True)
        with self._gate.open_call(call) as frames:
            yield BlockingChangesAsTheyCome(frames)

    def share(
        self, path: str, grantee: str, access: Literal["read", "write", "none"] = "read"
    ) -> None:
        """Let an agent (`/agents/ann`) or a group at a path of the caller's; `none` takes it back."""
        self._gate.call(build(FileShare, path=path, grantee=grantee, access=access))

    def set_quota(self, path: str, quota_bytes: int | None) -> None:
        """Let an agent's folder, a group's, `/shared` or a mount take so much disk; None: as much as any. The owner's alone."""
        self._gate.call(build(FileQuota, path=path, quota_bytes=quota_bytes))

    def shares(self) -> tuple[Share, ...]:
        """What the caller has shared, and what was shared with it."""
        return self._gate.call(FileShares()).value.shares

    def lock(
        self,
        path: str,
        *,
        lease_s: float = 30.0,
        is_waiting: bool = True,
        deadline_s: float | None = None,
    ) -> None:
        """Take or prolong the advisory lock of a path."""
        call = build(
            FileLock, path=path, lease_s=lease_s, is_waiting=is_waiting, deadline_s=deadline_s
        )
        self._gate.call(call)

    def unlock(self, path: str) -> None:
        """Give the lock of a path back."""
        self._gate.call(build(FileUnlock, path=path))

    def mount(
        self, folder: str, path: str, *, is_read_only: bool = False, is_waiting: bool = True
    ) -> MountInfo:
        """Show a real folder, given by its absolute path, as `/NAME`; only the owner may."""
        call = build(
            FileMount, folder=folder, path=path, is_read_only=is_read_only, is_waiting=is_waiting
        )
        return self._gate.call(call).value.mounts[0]

    def umount(self, path: str) -> MountInfo:
        """Take a mount away; only the owner may."""
        return self._gate.call(build(FileUmount, path=path)).value.mounts[0]

    def mounts(self) -> tuple[MountInfo, ...]:
        """The mounts that the caller may read."""
        return self._gate.call(FileMounts()).value.mounts

    def link(
        self, path: str, *, lifetime_s: float = 3600.0, version: int | None = None
    ) -> LinkInfo:
        """Make a link to a version of a file of one's own; its address is `/aios/files/` and its `token`, at the kernel's server."""
        call = build(FileLink, path=path, lifetime_s=lifetime_s, version=version)
        return self._gate.call(call).value.links[0]

    def unlink(self, link_id: str) -> None:
        """End a link at once."""
        self._gate.call(build(FileUnlink, id=link_id))

    def links(self) -> tuple[LinkInfo, ...]:
        """The links to one's files that have not expired."""
        return self._gate.call(FileLinks()).value.links

    def usage(self) -> Usages:
        """What takes how much space."""
        return self._gate.call(FileUsage()).value

    def collect(self) -> Purged:
        """Remove from the disk what no version needs; only the owner may."""
        return self._gate.call(FileCollect()).value

    def check(self) -> Checked:
        """Compare all that is stored with its checksums and counts; only the owner may."""
        return self._gate.call(FileCheck()).value


class BlockingChangesAsTheyCome:
    """`ChangesAsTheyCome` for code that waits."""

    def __init__(self, frames: "BlockingFrames[Changes]") -> None:
        self.n_missed = 0
        self._frames = iter(frames)

    def __iter__(self) -> Iterator[FileVersion]:
        return self

    def __next__(self) -> FileVersion:
        while True:
            frame = next(self._frames)
            if isinstance(frame, Change):
                self.n_missed += frame.n_missed
                return frame.version
