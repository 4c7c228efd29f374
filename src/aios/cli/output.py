"""What commands write: aligned columns and JSON lines, and how numbers look."""

import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import click
import msgspec
from msgspec import Struct

GAP = "  "
MIN_WORDS_CHARS = 8
"""Of a column of words that is cut, so that something is left to tell its rows apart by."""
BLANKS = "\u115f\u1160\u2800\u3164\uffa0"
"""What looks like a space, though it counts as a letter or a sign."""
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400

_COLOR = r"\x1b\[[0-9;]{0,32}m"
_UNSAFE = re.compile(rf"({_COLOR})|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Text of a program or a model without the control characters that could take a terminal over; colours may stay."""
    return _UNSAFE.sub(lambda match: match[1] or "", text)


def agreed(question: str, *, unasked: str) -> bool:
    """Whether somebody at the terminal says yes; where nobody sits there, `unasked` is told."""
    if sys.stdin.isatty():
        with suppress(click.Abort):
            return click.confirm(question, default=False, err=True)
        click.echo(err=True)  # behind the question
    click.echo(unasked, err=True)
    return False


def legible(text: str) -> str:
    """Text by which somebody decides: each character that is not seen, or that changes how others are seen, as its number.

    A program could else hide what it asks for behind a colour, or have a terminal show it in another order.
    """
    return "".join(map(_legible, text))


def _legible(char: str) -> str:
    if (char.isprintable() and char not in BLANKS) or char in "\n\t":
        return char
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"


def write_json(value: object) -> None:
    """One JSON value on one line of stdout."""
    click.echo(msgspec.json.encode(value).decode())


class Column(Struct, frozen=True):
    """One column of a table; numbers stand right."""

    title: str
    is_number: bool = False


def write_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], *, fits: bool = True
) -> None:
    """Aligned columns on stdout, two spaces between them. A cell may hold colours: its width is that of its text.

    On a terminal, words are cut with an ellipsis where the lines would be wider than it, unless not `fits`; numbers never are, and in a pipe nothing is.
    """
    titles = [click.style(column.title, bold=True) for column in columns]
    widths = [
        max(len(click.unstyle(row[i])) for row in [titles, *rows]) for i in range(len(columns))
    ]
    if fits and sys.stdout.isatty():
        from shutil import get_terminal_size  # noqa: PLC0415 - start-up time

        widths = fitting(columns, widths, get_terminal_size().columns)
    for row in [titles, *rows]:
        cells = [
            _pad(cell, widths[i], is_number=columns[i].is_number) for i, cell in enumerate(row)
        ]
        click.echo(GAP.join(cells).rstrip())


def fitting(columns: Sequence[Column], widths: Sequence[int], n_chars: int) -> list[int]:
    """The widths of columns whose lines fit into so many characters: the widest columns of words give, each down to its title at most."""
    found = list(widths)
    over = sum(found) + len(GAP) * (len(found) - 1) - n_chars
    while over > 0:
        rooms = [
            0 if column.is_number else width - max(len(column.title), MIN_WORDS_CHARS)
            for column, width in zip(columns, found, strict=True)
        ]
        widest = max(
            (i for i, room in enumerate(rooms) if room > 0), key=found.__getitem__, default=None
        )
        if widest is None:
            break
        found[widest] -= 1
        over -= 1
    return found


def _pad(cell: str, width: int, *, is_number: bool) -> str:
    text = click.unstyle(cell)
    if len(text) > width:
        return f"{text[: width - 1]}…"
    space = " " * (width - len(text))
    return space + cell if is_number else cell + space


def shortened(text: str, n_chars: int) -> str:
    """At most so many characters of a text; three points stand for the rest."""
    return text if len(text) <= n_chars else text[: n_chars - 3] + "..."


def counted(n: int, one: str, many: str = "", *, is_short: bool = False) -> str:
    """A number with its noun: `1 file`, `2 files`; `many` is the plural of a noun that takes more than an s."""
    noun = one if n == 1 else many or f"{one}s"
    return f"{short_count(n) if is_short else n} {noun}"


def short_count(n: int) -> str:
    """A count in at most five characters: 999, 1.2k, 34k, 1.2M."""
    if n < 1000:
        return str(n)
    for limit, unit in ((1_000_000, "k"), (1_000_000_000, "M")):
        if n < limit * 0.9995:
            scaled = n / (limit / 1000)
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return f"{n / 1e9:.1f}G"


def short_seconds(seconds: float) -> str:
    """A duration as one reads it at a glance: 0.2s, 42s, 3m05s, 2h10m, 4d03h."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{whole}s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S}m{whole % MINUTE_S:02d}s"
    if whole < DAY_S:
        return f"{whole // HOUR_S}h{whole % HOUR_S // MINUTE_S:02d}m"
    return f"{whole // DAY_S}d{whole % DAY_S // HOUR_S:02d}h"


def moment(unix_s: float) -> str:
    """A moment in local time, to the second."""
    return datetime.fromtimestamp(unix_s).astimezone().isoformat(" ", "seconds")[:19]


def short_size(n_bytes: float) -> str:
    """A size in decimal units: 98.4 MB."""
    for unit in ("B", "kB", "MB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"
