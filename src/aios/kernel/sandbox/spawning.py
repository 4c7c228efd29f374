"""Starting a program of the operating system that inherits no descriptor but those that it is given.

Python makes its own descriptors such that no program inherits them. Others may be there: what the kernel was itself started with (a lock of `flock`, a
pipe of a shell or a service manager), what a C library opened. asyncio closes them in the child; uvloop, on which `aios serve` runs, does not.
"""

import fcntl
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc

STDERR = 2


class Spawner:
    """Starts one program after another. A kernel has one: two at once would undo each other's work."""

    def __init__(self) -> None:
        self._turn = anyio.Lock()

    async def spawn(
        self,
        command: Sequence[str],
        *,
        stdin: int,
        env: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        stderr: int = subprocess.PIPE,
    ) -> anyio.abc.Process:
        """Start a program in a session of its own; its output is piped.

        Raises:
            OSError: It cannot be.
        """
        async with self._turn:
            with nothing_inherited():
                return await anyio.open_process(
                    command,
                    stdin=stdin,
                    stderr=stderr,
                    env=env,
                    start_new_session=True,
                    pass_fds=pass_fds,
                )


@contextmanager
def nothing_inherited() -> Iterator[None]:
    """While the block runs, programs that are started inherit nothing of what was open before it.

    Cost: about 1 us for each open descriptor.
    """
    held = [number for number in _open_numbers() if number > STDERR and _is_inherited(number)]
    for number in held:
        os.set_inheritable(number, False)
    try:
        yield
    finally:
        for number in held:
            with suppress(OSError):  # it was closed meanwhile
                os.set_inheritable(number, True)


def _open_numbers() -> list[int]:
    return [int(path.name) for path in Path("/proc/self/fd").iterdir()]


def _is_inherited(number: int) -> bool:
    try:
        return not fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    except OSError:  # that of the listing itself
        return False
