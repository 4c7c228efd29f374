"""What runs behind a program's process over all its lives, and what it waits for between two of them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVarTuple

import anyio
from msgspec.structs import replace

from aios.abi.recovery import Choice, Question
from aios.abi.types import Exit
from aios.errors import DiskFailed, ResourceExhausted
from aios.kernel.process import Process
from aios.kernel.recovery import STEADY_S, Life
from aios.kernel.residents import Launched

Ts = TypeVarTuple("Ts")

DISK_PAUSE_S = 1.0
"""Between two tries at a disk that takes nothing."""


@dataclass(eq=False)
class Body:
    """What runs behind a process, over all its lives."""

    launched: Launched
    wants_fresh: bool = False
    is_taken_in: bool = False
    """From the kernel before."""
    question: Question | None = None
    answered: anyio.Event = field(default_factory=anyio.Event)
    choice: Choice | None = None

    def ask(self, question: Question) -> None:
        """Its owner is to be asked."""
        self.question, self.choice, self.answered = question, None, anyio.Event()

    def decide(self, choice: Choice) -> None:
        """The owner has answered its question."""
        self.question, self.choice = None, choice
        self.answered.set()

    def life(self, process: Process, end: Exit, ran_s: float) -> Life:
        """How its program ran this time."""
        asked = process.exiting
        return Life(
            end,
            ran_s,
            self.launched.n_crashes,
            is_ended_on_purpose=asked is not None,
            is_killed=process.is_terminated or (asked is not None and bool(asked.reason)),
            wants_fresh=self.wants_fresh,
        )

    def count(self, n_crashes: int) -> None:
        """So often it has crashed in a row."""
        self.launched = replace(self.launched, n_crashes=n_crashes)

    async def steady(self, scope: anyio.CancelScope, changed: Callable[[], None]) -> None:
        """Count its crashes anew once its program runs long enough: also for the next kernel, which does not know how long it ran."""
        with scope:
            if self.launched.n_crashes:
                await anyio.sleep(STEADY_S)
                self.count(0)
                changed()


async def waited(
    process: Process, wait: Callable[[*Ts], Awaitable[object]], *args: *Ts, why: str
) -> bool:
    """Wait; a kill of the process ends that. Returns: whether the wait is over by itself."""
    if process.exiting is not None:  # it was killed before
        return False
    with anyio.CancelScope() as scope:
        process.on_kill, process.waits_for = scope.cancel, why
        await wait(*args)
    process.on_kill, process.waits_for = None, ""
    return not scope.cancel_called


async def with_disk(process: Process, act: Callable[[], Awaitable[object]]) -> bool:
    """Do what must be on disk before a program is started, again until the disk takes it; a kill of the process ends that.

    Returns: Whether it is done.
    """
    while True:
        try:
            await act()
        except (DiskFailed, ResourceExhausted):
            if not await waited(process, anyio.sleep, DISK_PAUSE_S, why="waits for the disk"):
                return False
        else:
            return True
