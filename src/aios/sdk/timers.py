"""Time: `await client.timers.sleep(3600)`, and for the owner programs that are started at a moment; the same for plain code."""

from typing import TYPE_CHECKING

from aios.abi.spawn import Spawn, Spawned
from aios.abi.timers import (
    Missed,
    SleepUntil,
    TimerAdd,
    TimerInfo,
    TimerList,
    TimerRemove,
    TimerRun,
)
from aios.sdk.requests import build

if TYPE_CHECKING:
    from aios.abi.gate import Gate
    from aios.sdk.blocking import BlockingGate


class Timers:
    """Waits that outlive the kernel, and timers. Only the owner sets timers; `Spawn` is what it is to start."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate

    async def sleep_until(self, unix_s: float) -> float:
        """Wait until a moment in seconds since 1970 UTC; returns the time then. A program that is replayed waits for what is left."""
        return (await self._gate.call(build(SleepUntil, unix_s=unix_s))).value.unix_s

    async def sleep(self, seconds: float) -> float:
        """Wait so long, ends of the kernel included; returns the time then."""
        return (await self._gate.call(build(SleepUntil, after_s=max(0.0, seconds)))).value.unix_s

    async def add(
        self,
        spawn: Spawn,
        *,
        at_unix_s: float | None = None,
        cron: str = "",
        zone: str = "UTC",
        missed: Missed = "once",
    ) -> TimerInfo:
        """Have a program started at a moment, or by a line of cron in a time zone.

        Raises:
            AccessDenied: Only the owner may.
            InvalidCall: There is no such moment to come, or the line or zone is malformed.
            ResourceExhausted: There are too many.
            Unsupported: The kernel keeps no journal on disk.
        """
        call = build(
            TimerAdd, spawn=spawn, at_unix_s=at_unix_s, cron=cron, zone=zone, missed=missed
        )
        return (await self._gate.call(call)).value

    async def list(self) -> tuple[TimerInfo, ...]:
        """The timers, the next first."""
        return (await self._gate.call(TimerList())).value.timers

    async def remove(self, timer_id: int) -> TimerInfo:
        """Take a timer away; what it started goes on."""
        return (await self._gate.call(build(TimerRemove, id=timer_id))).value

    async def run(self, timer_id: int) -> Spawned:
        """Start its program now, besides its runs."""
        return (await self._gate.call(build(TimerRun, id=timer_id))).value


class BlockingTimers:
    """`Timers` for code that waits."""

    def __init__(self, gate: "BlockingGate") -> None:
        self._gate = gate

    def sleep_until(self, unix_s: float) -> float:
        """Wait until a moment in seconds since 1970 UTC; returns the time then."""
        return self._gate.call(build(SleepUntil, unix_s=unix_s)).value.unix_s

    def sleep(self, seconds: float) -> float:
        """Wait so long, ends of the kernel included; returns the time then."""
        return self._gate.call(build(SleepUntil, after_s=max(0.0, seconds))).value.unix_s

    def add(
        self,
        spawn: Spawn,
        *,
        at_unix_s: float | None = None,
        cron: str = "",
        zone: str = "UTC",
        missed: Missed = "once",
    ) -> TimerInfo:
        """Have a program started at a moment, or by a line of cron; see `Timers.add`."""
        call = build(
            TimerAdd, spawn=spawn, at_unix_s=at_unix_s, cron=cron, zone=zone, missed=missed
        )
        return self._gate.call(call).value

    def list(self) -> tuple[TimerInfo, ...]:
        """The timers, the next first."""
        return self._gate.call(TimerList()).value.timers

    def remove(self, timer_id: int) -> TimerInfo:
        """Take a timer away; what it started goes on."""
        return self._gate.call(build(TimerRemove, id=timer_id)).value

    def run(self, timer_id: int) -> Spawned:
        """Start its program now, besides its runs."""
        return self._gate.call(build(TimerRun, id=timer_id)).value
