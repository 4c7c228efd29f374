"""The calls about files. What they do is `kernel/storage/`; `docs/concepts/storage.md` tells how it fits together.

A path is absolute (`/shared/plan.md`) or relative to the caller's own folder (`plan.md`). Folders are there as long as a file
is in them. Every change is a version, with its author, time and message; a deleted file is a version without content.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call, Done
from aios.abi.types import Count, Pid
from aios.abi.types import FileVersion as FileVersion
from aios.abi.types import VersionNumber as VersionNumber

FilePath = Annotated[str, Meta(max_length=4096)]

MAX_PIECE_BYTES = 8 << 20
Data = Annotated[bytes, Meta(max_length=MAX_PIECE_BYTES)]
"""At most 8 MiB in one call; what is longer goes through a draft."""

Note = Annotated[str, Meta(max_length=1024)]


class FileInfo(Struct, frozen=True):
    """A file, or a folder (`is_folder`; then all the rest is 0)."""

    path: str
    size_bytes: Count = 0
    version: VersionNumber = 0
    changed_unix_s: float = 0.0
    is_folder: bool = False


# --- changing ----------------------------------------------------------------------------------------------------


class Put(Struct, frozen=True, tag="put"):
    """Make or replace a file. With `if_version` only if that is its version; 0 means that there must be none.

    The content is `data`, or what was collected in `draft` by `FileDraft`.
    """

    path: FilePath
    data: Data = b""
    draft: Count = 0
    if_version: VersionNumber | None = None


class Append(Struct, frozen=True, tag="append"):
    """Add to the end of a file, which is made if need be. Costs what is added, not what is there."""

    path: FilePath
    data: Data


class Copy(Struct, frozen=True, tag="copy"):
    """Give `target` the content of `source`; nothing is stored twice."""

    source: FilePath
    target: FilePath


class Move(Struct, frozen=True, tag="move"):
    """Give `target` the content of `source` and delete that. A folder is moved with all that is below it."""

    source: FilePath
    target: FilePath


class Delete(Struct, frozen=True, tag="delete"):
    """Delete a file, or a folder with all that is below it. Earlier versions stay until they are purged."""

    path: FilePath


Edit = Put | Append | Copy | Move | Delete


class Edited(Answer, frozen=True):
    """All edits are on disk. `versions` has one entry a file that changed; none for a content that was there already."""

    transaction: Count
    versions: tuple[FileVersion, ...]
    left: tuple[str, ...] = ()
    """Of a rollback: the paths that stay as they are. Somebody else has changed them since; what they were is purged; a policy forbids the caller to change them (and not to
    read them); or, in a mount, something is there that is never written to, such as a link or a file with several names."""


class FileEdit(Call[Edited], frozen=True, tag="file_edit"):
    """Change files: all the edits, in their order, or none of them. When it returns they are on disk.

    Raises:
        AccessDenied: A path is not the caller's, and was not shared with it for writing; or a policy forbids something below it.
        Conflict: A file has another version than `if_version`, or a move's target exists.
        NotFound: A file to copy, move or delete is not there.
        ResourceExhausted: The quota is used up, or the disk is full.
        TooLarge: Over 20,000 files change (a move changes two), or fewer with long names; nothing is changed then.
    """

    edits: Annotated[tuple[Edit, ...], Meta(min_length=1, max_length=1_000)]
    message: Note = ""
    is_trial: bool = False
    """Only check that the paths may be used so; nothing is changed, and the answer has no versions."""


class Draft(Answer, frozen=True):
    """What a draft holds so far."""

    draft: Count
    size_bytes: Count


class FileDraft(Call[Draft], frozen=True, tag="file_draft"):
    """Collect a long content piece by piece; `draft` 0 begins one. `Put` makes it a file; the caller's end drops it.

    Raises:
        NotFound: The caller has no such draft.
        ResourceExhausted: It has too many, the draft is larger than any folder may be, or the disk is full.
    """

    data: Data
    draft: Count = 0
    is_dropped: bool = False
    """Nothing will come of it: forget the draft."""


class FileRollback(Call[Edited], frozen=True, tag="file_rollback"):
    """Bring a path, or all below a folder, back to what it was; that is a new version, so it can be undone as well.

    Give one: a `version` of the file; `unix_s`, a moment; `transaction`, to undo just that one; or `pid`, to undo all that this
    process did under this kernel, `with_children` also all that descend from it did. Files that somebody else has changed after the
    transaction or processes are left as they are.

    Raises:
        AccessDenied: A path is not the caller's.
        InvalidCall: Not just one of them is given, `with_children` without `pid` or with that of init, or a `path` with
            `transaction` or `pid`.
        NotFound: There is no such version, it was purged, or nothing is to be undone.
        TooLarge: As for `FileEdit`. Go back to a later moment first, then further: what is already as it was does not count.
    """

    path: FilePath = ""
    version: VersionNumber | None = None
    unix_s: float | None = None
    transaction: Count | None = None
    pid: Pid | None = None
    message: Note = ""
    with_children: bool = False


class Purged(Answer, frozen=True):
    """How many versions are gone, and how many bytes of the disk that freed. `n_left` were too many for one call: call again."""

    n_versions: Count
    size_bytes: Count
    n_left: Count = 0

    def plus(self, more: "Purged") -> "Purged":
        """The same of two calls."""
        return Purged(
            self.n_versions + more.n_versions, self.size_bytes + more.size_bytes, more.n_left
        )


class FilePurge(Call[Purged], frozen=True, tag="file_purge"):
    """Forget versions of a file, or of all below a folder: all but the newest `keep`. This cannot be undone.

    One call forgets the oldest 20,000, and says how many are left. Of a deleted file nothing is left with `keep` 0.

    Raises:
        AccessDenied: A path is not the caller's, or a policy forbids something below it.
        NotFound: Nothing was ever at that path or below it, or all of it was purged.
    """

    path: FilePath
    keep: Annotated[int, Meta(ge=0, le=1_000_000)] = 1


# --- looking -----------------------------------------------------------------------------------------------------


class Content(Answer, frozen=True):
    """A piece of a file. `size_bytes` is the length of the whole; `taint` is where data in it came from outside, if any did."""

    data: bytes
    size_bytes: Count
    version: VersionNumber
    taint: str = ""


class FileRead(Call[Content], frozen=True, tag="file_read"):
    """Read `length` bytes from `offset`; of an older `version`, also after the file was deleted."""

    path: FilePath
    offset: Count = 0
    length: Annotated[int, Meta(ge=0, le=MAX_PIECE_BYTES)] = MAX_PIECE_BYTES
    version: VersionNumber | None = None


class Files(Answer, frozen=True):
    """Files and folders in the order of their paths; with `next` as `after`, the call goes on behind the last."""

    files: tuple[FileInfo, ...]
    next: str = ""


class FileList(Call[Files], frozen=True, tag="file_list"):
    """List what is in a folder, by path, where a folder's ends with a `/`; with `is_deep` all files below it, without the folders."""

    path: FilePath = ""
    is_deep: bool = False
    after: FilePath = ""
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1_000


class FileStat(Call[Files], frozen=True, tag="file_stat"):
    """Look at one file or folder."""

    path: FilePath


class Versions(Answer, frozen=True):
    """Versions, newest first."""

    versions: tuple[FileVersion, ...]


class FileVersions(Call[Versions], frozen=True, tag="file_versions"):
    """The versions of a file, newest first, also of a deleted one."""

    path: FilePath
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100


class Difference(Answer, frozen=True):
    """A unified diff; empty when both are the same."""

    text: str


class FileDiff(Call[Difference], frozen=True, tag="file_diff"):
    """Compare two versions of a text file line by line. `new` None is the newest; `old` None is the one before `new`.

    Where too many lines are alike too often, pieces in which there is more in common are shown as taken out and put in as a whole.

    Raises:
        Unsupported: One of them is not UTF-8, or over 4 MiB.
    """

    path: FilePath
    old: VersionNumber | None = None
    new: VersionNumber | None = None


class Changes(Answer, frozen=True):
    """Changes in their order. Go on with `next` as `since`: none is missed and none comes twice."""

    versions: tuple[FileVersion, ...]
    next: Count


class FileWatch(Call[Changes], frozen=True, tag="file_watch"):
    """Wait for changes of a file, or of any below a folder, that come after the change `since`; None is now.

    With `is_waiting` false the answer comes at once: call again from its `next` until it is empty. With `follow` an `Advance` frame says where it begins, and each change
    comes as a `Change` frame, until the call is cancelled; it waits for a slow reader, and holds nobody else up.
    """

    path: FilePath = ""
    since: Count | None = None
    is_waiting: bool = True
    follow: bool = False


# --- sharing and locks -------------------------------------------------------------------------------------------


class Share(Struct, frozen=True):
    """`grantee` (an agent's folder, or a group's) may read, or also write, a path and all below it.

    `taint` is where data that had reached who shared it came from outside, empty if none had.
    """

    path: str
    grantee: str
    access: Literal["read", "write"]
    taint: str = ""


class FileShare(Call[Done], frozen=True, tag="file_share"):
    """Let an agent (`/agents/ann`) or a group (`/groups/owner`) read or write a path of the caller's; `none` takes it back.

    Raises:
        AccessDenied: The path is not the caller's.
        ResourceExhausted: 1,000 paths in the folder of the agent, with those of its children, are shared.
    """

    path: FilePath
    grantee: FilePath
    access: Literal["read", "write", "none"] = "read"


class Shares(Answer, frozen=True):
    """What the caller has shared, and what was shared with it."""

    shares: tuple[Share, ...]


class FileShares(Call[Shares], frozen=True, tag="file_shares"):
    """List what the caller has shared, and what was shared with it."""


class FileLock(Call[Done], frozen=True, tag="file_lock"):
    """Take the advisory lock of a path for `lease_s` seconds, or prolong it; waits while another process has it.

    It keeps out only those who ask for it. It ends with the lease, with the process, and with the kernel.

    Raises:
        Conflict: Another process has it, and `is_waiting` is false.
        ResourceExhausted: The caller holds 1,000 locks.
    """

    path: FilePath
    lease_s: Annotated[float, Meta(gt=0, le=86_400)] = 30.0
    is_waiting: bool = True


class FileUnlock(Call[Done], frozen=True, tag="file_unlock"):
    """Give the lock of a path back; nothing happens if the caller does not have it."""

    path: FilePath


# --- the whole ---------------------------------------------------------------------------------------------------


class SpaceUsed(Struct, frozen=True):
    """What an agent, a group or `/shared` has: its files, and the disk that they and their versions take."""

    path: str
    n_files: Count
    size_bytes: Count
    stored_bytes: Count
    quota_bytes: Count


class Usages(Answer, frozen=True):
    """The space of each folder that the caller may read."""

    usages: tuple[SpaceUsed, ...]
    disk_bytes: Count
    """The database and the large contents beside it, everything included."""


class FileUsage(Call[Usages], frozen=True, tag="file_usage"):
    """Ask what takes how much space."""


class FileQuota(Call[Done], frozen=True, tag="file_quota"):
    """Let a folder take so many bytes of disk, with all versions; None: `storage.quota_bytes` again.

    The folder is that of an agent (`/agents/ann`, with all that it starts), of a group, `/shared` or a mount. What is there already stays.

    Raises:
        AccessDenied: The caller is not the owner.
        InvalidCall: The path is no such folder.
    """

    path: FilePath
    quota_bytes: Count | None = None


class FileCollect(Call[Purged], frozen=True, tag="file_collect"):
    """Remove from the disk what no version needs any more. Only the owner may."""


class Checked(Answer, frozen=True):
    """What was read, and every fault that was found."""

    n_blobs: Count
    n_versions: Count
    faults: tuple[str, ...]


class FileCheck(Call[Checked], frozen=True, tag="file_check"):
    """Read everything that is stored and compare it with its checksums and counts. Only the owner may."""
