"""The rows of the benches: bars, rounding, rows that do not come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.bench.rows import Bar, Report, Row, Series, Spec, quantile, rounded

UPPER = Spec("b", "upper", "ms", Bar(1.5))
RATIO = Spec("b", "ratio", "tokens/s", Bar(0.92, is_minimum=True, on_ratio=True))
FREE = Spec("b", "free", "s")


@pytest.mark.parametrize(
    ("spec", "value", "baseline", "ok"),
    [
        (UPPER, 1.5, None, True),
        (UPPER, 1.5001, None, False),
        (UPPER, 1.0, 0.1, True),
        (RATIO, 92.0, 100.0, True),
        (RATIO, 91.9, 100.0, False),
        (RATIO, 91.9, None, False),
        (RATIO, 91.9, 0.0, False),
        (FREE, 1e9, 1.0, True),
    ],
)
def test_a_row_is_ok_when_it_clears_its_bar(
    spec: Spec, value: float, baseline: float | None, ok: bool
) -> None:
    assert spec.measured(value, baseline=baseline).ok is ok


def test_the_bar_is_judged_before_rounding() -> None:
    row = UPPER.measured(1.50001)
    assert row.value == 1.5
    assert not row.ok


def test_a_figure_that_is_not_whole_is_not_ok_even_without_a_bar() -> None:
    assert not FREE.measured(1.0, is_whole=False, note="half of it").ok


def test_a_bar_reads_as_a_comparison() -> None:
    assert [spec.limit for spec in (UPPER, RATIO, FREE)] == ["<= 1.5", "ratio >= 0.92", None]


def test_a_report_hands_rows_on_as_they_come_and_closes_with_those_that_did_not() -> None:
    shown: list[Row] = []
    report = Report((UPPER, RATIO, FREE), shown.append)
    report.add("free", 2.0, spread=0.12345)
    report.miss("ratio", "no baseline")
    assert [row.row for row in shown] == ["free", "ratio"]
    report.close("not within 3 s")
    assert [(row.row, row.ok, row.note) for row in shown] == [
        ("free", True, ""),
        ("ratio", False, "no baseline"),
        ("upper", False, "not within 3 s"),
    ]
    assert shown == report.rows
    assert shown[0].spread == 0.123


def test_a_report_takes_each_row_once() -> None:
    report = Report((FREE,))
    report.add("free", 1.0)
    with pytest.raises(AssertionError):
        report.add("free", 2.0)


@given(st.lists(st.floats(0, 1e9), min_size=1), st.floats(0, 1))
def test_a_quantile_is_one_of_the_values_and_grows_with_q(values: list[float], q: float) -> None:
    found = quantile(values, q)
    assert found in values
    assert quantile(values, 0) == min(values) <= found <= max(values) == quantile(values, 1)


@given(st.floats(1e-9, 1e12))
def test_rounding_changes_a_figure_by_less_than_a_thousandth(value: float) -> None:
    found = rounded(value)
    assert found is not None
    assert abs(found - value) <= 0.0006 * value


def test_a_series_has_the_median_and_the_spread_of_its_values() -> None:
    series = Series((4.0, 1.0, 2.0))
    assert (series.median, series.spread) == (2.0, 1.5)
    assert Series((0.0, 0.0)).spread == 0.0
