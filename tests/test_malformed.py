import ast
from enum import Enum
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta, Struct

from aios.malformed import END, named, told, words_of

SOURCE = Path(__file__).parents[1] / "src" / "aios"


class Mood(Enum):
    CALM = "calm"


class Form(Struct, forbid_unknown_fields=True):
    """Something with one field of each kind."""

    note: int
    tags: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=3)], ...], Meta(max_length=2)
    ] = ()
    weight: Annotated[float, Meta(ge=0, le=1)] | None = None
    mood: Mood = Mood.CALM
    env: dict[Annotated[str, Meta(pattern=f"^[0-9]{{1,9}}{END}")], str] = {}
    inner: "Form | None" = None


def patterns() -> set[str]:
    """Those of all types in the source."""
    return {
        str(node.value.value)
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.keyword)
        and node.arg == "pattern"
        and isinstance(node.value, ast.Constant)
    }


def test_each_pattern_is_told_in_words() -> None:
    found = patterns()
    assert len(found) > 10
    assert not {each for each in found if words_of(each).startswith("matched by")}


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (f"^(fifo|rr){END}", "one of fifo, rr"),
        (f"^[0-9a-f]{{16}}{END}", "16 hexadecimal digits"),
        ('^it\'s "odd"\\d', 'matched by ^it\'s "odd"\\d'),
    ],
)
def test_what_msgspec_quotes_is_replaced_and_the_place_stays(pattern: str, words: str) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.convert({"x": "?"}, dict[str, Annotated[str, Meta(pattern=pattern)]])
    assert told(raised.value) == f"Expected `str` that is {words} - at `$[...]`"


def test_what_has_no_pattern_is_told_as_it_is() -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.convert("x", int)
    assert told(raised.value) == str(raised.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"note": "x"}, "`ID`: expected a whole number, got text"),
        ({"note": 1.5}, "`ID`: expected a whole number, got a number"),
        ({}, "missing required field `note`"),
        ({"note": 1, "nose": 2}, "unknown field `nose`"),
        ({"note": 1, "tags": ["a", ""]}, "`tags[1]`: expected text of at least 1 character"),
        ({"note": 1, "tags": ["abcd"]}, "`tags[0]`: expected text of at most 3 characters"),
        ({"note": 1, "tags": ["a"] * 3}, "`tags`: expected a list of at most 2 items"),
        ({"note": 1, "weight": 2}, "`weight`: expected a number <= 1.0"),
        ({"note": 1, "weight": "2"}, "`weight`: expected a number or nothing, got text"),
        ({"note": 1, "mood": "sour"}, "`mood`: invalid enum value 'sour'"),
        ({"note": 1, "env": {"x": "y"}}, "a key of `env`: expected text that is 1 to 9 digits"),
        ({"note": 1, "env": {"1": 2}}, "`env[...]`: expected text, got a whole number"),
        (
            {"note": 1, "inner": {"note": True}},
            "`inner.note`: expected a whole number, got true or false",
        ),
        ([], "expected an object, got a list"),
    ],
)
def test_the_argument_that_is_wrong_is_named_as_its_writer_knows_it(
    given: object, words: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.convert(given, Form)
    assert named(raised.value, {"note": "ID"}) == words


def test_what_another_reader_says_stays() -> None:
    assert named(ValueError("Invalid `x`")) == "invalid `x`"
    assert named(ValueError("at `$.x` or so")) == "at `$.x` or so"
