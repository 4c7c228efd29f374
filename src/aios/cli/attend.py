"""Stay with processes until they have ended: their lines as they come, their ends, and Ctrl-C."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import anyio.abc
from msgspec import Struct

from aios.abi.calls import Exited, Kill, Logs, Wait
from aios.abi.gate import Gate, Progress
from aios.abi.types import Exit, Pid
from aios.cli.ending import ending_signals
from aios.cli.gates import open_async_gate
from aios.errors import AiosError, Conflict, NotFound, ResourceExhausted
from aios.sdk.address import Address

MAX_ATTENDED = 50
"""Processes followed at once, by two calls each; the owner may have 256 in flight. The logs of the others wait."""
RETRY_S = 1.0
"""How long to wait when other commands have used up the owner's calls."""


@dataclass
class Interrupts:
    """Ctrl-C, SIGTERM and SIGHUP: the first asks to end the processes, the second cancels everything at once."""

    scope: anyio.CancelScope
    number: int = 0
    """The first signal that came, or 0."""
    first: anyio.Event = field(default_factory=anyio.Event)

    async def watch(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Take signals until cancelled."""
        with anyio.open_signal_receiver(*ending_signals()) as signals:
            task_status.started()
            async for number in signals:
                self.take(number)

    def take(self, number: int) -> None:
        """A signal came."""
        if self.number:
            self.scope.cancel()
        else:
            self.number = number
            self.first.set()


class Attendance(Struct, frozen=True):
    """Some processes that a command started.

    Args:
        gate: The way to their kernel.
        names: Their names by pid.
        interrupts: When the first comes, the processes are ended.
        on_frame: Takes the lines of their logs.
        on_end: Takes the end of each.
    """

    gate: Gate
    names: Mapping[Pid, str]
    interrupts: Interrupts
    on_frame: Callable[[Progress], None]
    on_end: Callable[[Pid, Exit], None]

    async def attend(self) -> None:
        """Return when all have ended."""
        places = anyio.CapacityLimiter(MAX_ATTENDED)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._kill_when_interrupted)
            async with anyio.create_task_group() as processes:
                for pid in self.names:
                    processes.start_soon(self._attend_one, pid, places)
            tasks.cancel_scope.cancel()

    async def _attend_one(self, pid: Pid, places: anyio.CapacityLimiter) -> None:
        # Both calls are in flight before the process ends, so a kernel that ends with it needs to take no new call.
        async with places:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._follow, pid)
                exited = await self._wait(pid)
            self.on_end(pid, exited.exit)

    async def _follow(self, pid: Pid) -> None:
        while True:
            try:
                return await follow(self.gate, Logs(pid=pid, follow=True), self.on_frame)
            except ResourceExhausted as full:  # refused before its first line
                await anyio.sleep(full.retry_after_s or RETRY_S)

    async def _wait(self, pid: Pid) -> Exited:
        while True:
            try:
                return (await self.gate.call(Wait(pid=pid))).value
            except ResourceExhausted as full:
                await anyio.sleep(full.retry_after_s or RETRY_S)

    async def _kill_when_interrupted(self) -> None:
        await self.interrupts.first.wait()
        async with anyio.create_task_group() as tasks:
            for pid in self.names:
                tasks.start_soon(self._kill, pid)

    async def _kill(self, pid: Pid) -> None:
        with suppress(Conflict, NotFound):  # it was quicker
            await self.gate.call(Kill(pid=pid, reason="interrupted"))


async def follow(gate: Gate, call: Logs, on_frame: Callable[[Progress], None]) -> None:
    """Read the frames of a `logs` call to its end."""
    async with gate.open_call(call) as frames:
        async for frame in frames:
            on_frame(frame)


async def follow_all(
    address: Address, calls: list[Logs], on_frame: Callable[[Progress], None]
) -> None:
    """Read several logs of a kernel at once, each to its end.

    Raises:
        AiosError: The first of the errors that ended it: the kernel has gone, say.
    """
    errors: list[AiosError] = []

    async def follow_one(call: Logs) -> None:
        try:
            await follow(gate, call, on_frame)
        except AiosError as error:
            errors.append(error)
            tasks.cancel_scope.cancel()

    async with open_async_gate(address) as gate, anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(follow_one, call)
    if errors:
        raise errors[0]
