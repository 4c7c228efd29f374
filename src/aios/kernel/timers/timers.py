"""Timers as the kernel keeps them: on disk, in time, each run made once.

A run is a call of init's like any other. That it was made is written in the transaction that has the new process: a kernel
that is killed in between makes the run again, or finds it done.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import apsw
import msgspec

from aios.abi.call import Answer
from aios.abi.gate import Gate
from aios.abi.recovery import Moment
from aios.abi.spawn import Spawn, Spawned
from aios.abi.timers import (
    SleepUntil,
    TimerAdd,
    TimerInfo,
    TimerInfos,
    TimerList,
    TimerRemove,
    TimerRun,
)
from aios.abi.types import Pid
from aios.config import KernelConfig
from aios.errors import (
    AiosError,
    Conflict,
    InvalidCall,
    KernelStopping,
    NotFound,
    ResourceExhausted,
    Unsupported,
    edge,
)
from aios.kernel.clock import Clock
from aios.kernel.journal.disk import JournalDisk
from aios.kernel.process import Run
from aios.kernel.sealing import Sealer
from aios.kernel.timers import tables
from aios.kernel.timers.schedule import Step, TimerRow, following, in_zone, set_right, step
from aios.kernel.waitqueue import WaitQueue

LOOK_S = 10.0
"""The calendar is looked at so often, for it may be set; nothing tells."""
PAUSE_S = 1.0
"""After a run that failed, so that a disk that takes nothing is not asked at once again."""


class Timers:
    """The handlers of the calls about time, and the one who attends to the timers.

    Args:
        clock: The kernel's.
        limits: How many there may be, and what is late.
        disk: Where they are kept; None: none can be set.
        spawn: What starts a program in the name of a call.
        sealer: Their environments are kept sealed.
    """

    def __init__(
        self,
        clock: Clock,
        limits: KernelConfig,
        *,
        disk: JournalDisk | None,
        spawn: Callable[[Run, Spawn], Awaitable[Spawned]],
        sealer: Sealer,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._disk = disk
        self._start = spawn
        self._sealer = sealer
        self._timers: dict[int, TimerRow] = {}
        self._last_id = 0
        self._changed = WaitQueue()

    async def sleep_until(self, run: Run, call: SleepUntil) -> Moment:
        """Wait for a moment. One that a kernel's end cut off began when it first did."""
        begun_unix_s = self._clock.unix_s() if run.again is None else run.again.begun_unix_s
        until_unix_s = max(call.unix_s, begun_unix_s + call.after_s)
        while (left_s := until_unix_s - self._clock.unix_s()) > 0:
            with run.parked():
                await anyio.sleep(min(left_s, LOOK_S))
            await run.runnable()
        return Moment(self._clock.unix_s())

    async def add(self, run: Run, call: TimerAdd) -> TimerInfo:
        """Set a timer."""
        disk, now_unix_s = self._disk, self._clock.unix_s()
        if disk is None:
            raise Unsupported(
                "this kernel keeps no journal on disk, and a timer would end with it",
                hint="`aios serve`, with `journal.is_on`",
            )
        if len(self._timers) >= self._limits.max_timers:
            raise ResourceExhausted(
                f"there are {len(self._timers)} timers, the limit is {self._limits.max_timers}",
                hint="`aios timer rm`, or raise kernel.max_timers",
            )
        first_unix_s = _first(call, now_unix_s)
        self._last_id += 1
        timer = TimerRow(
            self._last_id,
            msgspec.structs.replace(call.spawn, env=self._sealer.seal(call.spawn.env)),
            now_unix_s,
            first_unix_s,
            cron=call.cron,
            zone=call.zone,
            missed=call.missed,
        )

        def write(connection: apsw.Connection) -> None:
            tables.add(connection, timer)
            run.sealed(connection, timer.info())

        await disk.write(write)
        self._timers[timer.id] = timer
        self._changed.wake_all()
        return timer.info()

    async def list_all(self, _: Run, __: TimerList) -> TimerInfos:
        """The timers."""
        found = sorted(self._timers.values(), key=lambda timer: timer.next_unix_s or 0.0)
        return TimerInfos(tuple(timer.info() for timer in found))

    async def remove(self, run: Run, call: TimerRemove) -> TimerInfo:
        """Take a timer away."""
        timer = self._get(call.id)
        assert self._disk is not None, "a kernel without a disk has no timers"

        def write(connection: apsw.Connection) -> TimerInfo:
            # A run may have been written just before, in the same commit.
            last = tables.find(connection, timer.id) or timer
            tables.remove(connection, timer.id)
            return run.sealed(connection, last.info())

        removed = await self._disk.write(write)
        self._timers.pop(timer.id, None)
        return removed

    async def run(self, run: Run, call: TimerRun) -> Spawned:
        """Start the program of a timer."""
        timer = self._get(call.id)
        if not call.is_due:
            return await self._spawn(run, timer.spawn)
        found = self._step(timer)
        if found is None or not found.is_run:
            raise Conflict(f"timer {call.id} is not due", hint="leave `is_due` out to run it now")
        seal, disk = run.seal, self._disk
        assert disk is not None, "a kernel without a disk has no timers"

        def after(pid: Pid) -> TimerRow:
            return msgspec.structs.replace(found.after, last_pid=pid, fault="")

        def sealed(connection: apsw.Connection, answer: Answer) -> None:
            assert isinstance(answer, Spawned), f"{answer} is no new process"
            there = tables.find(connection, timer.id)
            if there is None:
                raise _no_timer(timer.id)
            if there.n_runs != timer.n_runs:
                raise Conflict(f"timer {timer.id} is not due", hint="its run was just made")
            tables.update(connection, after(answer.pid))  # the last run, too, may come to nothing
            if seal is not None:
                seal(connection, answer)

        run.seal = sealed
        spawned = await self._spawn(run, timer.spawn)
        made = after(spawned.pid)
        self._put(timer, made)
        if made.is_done:
            disk.add(partial(tables.remove, timer_id=timer.id))
        return spawned

    async def _spawn(self, run: Run, spawn: Spawn) -> Spawned:
        env = self._sealer.open(spawn.env)
        return await self._start(run, msgspec.structs.replace(spawn, env=env))

    async def load(self) -> None:
        """Take up the timers of the kernel before."""
        assert self._disk is not None, "a kernel without a disk has no timers"
        timers, self._last_id = await self._disk.read(tables.load)
        self._timers = {timer.id: timer for timer in timers if not timer.is_done}
        for done in [timer for timer in timers if timer.is_done]:  # it ended behind their last run
            self._disk.add(partial(tables.remove, timer_id=done.id))

    async def attend(self, gate: Gate) -> None:
        """Make the runs that are due, in the name of init, until cancelled or the kernel ends."""
        while True:
            is_well = True
            for timer in list(self._timers.values()):
                is_well = await self._is_well(timer, gate) and is_well
            nexts = (timer.next_unix_s for timer in self._timers.values())
            next_unix_s = min((at for at in nexts if at is not None), default=float("inf"))
            left_s = next_unix_s - self._clock.unix_s()
            with anyio.move_on_after(max(min(left_s, LOOK_S), 0.0 if is_well else PAUSE_S)):
                await self._changed.wait()

    async def _is_well(self, timer: TimerRow, gate: Gate) -> bool:
        """Look at one timer, whatever is the matter with it. Returns: whether that went well."""
        try:
            with edge(f"timer {timer.id}"):
                return await self._look_at(timer, gate)
        except AiosError:  # the disk takes nothing, say: it is looked at again
            return False

    async def _look_at(self, timer: TimerRow, gate: Gate) -> bool:
        """Do what is to be done about one timer. Returns: whether that went well."""
        right = set_right(timer, self._clock.unix_s())
        if right is not None:
            await self._keep(timer, right)
            timer = right
        found = self._step(timer)
        if found is None or timer.id not in self._timers:
            return True
        try:
            if found.is_run:
                await gate.call(TimerRun(id=timer.id, is_due=True))
            else:
                await self._keep(timer, found.after)
        except KernelStopping:
            await anyio.sleep_forever()  # the next kernel makes it
        except AiosError as error:
            failed = msgspec.structs.replace(
                found.after,
                n_runs=timer.n_runs,
                n_failed=timer.n_failed + 1,
                fault=f"{error.code}: {error.message}",
            )
            self._put(timer, failed)
            if self._disk is not None:
                self._disk.add(lambda connection: tables.keep(connection, failed))
            return False
        return True

    async def _keep(self, before: TimerRow, after: TimerRow) -> None:
        assert self._disk is not None, "a kernel without a disk has no timers"
        await self._disk.write(lambda connection: tables.keep(connection, after))
        self._put(before, after)

    def _put(self, before: TimerRow, after: TimerRow) -> None:
        """Take up a change, unless the timer was removed meanwhile."""
        if self._timers.get(before.id) is None:
            return
        if after.is_done:
            del self._timers[before.id]
        else:
            self._timers[before.id] = after

    def _step(self, timer: TimerRow) -> Step | None:
        limits = self._limits
        return step(
            timer,
            self._clock.unix_s(),
            grace_s=limits.timer_grace_s,
            max_missed=limits.max_missed_runs,
        )

    def _get(self, timer_id: int) -> TimerRow:
        timer = self._timers.get(timer_id)
        if timer is None:
            raise _no_timer(timer_id)
        return timer


def _no_timer(timer_id: int) -> NotFound:
    return NotFound(f"no timer {timer_id}", hint="`aios timer ls` lists them")


def _first(call: TimerAdd, now_unix_s: float) -> float:
    """The first moment of a timer to be.

    Raises:
        InvalidCall: There is none.
    """
    if (call.at_unix_s is None) == (not call.cron):
        raise InvalidCall("a timer has either `at_unix_s` or `cron`", hint="give one of them")
    in_zone(now_unix_s, call.zone)  # a moment needs it too: it is shown on that clock
    found = call.at_unix_s or following(call.cron, call.zone, now_unix_s)
    if found is None or found <= now_unix_s:
        raise InvalidCall("that moment is over, or never comes", hint="name one that is to come")
    return found
