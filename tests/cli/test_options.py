"""Options that several verbs share."""

import click
import pytest
from tests.cli.conftest import Aios

from aios.cli.options import Size


def test_a_size_is_within_its_bounds_and_words_have_their_own_values() -> None:
    size = Size(4096, 1 << 30, words={"default": -1})
    assert size.convert("4KiB", None, None) == 4096
    assert size.convert("1GiB", None, None) == 1 << 30
    assert size.convert("default", None, None) == -1
    for wrong in ("4kB", "1.1GiB", "4095"):
        with pytest.raises(click.BadParameter, match="not between 4096 and 1073741824 bytes"):
            size.convert(wrong, None, None)
    with pytest.raises(click.BadParameter, match=r"'much' is no size: .* or default"):
        size.convert("much", None, None)


def test_json_asked_of_a_group_is_asked_of_its_verb(aios: Aios) -> None:
    assert aios("config", "--json", "show").rows() == aios("config", "show", "--json").rows()
