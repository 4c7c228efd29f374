"""Limits as they are typed: `completion_tokens=2000`, `written_bytes=10MB`, or `calls=+10` for ten more."""

from collections.abc import Sequence

import msgspec

from aios.abi.budget import Limits, Spent
from aios.errors import InvalidCall
from aios.sizes import parse_size

LIFTED = "none"
MAX_DIGITS = 15
NOTHING = Spent()


def parse_limits(words: Sequence[str], start: Limits = Limits(), used: Spent = NOTHING) -> Limits:
    """Limits from words of the form WHAT=N, where N is a number, `+` and a number for so many more, or `none`; what no word names stays as in `start`.

    Bytes may be a size such as 10MB.

    Where there is no limit, so many more are counted from what is `used`.

    Raises:
        InvalidCall: A word is none, or names something that has no limit.
    """
    given: dict[str, int | None] = {}
    for word in words:
        name, separator, value = word.partition("=")
        known = Limits.__struct_fields__
        n = _number(name, value.removeprefix("+"))
        if not separator or name not in known or (n is None and value != LIFTED):
            raise InvalidCall(
                f"{word!r} is no limit",
                hint=f"say WHAT=N, WHAT=+N or WHAT={LIFTED}; WHAT is {', '.join(known)}",
            )
        before = getattr(start, name)
        if not value.startswith("+"):
            before = 0
        elif before is None:
            before = getattr(used, name)
        given[name] = None if n is None else before + n
    return msgspec.structs.replace(start, **given)


def _number(name: str, text: str) -> int | None:
    """What a text says; None if that is no number."""
    if not name.endswith("_bytes"):
        return int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else None
    try:
        return parse_size(text)
    except ValueError:
        return None
