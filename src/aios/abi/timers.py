"""The calls about time: waiting for a moment, and programs that are started at one. What they do is `kernel/timers/`."""

from typing import Annotated, Literal

from msgspec import Meta

from aios.abi.call import Answer, Call
from aios.abi.recovery import Moment
from aios.abi.spawn import Spawn, Spawned
from aios.abi.types import MAX_INT, Count

Missed = Literal["skip", "once", "all"]
UnixSeconds = Annotated[float, Meta(ge=0, lt=1e11)]
TimerId = Annotated[int, Meta(ge=1, le=MAX_INT)]


class SleepUntil(Call[Moment], frozen=True, tag="sleep_until"):
    """Wait until the calendar shows a moment, in seconds since 1970 UTC, or until `after_s` seconds after the call began, whichever is later.

    One that is over is answered at once. The answer is the time then. Clocks that are set meanwhile are followed within ten seconds. A program
    that is started again and asks the same waits for what is left.
    """

    unix_s: UnixSeconds = 0.0
    after_s: UnixSeconds = 0.0


class TimerInfo(Answer, frozen=True, tag="timer_info"):
    """A timer. `n_missed` runs were not made, `fault` says why the last one failed.

    `next_unix_s` None: that was the last run, and it was not made. One that was made leaves no timer.
    """

    id: TimerId
    program: str
    args: tuple[str, ...]
    name: str
    cron: str
    zone: str
    missed: Missed
    next_unix_s: float | None
    last_unix_s: float | None = None
    last_pid: int | None = None
    n_runs: Count = 0
    n_failed: Count = 0
    n_missed: Count = 0
    fault: str = ""


class TimerInfos(Answer, frozen=True, tag="timer_infos"):
    """Timers, the next first."""

    timers: tuple[TimerInfo, ...]


class TimerAdd(Call[TimerInfo], frozen=True, tag="timer_add"):
    """Have a program started at a moment (`at_unix_s`), or whenever a line of cron says so, in a time zone by its IANA name.

    `cron` has five fields (minute, hour, day, month, day of the week), or six with seconds first; what daylight saving time skips or doubles is
    run once, as Debian's cron has it. Runs are missed when no kernel is there, or the clock is set forward over them: `skip` leaves them
    out, `once` makes one run of all, `all` makes each, up to `kernel.max_missed_runs`. Only the owner may, on a kernel that keeps a journal on disk.

    Raises:
        InvalidCall: Neither or both moments are given, `cron` or `zone` is malformed, or there is no such moment to come.
        ResourceExhausted: There are `kernel.max_timers`.
        Unsupported: The kernel keeps no journal on disk, so that the timer would end with it.
    """

    spawn: Spawn
    at_unix_s: UnixSeconds | None = None
    cron: Annotated[str, Meta(max_length=256)] = ""
    zone: Annotated[str, Meta(min_length=1, max_length=64)] = "UTC"
    missed: Missed = "once"


class TimerList(Call[TimerInfos], frozen=True, tag="timer_list"):
    """List the timers."""


class TimerRemove(Call[TimerInfo], frozen=True, tag="timer_remove"):
    """Take a timer away; what it started goes on. Returns: how it was.

    Raises:
        NotFound: No such timer.
    """

    id: TimerId


class TimerRun(Call[Spawned], frozen=True, tag="timer_run"):
    """Start the program of a timer now. With `is_due` as its run, if one is due; else besides its runs.

    Raises:
        Conflict: `is_due`, and none is due.
        NotFound: No such timer.
    """

    id: TimerId
    is_due: bool = False
