"""The live process table of `run --top`."""

from collections.abc import Iterable
from contextlib import suppress

import anyio
from rich.live import Live

from aios.abi.calls import Info, Ps
from aios.abi.gate import Gate
from aios.abi.types import Pid
from aios.cli.ids import family
from aios.cli.table import Screen, Snapshot
from aios.cli.top import make_console
from aios.errors import KernelStopping, KernelUnreachable

INTERVAL_S = 0.5
MAX_HEIGHT = 1_000


class LiveTable:
    """Draws some processes and their descendants on stderr; without a terminal only their last state."""

    def __init__(self, gate: Gate, pids: Iterable[Pid]) -> None:
        self._gate = gate
        self._pids = set(pids)
        self._screen = Screen()
        self._console = make_console(is_error=True)
        self._last: Snapshot | None = None

    @property
    def is_live(self) -> bool:
        """Whether there is a terminal to draw on."""
        return self._console.is_terminal

    async def keep_drawing(self) -> None:
        """Draw until cancelled; the table is taken off the screen then."""
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                self._last = await self._look()
                console = self._console
                drawn = self._screen.draw(self._last, width=console.width, height=console.height)
                live.update(drawn, refresh=True)
                await anyio.sleep(INTERVAL_S)

    async def keep_looking(self) -> None:
        """Look until cancelled, without drawing: once a parent has ended, its children can no longer be told to be its."""
        while True:
            self._last = await self._look()
            await anyio.sleep(INTERVAL_S)

    async def finish(self) -> None:
        """Leave the last state on the screen, or the one before it if the kernel has gone with its last process."""
        with suppress(KernelStopping, KernelUnreachable):
            self._last = await self._look()
        if self._last is not None:
            width = self._console.width
            self._console.print(self._screen.draw(self._last, width=width, height=MAX_HEIGHT))

    async def _look(self) -> Snapshot:
        processes = (await self._gate.call(Ps(all=True))).value.processes
        info = (await self._gate.call(Info())).value
        return Snapshot(info, tuple(family(processes, self._pids)))
