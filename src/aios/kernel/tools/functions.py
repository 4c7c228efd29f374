"""Tools that run in the process which registered them: the kernel hands out each call there, and gets its result by a call.

A call is in one place: queued, taken, or over. It ends once: by the next `tool_take` or a `tool_return`, by the end of the process that
runs it, or because its caller no longer wants it; then whoever runs it is told, and the caller's end waits a moment for it to let go.

Those who take wait in a line, and a call wakes the first of them alone. Who runs calls side by side is told how many takes more would
have something to do (`n_wanted`). So what a program asks follows from what it was told, not from when: it is the same when it is replayed.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import msgspec

from aios.abi.call import Done
from aios.abi.tools import CUT_OFF, JobEnd, ToolJob, ToolJobs, ToolReturn, ToolTake
from aios.errors import NotFound, ResourceExhausted, ToolFailed
from aios.kernel.journal.records import AGAIN, Effect
from aios.kernel.process import Process, Run
from aios.kernel.taint import source_of, take
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job

if TYPE_CHECKING:
    from aios.abi.types import Pid

MICROS = 1_000_000
"""No kernel hands out so many calls a second."""
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
    is_cut_off: bool = False
    """Its program ended in the middle of it, and runs again."""

    def end(self, outcome: Outcome | None, error: str = "", *, is_cut_off: bool = False) -> None:
        """It has ended; whoever waits for it looks."""
        self.outcome, self.error, self.is_cut_off = outcome, error, is_cut_off
        self.over.set()


@dataclass(eq=False)
class Taker:
    """Somebody who waits for something to take."""

    limit: int
    woken: anyio.Event = field(default_factory=anyio.Event)


@dataclass(eq=False)
class Desk:
    """Where the calls for one process lie until it takes them."""

    queued: deque[Handed] = field(default_factory=deque)
    taken: dict[int, Handed] = field(default_factory=dict)
    cancelled: list[int] = field(default_factory=list)
    waiting: list[Taker] = field(default_factory=list)
    """Those whom nothing has woken yet, in the order of their coming."""
    n_taking: int = 0
    """Takes that are under way and may take a call."""
    n_promised: int = 0
    """Takes that were said to be wanted and have not come yet."""

    def add(self, handed: Handed) -> None:
        """A call is to be taken."""
        self.queued.append(handed)
        self._wake_next()

    def cancel(self, number: int) -> None:
        """A call that was taken is not wanted any more: tell one who takes no calls, or the first who does."""
        self.cancelled.append(number)
        self._wake_next()

    def end(self, done: JobEnd | ToolReturn) -> bool:
        """A call has ended. Returns: whether it was one that is taken."""
        handed = self.taken.pop(done.id, None)
        if handed is not None:
            outcome = None if done.error else Outcome(done.text, done.is_json)
            handed.end(outcome, done.error, is_cut_off=done.error == CUT_OFF)
        return handed is not None

    @contextmanager
    def taking(self, limit: int) -> Iterator[None]:
        """While the block runs, somebody takes."""
        if not limit:
            yield
            return
        self.n_taking += 1
        self.n_promised = max(0, self.n_promised - 1)
        try:
            yield
        finally:
            self.n_taking -= 1

    async def wait(self, run: Run, limit: int) -> None:
        """Return when there is something to take; who leaves instead lets the next one look."""
        while not (self.cancelled or (self.queued and limit)):
            taker = Taker(limit)
            self.waiting.append(taker)
            try:
                with run.parked():
                    await taker.woken.wait()
                await run.runnable()
            except BaseException:
                if taker in self.waiting:
                    self.waiting.remove(taker)
                else:
                    self._wake_next()
                raise

    def take(self, limit: int) -> tuple[list[Handed], tuple[int, ...]]:
        """What there is: calls to begin with, and the numbers of those that are not wanted any more."""
        cancelled, self.cancelled = tuple(self.cancelled), []
        handed = [self.queued.popleft() for _ in range(min(limit, len(self.queued)))]
        self.taken |= {each.job.id: each for each in handed}
        return handed, cancelled

    def promise(self) -> int:
        """How many takes more would have something to do, one that waits among them; those that were said to be are on their way."""
        n_wanted = max(0, len(self.queued) + 1 - self.n_taking - self.n_promised)
        self.n_promised += n_wanted
        return n_wanted

    def _wake_next(self) -> None:
        """Let others look at what there is."""
        if self.cancelled and self.waiting:
            self._wake(min(self.waiting, key=lambda taker: taker.limit > 0))
        taker = next((each for each in self.waiting if each.limit), None)
        if self.queued and taker is not None:
            self._wake(taker)

    def _wake(self, taker: Taker) -> None:
        self.waiting.remove(taker)
        taker.woken.set()


class Functions:
    """Hands calls out to processes and takes their results.

    Args:
        start_unix_s: When the kernel began. Calls are numbered from there, so a program that is replayed never hears a number twice.
    """

    def __init__(self, start_unix_s: float) -> None:
        self._desks: dict[Pid, Desk] = {}
        self._last_id = int(MICROS * start_unix_s)

    async def carry_out(self, job: Job, name: str, provider: Process) -> Outcome:
        """Let the process that registered a tool run it. The caller is parked meanwhile.

        A call that is cut off as its program crashes is handed out again if that does no harm, as behind a crash of the kernel; once, for
        it may be what the program crashes of.

        Raises:
            ResourceExhausted: The process has too many calls to take.
            ToolFailed: It raised, or the process ended.
        """
        record = job.run.record
        may_again = record is not None and (record.effect is Effect.PURE or record.cure == AGAIN)
        handed = await self._hand_out(job, name, provider)
        if handed.is_cut_off and may_again:
            handed = await self._hand_out(job, name, provider)
        if handed.outcome is None:
            raise ToolFailed(handed.error, hint="see the log of the process that runs it")
        return handed.outcome

    async def _hand_out(self, job: Job, name: str, provider: Process) -> Handed:
        """Give a call to its process. Returns: how it ended there."""
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
        desk.add(handed)
        try:
            with job.run.parked():
                await handed.over.wait()
        finally:
            if not handed.over.is_set():
                await self._withdraw(desk, handed)
        await job.run.runnable()
        return handed

    async def take(self, run: Run, call: ToolTake) -> ToolJobs:
        """Take what has ended, and give a process the calls of its tools, waiting for one."""
        desk = self._desks.setdefault(run.process.pid, Desk())
        for done in call.returns:
            desk.end(done)
        with desk.taking(call.limit):
            await desk.wait(run, call.limit)
        found, cancelled = desk.take(call.limit)
        for handed in found:
            take(run, handed.taint, f"a call of process {handed.job.caller}")
        n_wanted = desk.promise() if call.limit else 0
        return ToolJobs(tuple(handed.job for handed in found), cancelled, n_wanted)

    async def bring_back(self, run: Run, call: ToolReturn) -> Done:
        """Take the result of a call."""
        desk = self._desks.get(run.process.pid)
        if desk is None or not desk.end(call):
            raise NotFound(
                f"process {run.process.pid} runs no call {call.id} of a tool",
                hint="each is returned once; one that was cancelled need not be",
            )
        return Done()

    def close(self, process: Process) -> None:
        """The process has ended: so have the calls that it was to run."""
        desk = self._desks.pop(process.pid, None)
        if desk is None:
            return
        for handed in (*desk.queued, *desk.taken.values()):
            handed.end(None, _ended(handed.job.tool).message)

    def begin_anew(self, process: Process) -> None:
        """Its program begins from the beginning and knows of no call that it took; those that wait are for its new life."""
        desk = self._desks.get(process.pid)
        if desk is None:
            return
        for handed in desk.taken.values():
            handed.end(None, _cut_off(handed.job.tool), is_cut_off=True)
        desk.taken.clear()
        desk.cancelled.clear()
        desk.n_promised = 0

    def check_invariants(self) -> None:
        """Raise AssertionError if a call is in two places, or is over and not gone."""
        for desk in self._desks.values():
            queued = {handed.job.id for handed in desk.queued}
            assert len(queued) == len(desk.queued), "a call is queued twice"
            assert not queued & set(desk.taken), "a call is queued and taken"
            assert not any(handed.over.is_set() for handed in desk.queued), "a ghost is queued"
            assert not any(taker.woken.is_set() for taker in desk.waiting), "a woken one waits"
            assert len(desk.waiting) <= desk.n_taking + sum(not t.limit for t in desk.waiting)

    async def _withdraw(self, desk: Desk, handed: Handed) -> None:
        """Nobody wants the call any more. One that is taken is given a moment to let go."""
        if handed in desk.queued:
            desk.queued.remove(handed)
            return
        desk.cancel(handed.job.id)
        with anyio.move_on_after(CANCEL_GRACE_S, shield=True):
            await handed.over.wait()
        desk.taken.pop(handed.job.id, None)


def _ended(name: str) -> ToolFailed:
    return ToolFailed(
        f"the process that offers {name} has ended", hint="start it again, or use another tool"
    )


def _cut_off(name: str) -> str:
    return f"the program that offers {name} began anew in the middle of it; it may or may not have taken effect"
