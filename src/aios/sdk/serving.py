"""Runs the calls of tools that a program offers: each in a task of its own, cancelled when nobody wants it any more."""

from collections.abc import Sequence
from contextlib import suppress

import anyio
import anyio.abc

from aios.abi.gate import Gate
from aios.abi.tools import ToolJob, ToolTake
from aios.errors import NotFound
from aios.sdk.invoke import AnyTool, invoke
from aios.sdk.toolbox import return_call
from aios.sdk.tools import MAX_SERVED_BYTES, ToolOutcome

CANCELLED = ToolOutcome("error: the caller cancelled it", is_error=True)
MAX_TAKEN = 256
"""Calls that are taken from the kernel at once, at most."""


class Service:
    """The calls that run now."""

    def __init__(self, gate: Gate, tools: Sequence[AnyTool], max_parallel: int) -> None:
        self._gate = gate
        self._tools = {tool.name: tool for tool in tools}
        self._places = anyio.Semaphore(max_parallel)
        self._take = ToolTake(limit=min(max_parallel, MAX_TAKEN))
        self._running: dict[int, anyio.CancelScope] = {}

    async def run(self) -> None:
        """Take calls and run them until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                taken = (await self._gate.call(self._take)).value
                for job in taken.jobs:
                    scope = self._running[job.id] = anyio.CancelScope()
                    tasks.start_soon(self._carry_out, job, scope)
                for number in taken.cancelled:
                    if number in self._running:
                        self._running[number].cancel()

    async def _carry_out(self, job: ToolJob, scope: anyio.CancelScope) -> None:
        """Run one call and hand back how it ended. A thread that a cancelled call leaves behind cannot be stopped."""
        outcome = CANCELLED
        with scope:
            async with self._places:
                tool = self._tools[job.tool]
                outcome = await invoke(tool, job.arguments, max_bytes=MAX_SERVED_BYTES)
        del self._running[job.id]
        with suppress(NotFound):  # nobody wants it any more
            await self._gate.call(return_call(job, outcome))
