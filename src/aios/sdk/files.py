"""Files for agents: `await client.files.write("plan.md", "...")`, `await client.files.read("plan.md")`."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Literal

import anyio

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
from aios.errors import AiosError, InvalidCall
from aios.sdk.filecommand import FileCommands
from aios.sdk.requests import build, checked
from aios.sdk.retrieval import FileSearch

if TYPE_CHECKING:
    from aios.abi.gate import Frames

LIST_PAGE = 10_000
DROP_S = 2.0
"""An upload that was cut off waits so long until the kernel has forgotten it."""


class Files(FileSearch, FileCommands):
    """The files that a client's process reaches. Relative paths are in its own folder; every change is a version."""

    async def write(
        self, path: str, data: str | bytes, *, message: str = "", if_version: int | None = None
    ) -> Edited:
        """Make or replace a file of at most 8 MiB; on disk when this returns.

        Args:
            path: Where to.
            data: Text is written as UTF-8.
            message: Shown with the version.
            if_version: Only if the file has this version; 0: only if it is not there.

        Raises:
            AccessDenied: The path is not the caller's.
            Conflict: The file has another version.
            ResourceExhausted: The quota is used up, or the disk is full.
        """
        put = Put(path=path, data=encoded(data), if_version=if_version)
        return await self.edit([put], message=message)

    async def append(self, path: str, data: str | bytes, *, message: str = "") -> Edited:
        """Add to the end of a file, which is made if need be."""
        return await self.edit([Append(path=path, data=encoded(data))], message=message)

    async def delete(self, path: str, *, message: str = "") -> Edited:
        """Delete a file, or a folder with all below it; `rollback` brings it back until it is purged."""
        return await self.edit([Delete(path=path)], message=message)

    async def move(self, source: str, target: str, *, message: str = "") -> Edited:
        """Give a file or folder another path."""
        return await self.edit([Move(source=source, target=target)], message=message)

    async def copy(self, source: str, target: str, *, message: str = "") -> Edited:
        """Copy a file or folder; nothing is stored twice."""
        return await self.edit([Copy(source=source, target=target)], message=message)

    async def edit(self, edits: Iterable[Edit], *, message: str = "") -> Edited:
        """Do several edits, all or none of them; see `aios.abi.storage.FileEdit`."""
        return (
            await self._gate.call(
                build(FileEdit, edits=tuple(map(checked, edits)), message=message)
            )
        ).value

    async def upload(self, path: str, pieces: AsyncIterator[bytes], *, message: str = "") -> Edited:
        """Make or replace a file of any length from pieces of at most 8 MiB, which are never all in memory."""
        draft = 0
        try:
            async for piece in pieces:
                call = build(FileDraft, data=piece, draft=draft)
                draft = (await self._gate.call(call)).value.draft
            return await self.edit([Put(path=path, draft=draft)], message=message)
        except BaseException:
            if draft:
                await self._drop(draft)
            raise

    async def _drop(self, draft: int) -> None:
        """Nothing comes of a draft: it has gone into an edit that failed, or the upload was cut off."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(DROP_S), suppress(AiosError):
            await self._gate.call(build(FileDraft, data=b"", draft=draft, is_dropped=True))

    async def read(self, path: str, *, version: int | None = None) -> bytes:
        """The whole content of a file, in memory.

        Raises:
            AccessDenied: The path may not be read.
            NotFound: No such file or version.
        """
        return b"".join([piece async for piece in self.download(path, version=version)])

    async def read_text(self, path: str, *, version: int | None = None) -> str:
        """The whole content of a text in UTF-8.

        Raises:
            InvalidCall: It is none.
        """
        return decoded(path, await self.read(path, version=version))

    async def read_piece(
        self, path: str, *, offset: int, length: int = MAX_PIECE_BYTES, version: int | None = None
    ) -> Content:
        """At most 8 MiB of a file, from a position on."""
        call = build(FileRead, path=path, offset=offset, length=length, version=version)
        return (await self._gate.call(call)).value

    async def download(self, path: str, *, version: int | None = None) -> AsyncIterator[bytes]:
        """The content of a file in pieces, all of one version whatever is written meanwhile."""
        offset = 0
        while True:
            piece = await self.read_piece(path, offset=offset, version=version)
            version, offset = piece.version, offset + len(piece.data)
            if piece.data:
                yield piece.data
            if offset >= piece.size_bytes or not piece.data:
                return

    async def list(
        self, path: str = "", *, is_deep: bool = False, limit: int | None = None
    ) -> list[FileInfo]:
        """What is in a folder; with `is_deep` all files below it; the first `limit` of it, by path."""
        found: list[FileInfo] = []
        after, is_more = "", True
        while is_more and len(found) != limit:
            n = LIST_PAGE if limit is None else min(LIST_PAGE, limit - len(found))
            call = build(FileList, path=path, is_deep=is_deep, after=after, limit=n)
            page = (await self._gate.call(call)).value
            found += page.files
            after, is_more = page.next, bool(page.next)
        return found

    async def stat(self, path: str) -> FileInfo:
        """One file or folder.

        Raises:
            NotFound: There is none.
        """
        return (await self._gate.call(build(FileStat, path=path))).value.files[0]

    async def versions(self, path: str, *, limit: int = 100) -> tuple[FileVersion, ...]:
        """The versions of a file, newest first."""
        return (await self._gate.call(build(FileVersions, path=path, limit=limit))).value.versions

    async def diff(self, path: str, old: int | None = None, new: int | None = None) -> str:
        """A unified diff between two versions; the newest against the one before, if none are named.

        Where too many lines are alike too often, it shows whole pieces as taken out and put in; see `FileDiff`.
        """
        return (await self._gate.call(build(FileDiff, path=path, old=old, new=new))).value.text

    async def rollback(
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
        return (await self._gate.call(call)).value

    async def undo(
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
        return (await self._gate.call(call)).value

    async def purge(self, path: str, *, keep: int = 1) -> Purged:
        """Forget all but the newest `keep` versions; this cannot be undone."""
        call = build(FilePurge, path=path, keep=keep)
        purged = (await self._gate.call(call)).value
        while purged.n_left:
            purged = purged.plus((await self._gate.call(call)).value)
        return purged

    async def watch(
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
        return (await self._gate.call(call)).value

    @asynccontextmanager
    async def follow(
        self, path: str = "", *, since: int | None = None
    ) -> AsyncIterator["ChangesAsTheyCome"]:
        """Every change of a path, or of any below a folder, as it comes, until the block is left.

        async with client.files.follow("/shared") as changes:
            async for version in changes:
                ...
        """
        call = build(FileWatch, path=path, since=since, follow=True)
        async with self._gate.open_call(call) as frames:
            yield ChangesAsTheyCome(frames)

    async def share(
        self, path: str, grantee: str, access: Literal["read", "write", "none"] = "read"
    ) -> None:
        """Let an agent (`/agents/ann`) or a group at a path of the caller's; `none` takes it back."""
        await self._gate.call(build(FileShare, path=path, grantee=grantee, access=access))

    async def set_quota(self, path: str, quota_bytes: int | None) -> None:
        """Let an agent's folder, a group's, `/shared` or a mount take so much disk; None: as much as any. The owner's alone."""
        await self._gate.call(build(FileQuota, path=path, quota_bytes=quota_bytes))

    async def shares(self) -> tuple[Share, ...]:
        """What the caller has shared, and what was shared with it."""
        return (await self._gate.call(FileShares())).value.shares

    async def lock(
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
        await self._gate.call(call)

    async def unlock(self, path: str) -> None:
        """Give the lock of a path back."""
        await self._gate.call(build(FileUnlock, path=path))

    async def mount(
        self, folder: str, path: str, *, is_read_only: bool = False, is_waiting: bool = True
    ) -> MountInfo:
        """Show a real folder, given by its absolute path, as `/NAME`; only the owner may."""
        call = build(
            FileMount, folder=folder, path=path, is_read_only=is_read_only, is_waiting=is_waiting
        )
        return (await self._gate.call(call)).value.mounts[0]

    async def umount(self, path: str) -> MountInfo:
        """Take a mount away; only the owner may."""
        return (await self._gate.call(build(FileUmount, path=path))).value.mounts[0]

    async def mounts(self) -> tuple[MountInfo, ...]:
        """The mounts that the caller may read."""
        return (await self._gate.call(FileMounts())).value.mounts

    async def link(
        self, path: str, *, lifetime_s: float = 3600.0, version: int | None = None
    ) -> LinkInfo:
        """Make a link to a version of a file of one's own; its address is `/aios/files/` and its `token`, at the kernel's server."""
        call = build(FileLink, path=path, lifetime_s=lifetime_s, version=version)
        return (await self._gate.call(call)).value.links[0]

    async def unlink(self, link_id: str) -> None:
        """End a link at once."""
        await self._gate.call(build(FileUnlink, id=link_id))

    async def links(self) -> tuple[LinkInfo, ...]:
        """The links to one's files that have not expired."""
        return (await self._gate.call(FileLinks())).value.links

    async def usage(self) -> Usages:
        """What takes how much space."""
        return (await self._gate.call(FileUsage())).value

    async def collect(self) -> Purged:
        """Remove from the disk what no version needs; only the owner may."""
        return (await self._gate.call(FileCollect())).value

    async def check(self) -> Checked:
        """Compare all that is stored with its checksums and counts; only the owner may."""
        return (await self._gate.call(FileCheck())).value


class ChangesAsTheyCome:
    """Versions as they are made. `n_missed` were dropped so far because the reader was too slow; `watch` from the last one that it had gives them."""

    def __init__(self, frames: "Frames[Changes]") -> None:
        self.n_missed = 0
        self._frames = frames.__aiter__()

    def __aiter__(self) -> AsyncIterator[FileVersion]:
        return self

    async def __anext__(self) -> FileVersion:
        while True:
            frame = await self._frames.__anext__()
            if isinstance(frame, Change):
                self.n_missed += frame.n_missed
                return frame.version


def encoded(data: str | bytes) -> bytes:
    """Text as UTF-8, bytes as they are.

    Raises:
        InvalidCall: It has half of a character, which UTF-8 cannot hold.
    """
    try:
        return data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError as error:
        raise InvalidCall(
            f"the text has half of a character (\\u{ord(error.object[error.start]):04x}) at place {error.start}, which UTF-8 cannot hold",
            hint="write bytes, such as `text.encode('utf-8', 'replace')`",
        ) from error


def decoded(path: str, data: bytes) -> str:
    """The text of a file.

    Raises:
        InvalidCall: It is no UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidCall(
            f"{path} is no text in UTF-8, from byte {error.start} on",
            hint="`read` gives its bytes",
        ) from error
