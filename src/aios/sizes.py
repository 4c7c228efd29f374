"""Sizes as people write them: `500kB`, `1.5 GB`, `64MiB`, `2k`, `4096`. Pure.

k, M, G and T are powers of 1,000, with or without a B behind them; with an i (KiB, Mi) they are powers of 1,024. Capitals do not matter, but for what
could be bits: `Mb` is refused, `mb` and `MB` are megabytes.
"""

import re
from collections.abc import Mapping
from decimal import Decimal

LARGEST_BYTES = 2**63 - 1
LETTERS = "kmgtp"
SAY = "say 4096, 500kB, 64MiB or 1.5GB"

_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([A-Za-z]{0,5})")
_UNIT = re.compile(rf"(?:([{LETTERS}])(i?))?(?:b|bytes?)?")


def parse_size(text: str) -> int:
    """A size in bytes; part of a byte is dropped.

    Raises:
        ValueError: It is no size, is larger than `LARGEST_BYTES`, or may be one of bits; the message says how sizes are written.
    """
    size = _SIZE.fullmatch(text.strip())
    unit = _UNIT.fullmatch(size[2].lower()) if size else None
    if size is None or unit is None:
        raise ValueError(f"{text!r} is no size: {SAY}")
    if size[2].endswith("b") and not size[2].islower():
        raise ValueError(f"{text!r} could be bits: {SAY}")
    power = LETTERS.index(unit[1]) + 1 if unit[1] else 0
    if "." in size[1] and not power:
        raise ValueError(f"{text!r} is part of a byte: {SAY}")
    found = int(Decimal(size[1]) * (1024 if unit[2] else 1000) ** power)
    if found > LARGEST_BYTES:
        raise ValueError(f"{text!r} is more than any disk has: {SAY}")
    return found


def sized(table: Mapping[str, object], *inner: str) -> dict[str, object]:
    """A table of TOML with its sizes as numbers: the texts under its keys that end in `_bytes`, and those in its tables named `inner`.

    Raises:
        ValueError: One is no size; the message names the key.
    """
    found = dict(table)
    for key, value in table.items():
        if isinstance(value, str) and key.endswith("_bytes"):
            try:
                found[key] = parse_size(value)
            except ValueError as error:
                raise ValueError(f"`{key}`: {error}") from error
        elif isinstance(value, dict) and key in inner:
            found[key] = sized(value)
    return found
