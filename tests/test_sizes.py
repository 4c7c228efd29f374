"""Sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.sizes import LARGEST_BYTES, LETTERS, parse_size, sized


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("10 B", 10),
        ("10bytes", 10),
        ("1 byte", 1),
        ("2kB", 2_000),
        ("2KB", 2_000),
        ("2kb", 2_000),
        ("2k", 2_000),
        ("2 K", 2_000),
        ("200MB", 200_000_000),
        ("200mb", 200_000_000),
        (" 1.5GB ", 1_500_000_000),
        ("0.5 TB", 500_000_000_000),
        ("1PB", 10**15),
        ("4KiB", 4_096),
        ("64MiB", 64 << 20),
        ("1.5gib", 3 << 29),
        ("1Gi", 1 << 30),
        ("1.0000001kB", 1_000),
    ],
)
def test_a_size_is_read_as_it_is_written(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        "-",
        "GB",
        "much",
        "-1",
        "+1",
        "1,5GB",
        "1..5",
        ".5GB",
        "1e3",
        "1__0",
        "2Mb",
        "2Gb",
        "2MiB!",
        "2Xb",
        "2iB",
        "1.5",
        "1.5B",
        "2kBs",
        "\u0662kB",
        "9999999PB",
    ],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="say 4096"):
        parse_size(text)
    with pytest.raises(ValueError, match="no size"):
        parse_size("")


def test_what_could_be_bits_is_called_so() -> None:
    with pytest.raises(ValueError, match="bits"):
        parse_size("2Mb")


@given(st.integers(0, LARGEST_BYTES >> 50), st.sampled_from(LETTERS), st.booleans())
def test_units_are_powers_and_their_case_does_not_matter(
    n: int, letter: str, is_binary: bool
) -> None:
    factor = (1024 if is_binary else 1000) ** (LETTERS.index(letter) + 1)
    unit = f"{letter}{'i' * is_binary}b"
    assert parse_size(f"{n}{unit}") == parse_size(f"{n} {unit.upper()}") == n * factor


def test_sizes_in_a_table_become_numbers_and_the_rest_stays() -> None:
    table = {
        "block_bytes": "2KB",
        "name": "2KB",
        "n_bytes": 3,
        "budget": {"written_bytes": "1MiB", "calls": 2},
        "env": {"x_bytes": "2KB"},
    }
    assert sized(table, "budget") == {
        **table,
        "block_bytes": 2_000,
        "budget": {"written_bytes": 1 << 20, "calls": 2},
    }
    with pytest.raises(ValueError, match="`written_bytes`: 'much' is no size: say 4096"):
        sized({"budget": {"written_bytes": "much"}}, "budget")
