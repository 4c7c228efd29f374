"""The code of a program to which something is granted, as it was when it was judged: it runs from a copy that no other program sees.

Between the look at a folder and the moment at which Python reads a file of it, whoever may write there could put other code in its place.
"""

import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
from msgspec import Struct

from aios.errors import ProgramFailed, TooLarge
from aios.kernel.access.grants import content_of, contents_of, digest_of_folder
from aios.kernel.sandbox.scratch import Scratch, hidden_base

TRIES = 5
"""So often a folder is copied that changes meanwhile."""


class Code(Struct, frozen=True):
    """The digest of a program's folder, empty if nobody can tell whether it changed; the rights granted to it; and where the copy is that has it, if one was made."""

    digest: str
    granted: tuple[str, ...] = ()
    copy: Path | None = None


@asynccontextmanager
async def kept_code(
    folder: Path, granted_to: Callable[[str], Awaitable[tuple[str, ...] | None]]
) -> AsyncIterator[Code]:
    """What is in a program's folder; copied, while the block runs, if something hangs on its digest. Cost: reads all files, thrice with a copy.

    Args:
        folder: Of the program.
        granted_to: The rights that code of that digest was granted; None: it may nothing that other code may not.

    Raises:
        ProgramFailed: It changes while it is copied, again and again.
    """
    for _ in range(TRIES):
        digest = await anyio.to_thread.run_sync(digest_of_folder, folder)
        granted = await granted_to(digest) if digest else None
        if granted is None:
            yield Code(digest)
            return
        scratch = await anyio.to_thread.run_sync(Scratch, "code", hidden_base())
        try:
            copy = scratch.path / "code"
            if await anyio.to_thread.run_sync(_copied, folder, copy) == digest:
                yield Code(digest, granted, copy)
                return
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(scratch.close)
    raise ProgramFailed(
        f"{folder} changes while its code is read", hint="start it again when nobody writes into it"
    )


def _copied(folder: Path, copy: Path) -> str:
    """Copy a folder. Returns: the digest of the copy; empty if it is not whole, for the folder changed meanwhile."""
    copy.mkdir()
    try:
        for path, is_folder in contents_of(folder):
            target = copy / path.relative_to(folder)
            if is_folder:
                target.mkdir()
            else:
                target.write_bytes(content_of(path))
                target.chmod((path.lstat().st_mode & 0o777) | stat.S_IRUSR)
    except (OSError, TooLarge):
        return ""
    return digest_of_folder(copy)
