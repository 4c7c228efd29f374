"""The kernel's two clocks: one that only grows, for durations, and the calendar, for people."""

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time; tests pass one that they move by hand."""

    def now_s(self) -> float:
        """Seconds that only grow, from an arbitrary start."""
        ...

    def unix_s(self) -> float:
        """Seconds since 1970 UTC; may jump."""
        ...


class SystemClock:
    """The clocks of the operating system."""

    def now_s(self) -> float:
        return time.monotonic()

    def unix_s(self) -> float:
        return time.time()  # noqa: TID251 - the one place that reads the calendar
