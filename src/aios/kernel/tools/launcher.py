"""Starting the programs of tools behind walls: what a tool asks for, as the sandbox wants it."""

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aios.errors import ProgramFailed, ToolFailed
from aios.kernel.process import Run
from aios.kernel.sandbox.launch import Confined, bounds_of
from aios.kernel.sandbox.launch import Launcher as Sandbox
from aios.kernel.sandbox.places import Places
from aios.kernel.sandbox.probe import Wall
from aios.kernel.sandbox.profile import Bounds as SandboxBounds
from aios.kernel.sandbox.profile import Profile
from aios.kernel.tools.manifest import Bounds

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Order:
    """What to start. Its three streams are pipes.

    Attributes:
        command: Its words.
        env: Its whole environment.
        folder: Where it starts.
        bounds: What it may take.
        places: What it reads beside the system.
        writable: What it may change.
        kept: Of that, what is kept in versions, so that the run can be undone.
    """

    command: tuple[str, ...]
    env: Mapping[str, str]
    folder: Path
    bounds: Bounds
    places: Places
    writable: tuple[Path, ...]
    kept: tuple[Path, ...] = ()


class Watching(Protocol):
    """What changes in some folders while the block runs is done by the process of `run`."""

    def __call__(
        self, run: Run, what: str, folders: Sequence[Path]
    ) -> AbstractAsyncContextManager[None]: ...


class Launcher:
    """Starts programs of tools."""

    def __init__(self, sandbox: Sandbox, watching: Watching | None = None) -> None:
        self._sandbox = sandbox
        self._watching = watching

    def watching(self, run: Run, what: str, order: Order) -> AbstractAsyncContextManager[None]:
        """Keep what is done to the folders of an order in versions, while the block runs."""
        if self._watching is None or not order.kept:
            return nullcontext()
        return self._watching(run, what, order.kept)

    async def open(self, order: Order) -> Confined:
        """Start one; the caller kills it and waits until it is gone, however it ends.

        Raises:
            ToolFailed: It could not be started.
        """
        there = (path for path in order.places.readable if path.exists())
        profile = Profile(
            tuple(there), order.writable, order.places.links, env=order.env,
            bounds=self._bounds(order.bounds),
        )  # fmt: skip
        try:
            return await self._sandbox.open(
                order.command, profile, cwd=order.folder, stdin=subprocess.PIPE
            )
        except ProgramFailed as error:
            raise ToolFailed(error.message, hint=error.hint) from error

    async def require_walls(self) -> None:
        """Return if there are walls, or the configuration wants none.

        Raises:
            ToolFailed: There are none, though they are wanted: code that a model wrote is not run so.
        """
        walls = await self._sandbox.find_walls()
        if walls.wall is Wall.NONE and self._sandbox.config.mode != Wall.NONE.value:
            raise ToolFailed(
                f"no sandbox on this machine: {'; '.join(walls.missing)}",
                hint='mend that; `sandbox.mode = "none"` runs it with your own rights',
            )

    def _bounds(self, bounds: Bounds) -> SandboxBounds:
        most = bounds_of(self._sandbox.config)
        return SandboxBounds(
            memory_bytes=min(bounds.memory_bytes, most.memory_bytes),
            cpu_s=bounds.cpu_s,
            n_processes=most.n_processes,
            file_bytes=bounds.file_bytes,
            n_files=bounds.n_files,
            tmp_bytes=most.tmp_bytes,
        )
