"""When a program is to be started: `aios run --at TIME` and `--every CRON`, in the time zone that the user lives in."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta, tzinfo
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, get_args

import click
from msgspec import Struct

from aios.abi.timers import Missed
from aios.cli.durations import parse_duration
from aios.kernel.clock import SystemClock

P = ParamSpec("P")
R = TypeVar("R")

LOCAL_TIME = Path("/etc/localtime")
SUCH_AS = "2026-11-27T09:00, 18:30 or +90m"


class When(Struct, frozen=True):
    """A moment, as its text, or a line of cron; and what becomes of missed runs."""

    at: str | None
    every: str | None
    zone: str
    missed: Missed

    def at_unix_s(self, now_unix_s: float) -> float | None:
        """The moment in seconds since 1970 UTC; None for a line of cron.

        Raises:
            click.UsageError: Both are given, the text names no moment, or the line of cron is empty.
        """
        if self.at is not None and self.every is not None:
            raise click.UsageError("--at and --every exclude each other")
        if self.every is not None and not self.every.strip():
            raise click.UsageError('--every is empty: say "30 6 * * MON-FRI" or @daily')
        return None if self.at is None else moment(self.at, self.zone, now_unix_s)


def when_options(command: Callable[Concatenate[When | None, P], R]) -> Callable[P, R]:
    """Options that become the first argument of a command: None where no time is given."""
    options = (
        click.option(
            "--at",
            metavar="TIME",
            help="Start it then: 2026-11-27T09:00, 18:30 (the next), +90m; starts `aios serve` if need be.",
        ),
        click.option(
            "--every",
            metavar="CRON",
            help='Start it again and again: minute hour day month weekday, "30 6 * * MON-FRI".',
        ),
        click.option(
            "--zone", help="The time zone of TIME and CRON; default: that of this machine."
        ),
        click.option(
            "--missed",
            type=click.Choice(get_args(Missed)),
            help="Runs missed while no kernel was there: left out, made once for all (the default), or each made.",
        ),
    )

    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        at, every, zone, missed = (kwargs.pop(name) for name in ("at", "every", "zone", "missed"))
        return command(_when(at, every, zone, missed), *args, **kwargs)  # type: ignore[arg-type]  # click checked them

    for option in reversed(options):
        wrapped = option(wrapped)
    wrapped.__doc__ = command.__doc__
    wrapped.__name__ = command.__name__
    if hasattr(command, "__click_params__"):
        wrapped.__click_params__ += command.__click_params__  # type: ignore[attr-defined]  # click puts them there
    return wrapped


def _when(
    at: str | None, every: str | None, zone: str | None, missed: Missed | None
) -> When | None:
    """What the options say; an empty text is a time too, which is refused later and is not taken as "now"."""
    if at is not None or every is not None:
        return When(at, every, zone or local_zone(), missed or "once")
    if zone is not None or missed is not None:
        raise click.UsageError("--zone and --missed need --at or --every")
    return None


def moment(text: str, zone: str, now_unix_s: float) -> float:
    """A moment that a user names, in seconds since 1970 UTC.

    A date and time in ISO 8601, a time of day (the next such), or `+` and a duration. Of a time that comes twice the first is meant; one that
    the clock skips is taken as if it had not been set yet, so it falls behind the gap.

    Raises:
        click.UsageError: It names none, or one that is over.
    """
    try:
        found = _found(text, zone, now_unix_s)
    except (ValueError, KeyError, OSError) as error:
        raise click.UsageError(f"--at {text} --zone {zone}: {error}; say {SUCH_AS}") from error
    if found <= now_unix_s:
        raise click.UsageError(f"--at {text}: that is over")
    return found


class Moment(click.ParamType[float]):
    """A moment as for `--at`, in the zone of this machine; it may be over."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it, or refuse it as click does."""
        if isinstance(value, float):
            return value
        try:
            return _found(str(value), local_zone(), SystemClock().unix_s())
        except (ValueError, KeyError, OSError):
            self.fail(f"{value!r} is no time: say {SUCH_AS}", param, ctx)


def _found(text: str, zone: str, now_unix_s: float) -> float:
    """Raises: `KeyError`, `ValueError` or `OSError`; it names no moment."""
    now = datetime.fromtimestamp(now_unix_s, _zone(zone))
    if text.startswith("+"):
        return now_unix_s + parse_duration(text[1:])
    return _read(text, now).timestamp()


def _read(text: str, now: datetime) -> datetime:
    if "T" not in text and " " not in text and ":" in text:
        of_day = time.fromisoformat(text)
        if of_day.tzinfo is not None:
            raise ValueError("a time of day has no zone of its own")
        today = datetime.combine(now.date(), of_day, now.tzinfo)
        return today if today > now else today + timedelta(days=1)
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=now.tzinfo)


def local_zone() -> str:
    """The IANA name of the zone of this machine; UTC if it cannot be told."""
    candidates = [os.environ.get("TZ", "").removeprefix(":")]
    parts = LOCAL_TIME.resolve().parts
    if "zoneinfo" in parts:
        candidates.append("/".join(parts[parts.index("zoneinfo") + 1 :]))
    return next((name for name in candidates if name and _is_zone(name)), "UTC")


def shown(unix_s: float | None, zone: str = "") -> str:
    """A moment in a time zone, else (also if there is none of that name) in that of this machine, to the second."""
    if unix_s is None:
        return "-"
    where = _zone(zone if _is_zone(zone) else local_zone())
    return datetime.fromtimestamp(unix_s, UTC).astimezone(where).strftime("%Y-%m-%d %H:%M:%S")


def _zone(name: str) -> tzinfo:
    """Raises: `KeyError`, `ValueError` or `OSError`; there is none of that name."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - start-up time

    return ZoneInfo(name)


def _is_zone(name: str) -> bool:
    try:
        _zone(name)
    except (KeyError, ValueError, OSError):
        return False
    return True
