"""Starting the programs of tools behind walls: what a tool asks for, as the sandbox wants it."""

import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from aios.errors import ProgramFailed, ToolFailed
from aios.kernel.egress.egress import Way
from aios.kernel.process import Process, Run
from aios.kernel.sandbox.launch import Confined, bounds_of
from aios.kernel.sandbox.launch import Launcher as Sandbox
from aios.kernel.sandbox.places import Places
from aios.kernel.sandbox.probe import Wall
from aios.kernel.sandbox.profile import Bounds as SandboxBounds
from aios.kernel.sandbox.profile import Profile
from aios.kernel.tools.manifest import Bounds

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Order(Struct, frozen=True):
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


Ways = Callable[[Process, Sequence[str] | None], AbstractAsyncContextManager[Way | None]]
"""Opens a way to the network for programs of a process, if it has one; or to just these hosts, for a tool that has its own."""


class Launcher:
    """Starts programs of tools.

    Args:
        sandbox: The walls.
        watching: Keeps what is done to folders; None keeps nothing.
        ways: Opens ways to the network; None opens none.
    """

    def __init__(
        self, sandbox: Sandbox, watching: Watching | None = None, ways: Ways | None = None
    ) -> None:
        self._sandbox = sandbox
        self._watching = watching
        self._ways = ways

    @asynccontextmanager
    async def networked(
        self, process: Process, order: Order, hosts: Sequence[str] | None = None
    ) -> AsyncIterator[Order]:
        """The order with a way to the network, for the length of the block, if the process has one, or to the `hosts` that are given."""
        if self._ways is None or (process.network is None and hosts is None):
            yield order
            return
        async with self._ways(process, hosts) as way:
            yield order if way is None else _with_way(order, way)

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


def _with_way(order: Order, way: Way) -> Order:
    more = way.places()
    places = Places((*order.places.readable, *more.readable), {**order.places.links, **more.links})
    command, env = tuple(way.command(order.command)), {**way.env(), **order.env}
    return replace(order, command=command, env=env, places=places)
