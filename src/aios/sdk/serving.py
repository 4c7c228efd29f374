"""Runs the calls of tools that a program offers: each taken by a worker, and cancelled when nobody wants it any more.

A worker takes a call, runs it, and hands its result over when it takes the next one. There are as many as the kernel says it has
calls for, and one that waits. A task beside them hears of calls that are not wanted any more, also when all workers are busy.
"""

import math
from collections.abc import Sequence

import anyio
import anyio.abc

from aios.abi.gate import Gate, in_course_of
from aios.abi.tools import JobEnd, ToolJob, ToolTake
from aios.sdk.invoke import AnyTool, invoke
from aios.sdk.toolbox import NOT_SERVED, Served, end_of
from aios.sdk.tools import MAX_SERVED_BYTES, ToolOutcome

CANCELLED = ToolOutcome("error: the caller cancelled it", is_error=True)


class Calls:
    """The calls of a toolbox that run now, by whichever service: each is handed any of them, and told of any that is not wanted."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._running: dict[int, anyio.CancelScope] = {}
        self._unwanted: set[int] = set()
        """Calls that were cancelled before they came: a replay may tell so first."""
        self._last_id = 0
        self._threads = anyio.CapacityLimiter(math.inf)
        """As many as there are workers: who waited for one of those that a program shares would lose his time."""

    def cancel(self, numbers: Sequence[int]) -> None:
        """Nobody wants these any more."""
        for number in numbers:
            if number in self._running:
                self._running[number].cancel()
            elif number > self._last_id:
                self._unwanted.add(number)

    async def end(self, job: ToolJob) -> JobEnd:
        """Run one call to its end."""
        self._last_id = max(self._last_id, job.id)
        if job.end is not None:
            self._unwanted.discard(job.id)
            return job.end
        tool = self._served.find(job.tool)
        return end_of(job, NOT_SERVED if tool is None else await self._carry_out(tool, job))

    async def _carry_out(self, tool: AnyTool, job: ToolJob) -> ToolOutcome:
        """A thread that a cancelled call leaves behind cannot be stopped."""
        outcome = CANCELLED
        scope = self._running[job.id] = anyio.CancelScope()
        if job.id in self._unwanted:
            self._unwanted.remove(job.id)
            scope.cancel()
        try:
            with scope, in_course_of(job.id):
                outcome = await invoke(
                    tool, job.arguments, max_bytes=MAX_SERVED_BYTES, threads=self._threads
                )
        finally:
            del self._running[job.id]
        return outcome


class Service:
    """Workers that take calls, as many as are wanted up to `max_parallel`, and a listener."""

    def __init__(self, gate: Gate, calls: Calls, max_parallel: int) -> None:
        self._gate = gate
        self._calls = calls
        self._n_more = max_parallel
        """Workers that may be begun yet."""

    async def run(self) -> None:
        """Take calls and run them until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen)
            self._begin(1, tasks)

    def _begin(self, n_wanted: int, tasks: anyio.abc.TaskGroup) -> None:
        for _ in range(min(n_wanted, self._n_more)):
            self._n_more -= 1
            tasks.start_soon(self._work, tasks)

    async def _work(self, tasks: anyio.abc.TaskGroup) -> None:
        ended: tuple[JobEnd, ...] = ()
        while True:
            taken = (await self._gate.call(ToolTake(limit=1, returns=ended))).value
            self._begin(taken.n_wanted, tasks)
            self._calls.cancel(taken.cancelled)
            ended = tuple([await self._calls.end(job) for job in taken.jobs])

    async def _listen(self) -> None:
        while True:
            self._calls.cancel((await self._gate.call(ToolTake(limit=0))).value.cancelled)
