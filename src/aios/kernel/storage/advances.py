"""How far a long call is, told from the thread that does it."""

from collections.abc import Callable

import anyio.from_thread

from aios.abi.gate import Advance
from aios.kernel.clock import Clock
from aios.kernel.process import Run

EVERY_S = 0.2

Report = Callable[[str, int, int | None], None]
"""What is being done, how much of it is done, and of how much, if that is known."""


def silent(_what: str, _n_done: int, _n_total: int | None) -> None:
    """For who does not want to know."""


def reporter(run: Run, clock: Clock) -> Report:
    """Send advances of a call to its reader, from a thread, a few times a second at most."""
    emit = run.emit
    if emit is None:
        return silent
    last_s = -EVERY_S

    def report(what: str, n_done: int, n_total: int | None) -> None:
        nonlocal last_s
        now_s = clock.now_s()
        if now_s - last_s >= EVERY_S or n_done == n_total:
            last_s = now_s
            anyio.from_thread.run_sync(emit, Advance(what, n_done, n_total))

    return report
