"""The real folders of mounts: opening one, what may be written in it, and whether two lie in each other."""

from contextlib import ExitStack

from aios.disk.folder import Folder, is_draft
from aios.errors import AccessDenied, AiosError, DiskFailed, NotFound
from aios.kernel.storage.mount_tables import Mount
from aios.kernel.storage.paths import is_within


def open_real(mount: Mount) -> None:
    """Open the folder of a mount, or note why it is not there: its files are then listed as they were, and cannot be written."""
    with ExitStack() as undo:
        try:
            real = Folder.open(mount.folder)
            undo.callback(real.close)
            if real.inode != mount.inode and not real.items(()):
                # The place where a disk was: taking it for the folder would take every file for deleted.
                raise NotFound(
                    f"{mount.folder} is another folder, and empty", hint="is its disk there?"
                )
        except AiosError as error:
            mount.note = error.message
            return
        undo.pop_all()
        mount.real = real


def is_overlap(one: str, other: str) -> bool:
    """Whether one of two folders is in the other, or they are the same."""
    return is_within(one, other) or is_within(other, one)


def check_writable(mount: Mount, path: str, ignored: frozenset[str]) -> None:
    """Check that a path of a mount may be written.

    Raises:
        AccessDenied: The mount is read-only, or a name on the way is one that is never written to.
        DiskFailed: The real folder is not there.
    """
    if mount.is_read_only:
        raise AccessDenied(
            f"{mount.path} is mounted read-only", hint="the owner can mount it again"
        )
    if mount.real is None or mount.is_leaving:
        raise DiskFailed(f"the folder of {mount.path} is not there", hint="see `aios fs mounts`")
    for part in path.split("/")[2:]:
        if part.casefold() in ignored or is_draft(part.encode()):
            raise AccessDenied(
                f"nothing is written to {part!r} in a mount",
                hint="storage.mount_ignore lists such names; choose another",
            )
