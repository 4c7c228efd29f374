"""What a bench reports: rows with a figure, its baseline, the bar it must clear and whether it does. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from msgspec import Struct

SIGNIFICANT_DIGITS = 4


class Row(Struct, frozen=True, kw_only=True):
    """One measured figure; one line of `aios bench --json`.

    `ratio` is value / baseline. `ok` is false when the bar is missed or the figure could not be taken; `note` says why.
    `spread` is (largest - smallest) / median over the repeats.
    """

    bench: str
    row: str
    value: float | None = None
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    bar: str | None = None
    ok: bool = False
    spread: float | None = None
    note: str = ""


class Bar(Struct, frozen=True):
    """A limit on the value, or on the ratio to the baseline."""

    limit: float
    is_minimum: bool = False
    on_ratio: bool = False

    def is_cleared(self, value: float, ratio: float | None) -> bool:
        """Whether a figure clears it; a missing ratio does not."""
        figure = ratio if self.on_ratio else value
        if figure is None:
            return False
        return figure >= self.limit if self.is_minimum else figure <= self.limit

    def __str__(self) -> str:
        side = ">=" if self.is_minimum else "<="
        return f"{'ratio ' if self.on_ratio else ''}{side} {self.limit:g}"


class Spec(Struct, frozen=True):
    """A row that a bench will bring."""

    bench: str
    row: str
    unit: str
    bar: Bar | None = None
    about: str = ""

    def measured(
        self,
        value: float,
        *,
        baseline: float | None = None,
        spread: float | None = None,
        note: str = "",
        is_whole: bool = True,
    ) -> Row:
        """The row for a figure. The bar is judged before rounding; nothing is ok that is not whole."""
        ratio = value / baseline if baseline else None
        ok = is_whole and (self.bar is None or self.bar.is_cleared(value, ratio))
        return Row(
            bench=self.bench,
            row=self.row,
            value=rounded(value),
            unit=self.unit,
            baseline=rounded(baseline),
            ratio=rounded(ratio),
            bar=self.limit,
            ok=ok,
            spread=None if spread is None else round(spread, 3),
            note=note,
        )

    def missing(self, why: str) -> Row:
        """The row for a figure that could not be taken."""
        return Row(bench=self.bench, row=self.row, unit=self.unit, bar=self.limit, note=why)

    @property
    def limit(self) -> str | None:
        """The bar as text."""
        return None if self.bar is None else str(self.bar)


@dataclass
class Report:
    """Takes the figures of one bench and hands each row to `show`, if there is one, as it comes."""

    specs: Sequence[Spec]
    show: Callable[[Row], None] | None = None
    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        row: str,
        value: float,
        *,
        baseline: float | None = None,
        spread: float | None = None,
        note: str = "",
        is_whole: bool = True,
    ) -> None:
        """A figure was taken; it is not whole when its baseline is lacking or part of the work failed."""
        self._put(
            self._spec(row).measured(
                value, baseline=baseline, spread=spread, note=note, is_whole=is_whole
            )
        )

    def miss(self, row: str, why: str) -> None:
        """A figure cannot be taken."""
        self._put(self._spec(row).missing(why))

    def close(self, why: str) -> None:
        """Whatever has not come is missing, for this reason."""
        taken = {row.row for row in self.rows}
        for spec in self.specs:
            if spec.row not in taken:
                self._put(spec.missing(why))

    def _put(self, row: Row) -> None:
        self.rows.append(row)
        if self.show is not None:
            self.show(row)

    def _spec(self, row: str) -> Spec:
        spec = next(spec for spec in self.specs if spec.row == row)
        assert all(taken.row != row for taken in self.rows), f"{row} was reported twice"
        return spec


class Series(Struct, frozen=True):
    """The figures of several repeats."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle figure."""
        return median(self.values)

    @property
    def spread(self) -> float:
        """(largest - smallest) / median; 0 when the median is."""
        middle = self.median
        return (max(self.values) - min(self.values)) / middle if middle else 0.0


def quantile(values: Iterable[float], q: float) -> float:
    """The value below which a part `q` of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def rounded(value: float | None) -> float | None:
    """At most four significant digits: more would claim what no machine repeats."""
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}")
