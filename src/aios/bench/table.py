"""How rows are shown: one JSON object a line, or a table for each bench."""

from collections.abc import Sequence
from typing import Protocol, TextIO

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aios.bench.rows import Row, Spec

FIGURES = ("value", "baseline", "ratio", "spread")
MIN_WIDTH = 100
"""A narrower terminal breaks lines; columns that lack their ends would be worse."""


class Display(Protocol):
    """Where rows go."""

    def row(self, row: Row) -> None:
        """A row has come."""
        ...

    def end(self, title: str) -> None:
        """All rows of that bench have come."""
        ...


class JsonLines:
    """Writes each row at once, as a line of JSON."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def row(self, row: Row) -> None:
        self._out.write(msgspec.json.encode(row).decode() + "\n")
        self._out.flush()

    def end(self, title: str) -> None:
        """Nothing is left to show."""


class Tables:
    """Shows the rows of a bench as a table when the last has come."""

    def __init__(self, out: TextIO) -> None:
        self._console = _console(out)
        self._rows: list[Row] = []

    def row(self, row: Row) -> None:
        self._rows.append(row)

    def end(self, title: str) -> None:
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for heading in ("row", "value", "unit", "baseline", "ratio", "bar", "ok", "spread"):
            table.add_column(
                heading, justify="right" if heading in FIGURES else "left", no_wrap=True
            )
        for row in self._rows:
            table.add_row(*_cells(row))
        self._console.print(table)
        for note, rows in self._notes().items():
            self._console.print(f"{', '.join(rows)}: {escape(note)}", style="dim", soft_wrap=True)
        self._console.print()
        self._rows.clear()

    def _notes(self) -> dict[str, list[str]]:
        """Each note once, with the rows that it belongs to."""
        found: dict[str, list[str]] = {}
        for row in self._rows:
            if row.note:
                found.setdefault(row.note, []).append(row.row)
        return found


def print_specs(specs: Sequence[Spec], out: TextIO) -> None:
    """What there is to measure, as a table."""
    table = Table(box=None, pad_edge=False)
    for heading in ("bench", "row", "unit", "bar", "what"):
        table.add_column(heading, no_wrap=heading != "what")
    for spec in specs:
        table.add_row(spec.bench, spec.row, spec.unit, spec.limit or "", spec.about)
    _console(out).print(table)


def _console(out: TextIO) -> Console:
    return Console(file=out, width=max(Console(file=out).width, MIN_WIDTH))


def _cells(row: Row) -> list[str]:
    return [
        row.row,
        _figure(row.value),
        row.unit,
        _figure(row.baseline),
        _figure(row.ratio),
        row.bar or "",
        _verdict(row),
        "" if row.spread is None else f"{row.spread:.0%}",
    ]


def _verdict(row: Row) -> str:
    if not row.ok:
        return "[red]no[/red]"
    return "[green]yes[/green]" if row.bar else ""


def _figure(value: float | None) -> str:
    """Without an exponent and without digits that say nothing."""
    if value is None:
        return ""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
