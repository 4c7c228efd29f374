"""What two versions of a text differ in, line by line, in a time that has a bound. Pure."""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from difflib import Match, SequenceMatcher
from functools import cached_property
from itertools import accumulate

from msgspec import Struct

from aios.errors import Unsupported

MAX_STEPS = 5_000_000
"""Lines and pairs of equal lines that are looked at for the longest matches: a second or two."""


class Side(Struct, frozen=True):
    """One of two versions that are compared."""

    path: str
    version: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.path} (version {self.version})"

    def lines(self) -> list[str]:
        """Its lines, each with an end.

        Raises:
            Unsupported: It is not UTF-8.
        """
        try:
            lines = self.data.decode().splitlines(keepends=True)
        except UnicodeDecodeError as error:
            raise Unsupported(
                f"{self.path} is no text in UTF-8", hint="compare it outside"
            ) from error
        return [line if line.endswith("\n") else f"{line}\n" for line in lines]


def compare(old: Side, new: Side, *, max_steps: int = MAX_STEPS) -> str:
    """A unified diff; empty if they are the same.

    Of what is too much for `max_steps`, only what is around lines that each has once is told apart, and equal beginnings and ends.

    Raises:
        Unsupported: One of them is not UTF-8.
    """
    before, after = old.lines(), new.lines()
    hunks = list(_hunks(before, after, max_steps))
    return "".join((f"--- {old}\n", f"+++ {new}\n", *hunks)) if hunks else ""


class BoundedMatcher(SequenceMatcher[str]):
    """Finds what difflib does as long as there are steps left, then what lines that are in both texts once say (patience diff).

    difflib alone takes hours for 200 KB of lines that repeat, and minutes where each second line of a long file was changed.
    """

    a: Sequence[str]
    b: Sequence[str]
    b2j: dict[str, list[int]]

    def __init__(self, before: Sequence[str], after: Sequence[str], max_steps: int) -> None:
        super().__init__(None, before, after)
        self._n_left = max_steps
        steps = (1 + len(self.b2j.get(line, ())) for line in before)
        self._n_steps = array("Q", accumulate(steps, initial=0))
        """How many a search takes at most up to each line of `before`."""

    def find_longest_match(
        self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None
    ) -> Match:
        """The longest match of two pieces; one of the others if there are no steps left for it."""
        ahi = len(self.a) if ahi is None else ahi
        bhi = len(self.b) if bhi is None else bhi
        n_steps = self._n_steps[ahi] - self._n_steps[alo]
        if n_steps <= self._n_left:
            self._n_left -= n_steps
            return super().find_longest_match(alo, ahi, blo, bhi)
        for i, j in (*self._anchor(alo, ahi, blo, bhi), (alo, blo), (ahi, bhi)):
            size = 0
            while (
                i - size > alo and j - size > blo and self.a[i - size - 1] == self.b[j - size - 1]
            ):
                size += 1
            start, start_after = i - size, j - size
            while i < ahi and j < bhi and self.a[i] == self.b[j]:
                i, j = i + 1, j + 1
            if i > start:
                return Match(start, start_after, i - start)
        return Match(alo, blo, 0)

    def _anchor(self, alo: int, ahi: int, blo: int, bhi: int) -> Iterator[tuple[int, int]]:
        """The middle one of the anchors in two pieces, if there is any."""
        before, after = self._anchors
        first = max(bisect_left(before, alo), bisect_left(after, blo))
        end = min(bisect_left(before, ahi), bisect_left(after, bhi))
        if first < end:
            middle = (first + end) // 2
            yield before[middle], after[middle]

    @cached_property
    def _anchors(self) -> tuple[list[int], list[int]]:
        """Where lines are that each text has once, in both: as many as are in one order. By patience sorting."""
        where = dict[str, int]()
        for i, line in enumerate(self.a):
            where[line] = -1 if line in where else i
        pairs = [
            (i, self.b2j[line][0])
            for line, i in where.items()
            if i >= 0 and len(self.b2j.get(line, ())) == 1
        ]
        tops, piles, below = list[int](), list[int](), list[int]()
        for n, (_, j) in enumerate(pairs):
            pile = bisect_left(tops, j)
            tops[pile : pile + 1], piles[pile : pile + 1] = [j], [n]
            below.append(piles[pile - 1] if pile else -1)
        chosen, n = list[tuple[int, int]](), piles[-1] if piles else -1
        while n >= 0:
            chosen.append(pairs[n])
            n = below[n]
        chosen.reverse()
        return [i for i, _ in chosen], [j for _, j in chosen]


def _hunks(before: Sequence[str], after: Sequence[str], max_steps: int) -> Iterator[str]:
    """As `difflib.unified_diff`, without the names of the files."""
    for group in BoundedMatcher(before, after, max_steps).get_grouped_opcodes():
        first, last = group[0], group[-1]
        yield f"@@ -{_span(first[1], last[2])} +{_span(first[3], last[4])} @@\n"
        for tag, i, i_end, j, j_end in group:
            if tag == "equal":
                yield from (f" {line}" for line in before[i:i_end])
            else:
                yield from (f"-{line}" for line in before[i:i_end])
                yield from (f"+{line}" for line in after[j:j_end])


def _span(start: int, end: int) -> str:
    """Where a piece is, counted from 1; an empty one is behind the line that it names."""
    size = end - start
    if size == 1:
        return str(start + 1)
    return f"{start + 1 if size else start},{size}"
