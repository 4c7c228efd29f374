"""Starting the programs of tools and ending all that they started: the contract, and the plain way without walls.

The contract is narrow so that a sandbox can take the plain way's place. What the plain way cannot end: a program that leaves
its session and also wipes the mark out of its environment.
"""

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio
import anyio.abc
import anyio.to_thread

from aios.errors import ToolFailed
from aios.kernel.tools.manifest import Bounds

LOOK_AGAIN_S = 0.005
N_LOOKS = 1_000
"""How often it is looked whether something is left; a program that forks all the time is killed again and again."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MARK = "AIOS_TOOL_RUN"
"""The variable by which the processes of one run are known, wherever they went."""
FILE_UNIT_BYTES = 512
"""Of `ulimit -f`, by POSIX."""
LIMITED = 'ulimit -c 0 && ulimit -t "$1" && ulimit -f "$2" && ulimit -v "$3" && ulimit -n "$4" && shift 4 && exec "$@"'
"""The shell sets the limits and becomes the program: nothing of it runs without them."""


@dataclass(frozen=True)
class Order:
    """What to start: words, the whole environment, where it stands, and what it may take. Its three streams are pipes."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    folder: Path
    bounds: Bounds


class Running(Protocol):
    """A program that was started, with all that it starts."""

    process: anyio.abc.Process
    """What was started, with its pipes; `returncode` is the program's."""

    def kill(self) -> None:
        """SIGKILL to all of it, at once."""
        ...

    def freeze(self, is_stopped: bool) -> None:
        """SIGSTOP or SIGCONT to all of it."""
        ...

    async def wait_gone(self) -> None:
        """Return when nothing of it is left."""
        ...


class Launcher(Protocol):
    """Starts programs."""

    async def open(self, order: Order) -> Running:
        """Start one; the caller kills it and waits until it is gone, however it ends.

        Raises:
            ToolFailed: It could not be started.
        """
        ...


class PlainLauncher:
    """Programs with limits, in a session of their own, without walls."""

    async def open(self, order: Order) -> "Marked":
        """Start one."""
        mark = secrets.token_hex(8)
        bounds = order.bounds
        limits = (
            bounds.cpu_s,
            max(1, bounds.file_bytes // FILE_UNIT_BYTES),
            bounds.memory_bytes >> 10,
            bounds.n_files,
        )
        try:
            process = await anyio.open_process(
                ["/bin/sh", "-c", LIMITED, "sh", *map(str, limits), *order.command],
                stdin=subprocess.PIPE,
                cwd=order.folder,
                env={**order.env, MARK: mark},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise ToolFailed(
                f"{order.command[0]} could not be started: {error}", hint="check its manifest"
            ) from error
        return Marked(process, mark)


class Marked:
    """A program and its descendants, known by their session and by the mark in their environment."""

    def __init__(self, process: anyio.abc.Process, mark: str) -> None:
        self.process = process
        self._mark = f"{MARK}={mark}".encode()

    def kill(self) -> None:
        """SIGKILL to all of it."""
        self._signal(signal.SIGKILL)

    def freeze(self, is_stopped: bool) -> None:
        """SIGSTOP or SIGCONT to all of it."""
        self._signal(signal.SIGSTOP if is_stopped else signal.SIGCONT)

    async def wait_gone(self) -> None:
        """Return when nothing of it is left, killing what turns up."""
        await self.process.wait()
        for _ in range(N_LOOKS):
            if not await anyio.to_thread.run_sync(self._kill_marked):
                return
            await anyio.sleep(LOOK_AGAIN_S)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)
        for pid in self._marked():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _kill_marked(self) -> bool:
        """Kill all that bear the mark. Returns: whether there were any."""
        found = list(self._marked())
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return bool(found)

    def _marked(self) -> Iterator[int]:
        """The processes with the mark. Cost: reads a file for each process of this machine, about 10 us each."""
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with suppress(OSError), open(f"/proc/{entry.name}/environ", "rb") as file:  # noqa: PTH123 - a path object each costs more than the read
                    if self._mark in file.read().split(b"\0"):
                        yield int(entry.name)
