"""The real folders of mounts: opening one, and whether two lie in each other."""

from contextlib import ExitStack

from aios.disk.folder import Folder
from aios.errors import AiosError, NotFound
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
