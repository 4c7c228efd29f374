"""Cuts the lines of a text into passages: what is compared with a query, and what a hit points at. Pure.

A passage has about `TARGET_CHARS`: long enough to say what it is about, short enough that one vector can. A cut comes at an empty line
or before a heading if there is one in the second half, else between two lines; a longer line is cut inside.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct

TARGET_CHARS = 1_000


class Passage(Struct, frozen=True):
    """The lines `first` to `last` of a text, counted from 1."""

    first: int
    last: int
    text: str


def cut(lines: Sequence[str]) -> Iterator[Passage]:
    """Every line that is not empty lies in just one passage, or in several if it is long; in their order. Cost: linear."""
    begin, n_chars, good = 0, 0, 0
    for number, line in enumerate(lines):
        if len(line) > TARGET_CHARS:
            yield from _passage(lines, begin, number)
            yield from _pieces(line, number + 1)
            begin, n_chars, good = number + 1, 0, 0
            continue
        if n_chars + len(line) > TARGET_CHARS:
            end = good if good > begin else number
            yield from _passage(lines, begin, end)
            begin, good = end, 0
            n_chars = sum(len(each) + 1 for each in lines[begin:number])
        if n_chars > TARGET_CHARS // 2 and line.startswith("#"):
            good = number
        n_chars += len(line) + 1
        if n_chars > TARGET_CHARS // 2 and not line.strip():
            good = number + 1
    yield from _passage(lines, begin, len(lines))


def _passage(lines: Sequence[str], begin: int, end: int) -> Iterator[Passage]:
    while begin < end and not lines[begin].strip():
        begin += 1
    while end > begin and not lines[end - 1].strip():
        end -= 1
    if begin < end:
        yield Passage(begin + 1, end, "\n".join(lines[begin:end]))


def _pieces(line: str, number: int) -> Iterator[Passage]:
    for at in range(0, len(line), TARGET_CHARS):
        if piece := line[at : at + TARGET_CHARS].strip():
            yield Passage(number, number, piece)
