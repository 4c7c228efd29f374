"""An event loop in which time is a number: it never sleeps, it goes on to the moment of the next timer.

    value = run_virtual(main, on_step=look)     # an hour of the kernel's takes as long as its work does

This is asyncio's own loop with another selector, so callbacks run in asyncio's order, and anyio runs on it unchanged.
"""

import asyncio  # noqa: TID251 - this is the loop below anyio
import selectors
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")

STEP_S = 0.001
"""What a round of callbacks takes at least. Some poll until time has passed: anyio asks a task again and again to end."""

OnStep = Callable[[int], None]
"""Told the number of each step, before its callbacks run."""


class Stuck(RuntimeError):
    """Everybody waits, and there is nothing left that could wake anyone."""


class VirtualSelector(selectors.SelectSelector):
    """Waits for no file: the time to wait is added to the clock."""

    def __init__(self, on_step: OnStep) -> None:
        super().__init__()
        self.now_s = 0.0
        self.n_steps = 0
        self._on_step = on_step

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Go on to the next timer at once; asyncio asks this before each round of callbacks."""
        if timeout is None:
            raise Stuck(f"nothing can happen any more at {self.now_s:.3f} s, step {self.n_steps}")
        self.now_s += max(STEP_S, timeout)
        self.n_steps += 1
        self._on_step(self.n_steps)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Asyncio's loop on a `VirtualSelector`'s clock."""

    def __init__(self, selector: VirtualSelector) -> None:
        self._virtual = selector
        super().__init__(selector)

    def time(self) -> float:
        return self._virtual.now_s


class VirtualClock:
    """The kernel's clock in a simulation; `unix_s` begins at a fixed date.

    Args:
        selector: Whose time it shows.
        begun_unix_s: The calendar at time 0.
    """

    def __init__(self, selector: VirtualSelector, begun_unix_s: float = 1.7e9) -> None:
        self._selector = selector
        self._begun_unix_s = begun_unix_s

    def now_s(self) -> float:
        return self._selector.now_s

    def unix_s(self) -> float:
        return self._begun_unix_s + self._selector.now_s


def run_virtual(main: Callable[[], Awaitable[T]], selector: VirtualSelector) -> T:
    """Run an async function in virtual time.

    Raises:
        Stuck: It waits for what cannot happen.
    """
    return anyio.run(main, backend_options={"loop_factory": lambda: VirtualLoop(selector)})
