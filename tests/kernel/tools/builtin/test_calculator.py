from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.errors import InvalidCall
from aios.kernel.tools.builtin.calculator import MAX_DEPTH, calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 + 3 * 4", "14"),
        ("(2 + 3) * 4", "20"),
        ("0.1 + 0.2", "0.3"),
        ("-2 ** 2", "-4"),
        ("2 ** -3", "0.125"),
        ("2 ^ 3 ^ 2", "512"),
        ("7 // -2", "-4"),
        ("-7 % 3", "2"),
        ("sqrt(16 / 9)", "1.33333333333333"),
        ("sqrt(2) ** 2", "2"),
        ("round(2.567, 2)", "2.57"),
        ("max(1, min(5, 3), abs(-2))", "3"),
        ("1 / 3 * 3", "1"),
        ("2 ** 200", str(2**200)),
        ("(-1) ** 99999999999999", "-1"),
        ("--3", "3"),
        ("log10(1000)", "3"),
        (".5e1", "5"),
    ],
)
def test_it_computes(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "9 ** 9 ** 9",
        "9 ** 99999",
        "1 / 0",
        "0 ** -1",
        "5 % 0",
        "(-8) ** (1/3)",
        "exp(1000)",
        "1e999999999",
        "1e0000000099999999",
        "2 ** 0.5 ** 99 ** 9",
        "__import__('os').system('id')",
        "min",
        "sqrt(1, 2)",
        "1 +",
        "1 2",
        "(1",
        "",
        "1;2",
        "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1),
        "2 ** " * 200 + "1",
        "*".join(["1e300"] * 60),
    ],
)
def test_what_has_no_value_within_bounds_is_refused(expression: str) -> None:
    with pytest.raises(InvalidCall):
        calculate(expression)


@given(st.text(alphabet="0123456789.+-*/%^(), esqrtpi", max_size=40))
def test_any_text_has_a_value_or_is_refused(text: str) -> None:
    with suppress(InvalidCall):
        assert calculate(text)


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_whole_numbers_are_exact(one: int, other: int) -> None:
    assert calculate(f"({one}) * ({other}) + ({one})") == str(one * other + one)
