"""When a timer runs next, and what becomes of runs that were missed. Pure.

Lines of cron are read and stepped by cronsim, which follows Debian's cron: a job at a fixed time that the start of daylight saving time skips
runs right after it, and one in the hour that comes twice runs once. Moments are seconds since 1970 UTC, so the
clock of a zone decides when a run is due, and never in which order.
"""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError
from msgspec import Struct

from aios.abi.spawn import Spawn
from aios.abi.timers import Missed, TimerInfo
from aios.errors import InvalidCall

SET_BACK_S = 3 * 3600.0
"""A clock that was set back by more was wrong before: lines of cron count anew. By less: nothing runs twice. So does cron(8) of Debian."""
MAX_COUNTED = 10_000
"""Missed runs that are counted; a line of cron can miss 31 million in a year."""
NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * SUN",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""The lines that crontab(5) has names for."""


class TimerRow(Struct, frozen=True):
    """A timer as it is kept."""

    id: int
    spawn: Spawn
    set_unix_s: float
    next_unix_s: float | None
    cron: str = ""
    zone: str = "UTC"
    missed: Missed = "once"
    last_unix_s: float | None = None
    """The moment for which it last ran."""
    last_pid: int | None = None
    n_runs: int = 0
    n_failed: int = 0
    n_missed: int = 0
    fault: str = ""

    @property
    def is_done(self) -> bool:
        """It runs no more, and nobody need be told why: what has failed or was left out stays until its owner has seen it."""
        return self.next_unix_s is None and self.n_runs > 0 and not self.fault

    def info(self) -> TimerInfo:
        """The timer as it is shown: without the environment of its program, which may hold secrets."""
        return TimerInfo(
            self.id, self.spawn.program, self.spawn.args, self.spawn.name or "", self.cron, self.zone,
            self.missed, self.next_unix_s, self.last_unix_s, self.last_pid, self.n_runs, self.n_failed,
            self.n_missed, self.fault,
        )  # fmt: skip


class Step(Struct, frozen=True):
    """What is done about a timer that is due: whether it runs, and how it is kept when that is done; see `TimerRow.next_unix_s`."""

    is_run: bool
    after: TimerRow


def in_zone(unix_s: float, zone: str) -> datetime:
    """A moment on the clock of a zone.

    Raises:
        InvalidCall: There is no such zone, or it has no such moment.
    """
    try:
        return datetime.fromtimestamp(unix_s, ZoneInfo(zone))
    except (KeyError, ValueError, OSError, OverflowError) as error:
        raise InvalidCall(
            f"no time zone {zone!r}, or no time that it has", hint="say Europe/Berlin, or UTC"
        ) from error


def following(cron: str, zone: str, after_unix_s: float) -> float | None:
    """The first moment of a line of cron behind another; None if there is none for 50 years.

    Raises:
        InvalidCall: The line or the zone is malformed.
    """
    try:
        return next(_moments(cron, zone, after_unix_s), None)
    except (CronSimError, ValueError, OverflowError) as error:
        raise InvalidCall(
            f"{cron!r} is no line of cron: {error}",
            hint='minute, hour, day, month, day of the week: "30 6 * * MON-FRI"; or @hourly, @daily, @weekly, @monthly, @yearly',
        ) from error


def _moments(cron: str, zone: str, after_unix_s: float) -> Iterator[float]:
    """The moments of a line of cron behind another, in order, for 50 years."""
    last_unix_s = after_unix_s
    for found in CronSim(NAMED.get(cron, cron), in_zone(after_unix_s, zone)):
        if found.timestamp() > last_unix_s:
            last_unix_s = found.timestamp()
            yield last_unix_s


def step(timer: TimerRow, now_unix_s: float, *, grace_s: float, max_missed: int) -> Step | None:
    """What is to be done about a timer now; None if it is not due.

    Args:
        timer: How it is kept.
        now_unix_s: The calendar's time.
        grace_s: A run that is later is missed.
        max_missed: Missed runs that the policy `all` makes; older ones are left out.
    """
    if timer.next_unix_s is None or timer.next_unix_s > now_unix_s:
        return None
    due = _due(timer, now_unix_s, max(1, max_missed))
    if timer.missed == "all":
        n_left_out = max(0, len(due) - max(1, max_missed))
        at_unix_s = due[n_left_out]
        return _stepped(timer, at_unix_s, n_missed=n_left_out, behind=at_unix_s)
    is_run = timer.missed == "once" or now_unix_s - due[-1] <= grace_s
    n_missed = len(due) - is_run
    return _stepped(timer, due[-1], n_missed=n_missed, behind=now_unix_s, is_run=is_run)


def set_right(timer: TimerRow, now_unix_s: float) -> TimerRow | None:
    """A timer whose clock was wrong when it last ran or was set, counted anew from now; None if it was right."""
    known_unix_s = max(timer.set_unix_s, timer.last_unix_s or 0.0)
    if not timer.cron or known_unix_s <= now_unix_s + SET_BACK_S:
        return None
    return msgspec.structs.replace(
        timer,
        set_unix_s=now_unix_s,
        last_unix_s=None,
        next_unix_s=following(timer.cron, timer.zone, now_unix_s),
    )


def _due(timer: TimerRow, now_unix_s: float, n_last: int) -> list[float]:
    """The moments up to now for which it did not run. Of more than `MAX_COUNTED`, so many: the first ones, and the last `n_last`.

    Cost: 0.1 s for a line that runs each minute, and was missed so often.
    """
    assert timer.next_unix_s is not None, "it is not due"
    if not timer.cron:
        return [timer.next_unix_s]

    def until_now(after_unix_s: float) -> Iterator[float]:
        return takewhile(now_unix_s.__ge__, _moments(timer.cron, timer.zone, after_unix_s))

    due = [timer.next_unix_s, *islice(until_now(timer.next_unix_s), MAX_COUNTED)]
    if len(due) > MAX_COUNTED:
        line, now = NAMED.get(timer.cron, timer.cron), in_zone(now_unix_s, timer.zone)
        back = list(islice(CronSim(line, now, reverse=True), n_last + 1))
        last = list(until_now(back[-1].timestamp() - 1.0))[-n_last:]
        due[MAX_COUNTED - len(last) :] = last
    return due


def _stepped(
    timer: TimerRow, at_unix_s: float, *, n_missed: int, behind: float, is_run: bool = True
) -> Step:
    after = msgspec.structs.replace(
        timer,
        next_unix_s=following(timer.cron, timer.zone, behind) if timer.cron else None,
        last_unix_s=at_unix_s if is_run else timer.last_unix_s,
        n_runs=timer.n_runs + is_run,
        n_missed=timer.n_missed + n_missed,
    )
    return Step(is_run, after)
