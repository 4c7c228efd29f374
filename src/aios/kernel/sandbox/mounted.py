"""That a sandbox holds what was checked: its program is held at its first step until each mount has been compared with its path.

`bwrap` finds what it mounts by path, a few milliseconds after the paths were checked. A program that may change a folder on the way can put a
symlink there meanwhile, and a child of it would get what the link leads to. A path without symlinks leads to nothing but what it led to when it was checked.
"""

import os
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import anyio

from aios.errors import ProgramFailed
from aios.kernel.sandbox.confine import open_real
from aios.kernel.sandbox.processes import descendants, send
from aios.kernel.sandbox.spawning import ChildProcess

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What a shell can give on."""


def held(env: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Words before those of a program, which stop it before it begins, and the environment to start them with.

    In that each variable has a number for a name, and gets its own when the program is let go: else the loader and the shell would heed what
    whoever starts the program chose (`LD_PRELOAD`), and its code would run before the mounts were looked at. Names that no shell can give on are left out.
    """
    names = [name for name in env if NAME.fullmatch(name)]
    numbers = [f"AIOS_{number}" for number in range(len(names))]  # nobody may name one so
    script = ["kill -STOP $$"]
    # `command`: what a shell keeps as its own, such as `UID` of bash, must not end it
    script += [
        f'command export {name}="${number}" 2>/dev/null'
        for name, number in zip(names, numbers, strict=True)
    ]
    script += [f"unset {' '.join(numbers)}"] if numbers else []
    words = ["/bin/sh", "-c", "; ".join([*script, 'exec "$@"']), "sh"]
    return words, {number: env[name] for name, number in zip(names, numbers, strict=True)}


async def let_go(
    process: ChildProcess, root: int, paths: Iterable[Path], *, within_s: float
) -> None:
    """Wait until the program behind the words of `held` is stopped, look at its mounts, and let it go.

    Args:
        process: `bwrap`.
        root: The first process of the namespace.
        paths: What is mounted at its own path.
        within_s: How long the wall may take to stand.

    Raises:
        ProgramFailed: It is something else that is mounted; nothing of the program has run.
        ProcessLookupError: It has ended.
    """
    with anyio.fail_after(within_s):
        while (pid := _held(root)) is None:
            if process.returncode is not None:
                raise ProcessLookupError
            await anyio.sleep(0.001)
    for path in paths:
        if not _is_same(path, f"/proc/{pid}/root"):
            raise ProgramFailed(
                f"{path} was changed while the program was started",
                hint="start it again when nobody moves that",
            )
    send(pid, signal.SIGCONT)


def _held(root: int) -> int | None:
    """The program, once it has stopped itself."""
    for pid in descendants(root)[:1]:
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                return pid
    return None


def _is_same(path: Path, root: str) -> bool:
    """Whether a path without symlinks leads to the same below two roots."""
    try:
        outside, inside = _identity(path, "/"), _identity(path, root)
    except OSError:
        return False
    return outside == inside


def _identity(path: Path, root: str) -> Sequence[int]:
    descriptor = open_real(str(path), root)
    try:
        status = os.fstat(descriptor)
        return status.st_dev, status.st_ino
    finally:
        os.close(descriptor)
