"""Folders for what lives no longer than whoever made it, with paths short enough for Unix sockets in them.

Each is locked for as long as its maker lives, so what a kill left behind is told from what is in use, whatever the pids are by now. A kernel
sweeps the former when it looks for its walls; benches and tests do when they begin.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX, SUFFIX = "aios-", ".scratch"
MAX_BASE_CHARS = 44
"""Of the path of the temporary folder; below a longer one no socket could be."""
SHORT_BASE = Path("/tmp")  # noqa: S108 - a private folder with a random name is made in it


class Scratch:
    """A new, empty folder of mode 700, until `close`.

    Args:
        kind: What it is for, as its name shows.
        base: Where it is made; the temporary folder without.
    """

    def __init__(self, kind: str, base: Path | None = None) -> None:
        while True:
            name = tempfile.mkdtemp(
                prefix=f"{PREFIX}{kind}-", suffix=SUFFIX, dir=base or default_base()
            )
            with suppress(FileNotFoundError):  # swept between its making and its lock
                self._descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)
                self.path = Path(name).resolve()
                if self.path.exists():
                    return
                os.close(self._descriptor)

    def close(self) -> None:
        """Remove it, with all that is in it."""
        remove_tree(self.path)
        os.close(self._descriptor)


@contextmanager
def scratch_folder(kind: str, base: Path | None = None) -> Iterator[Path]:
    """A new, empty folder, gone when the block ends."""
    scratch = Scratch(kind, base)
    try:
        yield scratch.path
    finally:
        scratch.close()


def sweep_folders(base: Path | None = None) -> int:
    """Remove those of this user whose makers were killed. Returns: how many."""
    n_swept = 0
    for path in (base or default_base()).glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):  # another's, or in use, or gone meanwhile
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_uid == os.getuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_tree(path)
                    n_swept += 1
            finally:
                os.close(descriptor)
    return n_swept


def default_base() -> Path:
    """The temporary folder of this user, if its path is not too long."""
    found = Path(tempfile.gettempdir())
    return found if len(os.fsencode(found)) <= MAX_BASE_CHARS else SHORT_BASE


def hidden_base() -> Path:
    """Where kernels of this user put what their programs use, a folder that each sandbox hides from who works around it: `/tmp/aios-1000`.

    Where another user has taken its name it is `default_base()`, which is not hidden.
    """
    folder = default_base().resolve() / f"{PREFIX}{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    return folder if is_ours and not status.st_mode & 0o077 else folder.parent


def remove_tree(folder: Path) -> None:
    """Remove a folder whatever modes a program gave to those in it; what cannot be is left. Nothing that acts may be in it any more."""
    for root, names, _ in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)  # noqa: PTH118 - as `walk` gives them
            if stat.S_ISDIR(
                os.lstat(path).st_mode
            ):  # the mode of a link is that of what it leads to
                os.chmod(path, stat.S_IRWXU)  # noqa: PTH101 - the same
    shutil.rmtree(folder, ignore_errors=True)
