"""The calls about mounts: real folders of the machine under a name beside `/shared`. `docs/concepts/storage.md` tells how they work."""

from typing import Annotated

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call
from aios.abi.storage import FilePath
from aios.abi.types import Count


class Skipped(Struct, frozen=True):
    """A file or folder that is in the real folder and not shown, and why."""

    path: str
    why: str


class MountInfo(Struct, frozen=True):
    """A mounted folder. `folder` is where it is on the machine; empty for all but the owner."""

    path: str
    folder: str
    is_read_only: bool
    is_settled: bool
    """All that is in it has been looked at since the kernel started."""
    is_watched: bool
    """Changes from outside are noticed at once; else by a scan every `storage.rescan_s`."""
    n_files: Count
    n_skipped: Count
    skipped: tuple[Skipped, ...] = ()
    """Some of them; for the owner alone."""
    note: str = ""
    """What is wrong: the folder is not there, or more folders are in it than the system lets us watch."""


class MountInfos(Answer, frozen=True):
    """Mounts in the order of their paths."""

    mounts: tuple[MountInfo, ...]


class FileMount(Call[MountInfos], frozen=True, tag="file_mount"):
    """Show a real folder as `/NAME`. Every file in it gets a version; what is written there is written to the real file before the call returns.

    Others see it when the owner shares it (`FileShare`). With `is_waiting` the call returns when all files have been read.

    Raises:
        AccessDenied: The caller is not the owner, or the folder may not be mounted.
        Conflict: The name is taken, or the folder is in a mount or holds one.
        InvalidCall: The path is not a single new name, or the folder is not absolute.
        NotFound: There is no such folder.
    """

    folder: Annotated[str, Meta(min_length=1, max_length=4096)]
    path: FilePath
    is_read_only: bool = False
    is_waiting: bool = True


class FileUmount(Call[MountInfos], frozen=True, tag="file_umount"):
    """Take a mount away; the real folder stays as it is, and versions stay until they are purged. Answers with what was mounted.

    Raises:
        AccessDenied: The caller is not the owner.
        NotFound: There is no such mount.
    """

    path: FilePath


class FileMounts(Call[MountInfos], frozen=True, tag="file_mounts"):
    """List the mounts that the caller may read."""
