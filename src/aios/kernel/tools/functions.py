"""Tools that run in the process which registered them: the kernel hands out each call there, and gets its result by a call.

A call is in one place: queued, taken, or over. It ends once: by `tool_return`, by the end of the process that runs it, or because its
caller no longer wants it; then whoever runs it is told, and the caller's end waits a moment for it to let go.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import msgspec

from aios.abi.call import Done
from aios.abi.tools import ToolJob, ToolJobs, ToolReturn, ToolTake
from aios.errors import NotFound, ResourceExhausted, ToolFailed
from aios.kernel.process import Process, Run
from aios.kernel.taint import source_of, take
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job
from aios.kernel.waitqueue import WaitQueue

if TYPE_CHECKING:
    from aios.abi.types import Pid

MAX_QUEUED = 1_024
"""Calls that may wait for one process to take them."""
CANCEL_GRACE_S = 0.1
"""How long the end of a caller waits for the process that runs its call to stop; a thread in it cannot be stopped at all."""


@dataclass(eq=False)
class Handed:
    """A call that was given to a process."""

    job: ToolJob
    taint: str = ""
    """Where data came from outside that had reached its caller."""
    over: anyio.Event = field(default_factory=anyio.Event)
    outcome: Outcome | None = None
    error: str = ""

    def end(self, outcome: Outcome | None, error: str = "") -> None:
        """It has ended; whoever waits for it looks."""
        self.outcome, self.error = outcome, error
        self.over.set()


@dataclass(eq=False)
class Desk:
    """Where the calls for one process lie until it takes them."""

    queued: deque[Handed] = field(default_factory=deque)
    taken: dict[int, Handed] = field(default_factory=dict)
    cancelled: list[int] = field(default_factory=list)
    changed: WaitQueue = field(default_factory=WaitQueue)
    """Those who wait for something to take."""


class Functions:
    """Hands calls out to processes and takes their results."""

    def __init__(self) -> None:
        self._desks: dict[Pid, Desk] = {}
        self._last_id = 0

    async def carry_out(self, job: Job, name: str, provider: Process) -> Outcome:
        """Let the process that registered a tool run it. The caller is parked meanwhile.

        Raises:
            ResourceExhausted: The process has too many calls to take.
            ToolFailed: It raised, or the process ended.
        """
        if provider.exiting is not None:
            raise _ended(name)
        desk = self._desks.setdefault(provider.pid, Desk())
        if len(desk.queued) >= MAX_QUEUED:
            raise ResourceExhausted(
                f"{MAX_QUEUED} calls wait for process {provider.pid} to take them",
                hint="try again later, or let it serve more at once",
                retry_after_s=1.0,
            )
        self._last_id += 1
        arguments = msgspec.json.encode(job.arguments).decode()
        caller = job.run.process
        handed = Handed(ToolJob(self._last_id, name, arguments, caller.pid), source_of(caller))
        desk.queued.append(handed)
        desk.changed.wake_all()
        try:
            with job.run.parked():
                await handed.over.wait()
        finally:
            if not handed.over.is_set():
                await self._withdraw(desk, handed)
        await job.run.runnable()
        if handed.outcome is None:
            raise ToolFailed(handed.error, hint="see the log of the process that runs it")
        return handed.outcome

    async def take(self, run: Run, call: ToolTake) -> ToolJobs:
        """Give a process the calls of its tools, waiting for one."""
        desk = self._desks.setdefault(run.process.pid, Desk())
        while not (desk.queued or desk.cancelled):
            with run.parked():
                await desk.changed.wait()
            await run.runnable()
        cancelled, desk.cancelled = tuple(desk.cancelled), []
        jobs: list[ToolJob] = []
        while desk.queued and len(jobs) < call.limit:
            handed = desk.queued.popleft()
            desk.taken[handed.job.id] = handed
            jobs.append(handed.job)
            take(run, handed.taint, f"a call of process {handed.job.caller}")
        return ToolJobs(tuple(jobs), cancelled)

    async def bring_back(self, run: Run, call: ToolReturn) -> Done:
        """Take the result of a call."""
        desk = self._desks.get(run.process.pid)
        handed = desk.taken.pop(call.id, None) if desk is not None else None
        if handed is None:
            raise NotFound(
                f"process {run.process.pid} runs no call {call.id} of a tool",
                hint="each is returned once; one that was cancelled need not be",
            )
        outcome = None if call.error else Outcome(call.text, call.is_json)
        handed.end(outcome, call.error)
        return Done()

    def close(self, process: Process) -> None:
        """The process has ended: so have the calls that it was to run."""
        desk = self._desks.pop(process.pid, None)
        if desk is None:
            return
        for handed in (*desk.queued, *desk.taken.values()):
            handed.end(None, _ended(handed.job.tool).message)
        desk.changed.wake_all()

    def check_invariants(self) -> None:
        """Raise AssertionError if a call is in two places, or is over and not gone."""
        for desk in self._desks.values():
            queued = {handed.job.id for handed in desk.queued}
            assert len(queued) == len(desk.queued), "a call is queued twice"
            assert not queued & set(desk.taken), "a call is queued and taken"
            assert not any(handed.over.is_set() for handed in desk.queued), "a ghost is queued"

    async def _withdraw(self, desk: Desk, handed: Handed) -> None:
        """Nobody wants the call any more. One that is taken is given a moment to let go."""
        if handed in desk.queued:
            desk.queued.remove(handed)
            return
        desk.cancelled.append(handed.job.id)
        desk.changed.wake_all()
        with anyio.move_on_after(CANCEL_GRACE_S, shield=True):
            await handed.over.wait()
        desk.taken.pop(handed.job.id, None)


def _ended(name: str) -> ToolFailed:
    return ToolFailed(
        f"the process that offers {name} has ended", hint="start it again, or use another tool"
    )
