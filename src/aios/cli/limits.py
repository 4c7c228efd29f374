"""Limits as they are typed: `completion_tokens=2000`, or `calls=+10` for ten more."""

from collections.abc import Sequence

import msgspec

from aios.abi.budget import Limits, Spent
from aios.errors import InvalidCall

LIFTED = "none"
NOTHING = Spent()


def parse_limits(words: Sequence[str], start: Limits = Limits(), used: Spent = NOTHING) -> Limits:
    """Limits from words of the form WHAT=N, where N is a number, `+` and a number for so many more, or `none`; what no word names stays as in `start`.

    Where there is no limit, so many more are counted from what is `used`.

    Raises:
        InvalidCall: A word is none, or names something that has no limit.
    """
    given: dict[str, int | None] = {}
    for word in words:
        name, separator, value = word.partition("=")
        known = Limits.__struct_fields__
        if (
            not separator
            or name not in known
            or not (value.removeprefix("+").isdecimal() or value == LIFTED)
        ):
            raise InvalidCall(
                f"{word!r} is no limit",
                hint=f"say WHAT=N, WHAT=+N or WHAT={LIFTED}; WHAT is {', '.join(known)}",
            )
        before = getattr(start, name)
        if not value.startswith("+"):
            before = 0
        elif before is None:
            before = getattr(used, name)
        given[name] = None if value == LIFTED else before + int(value)
    return msgspec.structs.replace(start, **given)
