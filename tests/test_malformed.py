import ast
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from aios.malformed import END, told, words_of

SOURCE = Path(__file__).parents[1] / "src" / "aios"


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
