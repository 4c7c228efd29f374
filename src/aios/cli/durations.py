"""Durations as people write them: `45s`, `30m`, `1h30m`, `7d`, `2w`."""

import re
from collections.abc import Mapping
from types import MappingProxyType

import click

UNITS_S: Mapping[str, int] = MappingProxyType(
    {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
)
LONGEST_S = 36_500 * 86_400
LONGEST_WAIT_S = 7 * 86_400
SAY = "say 45s, 30m, 1h30m, 7d or 2w"

_PART = re.compile(rf"([0-9]{{1,12}})([{''.join(UNITS_S)}])")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")


def parse_duration(text: str) -> float:
    """A duration in seconds, of 1 s to 100 years.

    Raises:
        ValueError: It is none; the message says how they are written.
    """
    if _DURATION.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no duration: {SAY}")
    found = sum(int(n) * UNITS_S[unit] for n, unit in _PART.findall(text))
    if not 0 < found <= LONGEST_S:
        raise ValueError(f"{text!r} is not between 1 s and 100 years: {SAY}")
    return float(found)


class Duration(click.ParamType[float]):
    """A duration such as 30m, in seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it, or refuse it as click does."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Seconds(click.ParamType[float]):
    """How long to wait: seconds such as 60 or 0.5, or a duration such as 5m; at most as long as a call may take."""

    name = "seconds"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it, or refuse it as click does."""
        text = str(value)
        try:
            found = float(text) if _NUMBER.fullmatch(text) else parse_duration(text)
        except ValueError:
            self.fail(f"{text!r} is no time to wait: say 60, 0.5, 5m or 1h30m", param, ctx)
        if not 0 < found <= LONGEST_WAIT_S:
            self.fail(f"{text!r} is not between 0 and 7 days", param, ctx)
        return found
