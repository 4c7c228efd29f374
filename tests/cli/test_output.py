"""How numbers, tables and foreign text look."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.cli.output import (
    MIN_WORDS_CHARS,
    Column,
    counted,
    fitting,
    legible,
    printable,
    short_count,
    short_seconds,
    short_size,
    write_json,
    write_table,
)


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0k"),
        (1234, "1.2k"),
        (9_960, "10k"),
        (34_500, "34k"),
        (999_499, "999k"),
        (999_500, "1.0M"),
        (1_250_000, "1.2M"),
        (3_000_000_000, "3.0G"),
    ],
)
def test_counts_are_short(n: int, text: str) -> None:
    assert short_count(n) == text


def test_a_noun_agrees_with_its_number() -> None:
    assert [counted(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert [counted(n, "entry", "entries") for n in (1, 3)] == ["1 entry", "3 entries"]
    assert counted(1_200, "page", is_short=True) == "1.2k pages"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.5, "0.0s"),
        (0.24, "0.2s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.6, "1m00s"),
        (185, "3m05s"),
        (7800, "2h10m"),
        (356_400, "4d03h"),
    ],
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert short_seconds(seconds) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (98_362_432, "98.4 MB"), (24e9, "24.0 GB")],
)
def test_sizes_are_in_decimal_units(n: float, text: str) -> None:
    assert short_size(n) == text


@given(st.integers(0, 10**11))
def test_no_count_is_wider_than_its_column(n: int) -> None:
    assert len(short_count(n)) <= 6


@given(st.floats(0, 8e7))
def test_no_duration_is_wider_than_its_column(seconds: float) -> None:
    assert len(short_seconds(seconds)) <= 7


def test_text_of_others_keeps_its_colours_and_loses_what_steers_a_terminal() -> None:
    assert printable("\x1b[31mred\x1b[0m\ttab\nline") == "\x1b[31mred\x1b[0m\ttab\nline"
    assert printable("a\x1b[2Jb\x07c\x9bd\x1b]0;title\x07") == "a[2Jbcd]0;title"
    assert printable("over\rwritten") == "overwritten"


def test_by_what_somebody_decides_he_sees_whole() -> None:
    assert legible("rm\n\tdër '日本'") == "rm\n\tdër '日本'"
    assert legible("\x1b[8mhid\x1b[0m\r") == "\\u001b[8mhid\\u001b[0m\\u000d"
    assert legible("a\u202eb\u200bc\u3164\U000e0041") == "a\\u202eb\\u200bc\\u3164\\U000e0041"


@given(st.text())
def test_no_control_character_but_colours_passes(text: str) -> None:
    left = click.unstyle(printable(text))
    assert all(character in "\n\t" or ord(character) >= 32 for character in left)
    assert "\x9b" not in left


def test_columns_are_aligned_whatever_colours_the_cells_have(
    capsys: pytest.CaptureFixture[str],
) -> None:
    columns = (Column("NAME"), Column("N", is_number=True))
    write_table(columns, [["a", "1"], [click.style("longer", fg="red"), "100"]])
    assert capsys.readouterr().out.splitlines() == ["NAME      N", "a         1", "longer  100"]


def test_a_table_without_rows_is_its_titles(capsys: pytest.CaptureFixture[str]) -> None:
    write_table((Column("A"), Column("B")), [])
    assert capsys.readouterr().out == "A  B\n"


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    write_json({"text": "two\nlines"})
    assert capsys.readouterr().out == '{"text":"two\\nlines"}\n'


WIDE = (Column("NAME"), Column("N", is_number=True), Column("WHAT"))
ROWS = [["ann", "12", "reads the whole of a long book"], ["a-longer-name", "1234567", "x"]]


@given(st.integers(0, 100), st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=1))
def test_columns_fit_where_their_words_can_give(
    n_chars: int, given: list[tuple[bool, int]]
) -> None:
    columns = [Column("T", is_number=is_number) for is_number, _ in given]
    widths = [width for _, width in given]
    found = fitting(columns, widths, n_chars)
    total = sum(found) + 2 * (len(found) - 1)
    rooms = [
        column.is_number or width <= MIN_WORDS_CHARS
        for column, width in zip(columns, found, strict=True)
    ]
    assert total <= n_chars or all(rooms)
    for column, before, after in zip(columns, widths, found, strict=True):
        assert after == before if column.is_number else min(before, MIN_WORDS_CHARS) <= after
        assert after <= before


def test_a_table_is_cut_on_a_narrow_terminal_and_never_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "32")
    write_table(WIDE, ROWS)
    assert "reads the whole of a long book" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    write_table(WIDE, ROWS, fits=False)
    assert "reads the whole of a long book" in capsys.readouterr().out
    write_table(WIDE, ROWS)
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) == 32
    assert lines[1] == "ann              12  reads the …"
    assert "1234567" in lines[2], "numbers are whole"
