"""aios tool, against a kernel that runs."""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.conftest import Aios, Served

from aios.cli.tool import parse_words
from aios.errors import InvalidCall

if TYPE_CHECKING:
    from aios.abi.types import JsonObject

pytestmark = pytest.mark.usefixtures("served")


def test_tools_are_listed_shown_and_run(served: Served, aios: Aios) -> None:
    names = [row["name"] for row in aios("tool", "ls", "--json").rows()]
    assert "calculator" in names
    table = aios("tool", "ls").out
    assert table.startswith("NAME")
    assert "calculator" in table
    shown = aios("tool", "show", "calculator").out
    for words in ("expression: string", "effect pure"):
        assert words in shown
    (row,) = aios("tool", "run", "calculator", "expression=6 * 7", "--json").rows()
    assert row["text"] == "42"
    assert served.kernel.table.n_alive == 1


def test_arguments_come_as_words_or_as_json(aios: Aios, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = aios("tool", "run", "calculator", "--json-args", "{'expression': '2',}")
    assert ran.out == "2\n"
    assert "repaired" in ran.err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"expression": "3"}')))
    assert aios("tool", "run", "calculator", "--json-args", "-").out == "3\n"
    assert aios("tool", "run", "files", "action=write", "path=/shared/a", "text=1").code == 0
    assert aios("tool", "run", "files", "action=read", "path=/shared/a", "length=1").out == "1\n"


def test_manifests_are_installed_and_withdrawn(aios: Aios, tmp_path: Path) -> None:
    file = tmp_path / "hi.toml"
    file.write_text('name = "me/hi"\ndescription = "Greet."\ncommand = ["echo", "hi"]\n')
    installed = aios("tool", "install", file)
    assert installed.out == "me/hi\n"
    assert "until the kernel ends" in installed.err
    assert aios("tool", "run", "me/hi").out == "hi\n"
    assert aios("tool", "rm", "me/hi").code == 0
    assert aios("tool", "run", "me/hi").code == 4
    file.write_text("name = 3")
    assert aios("tool", "install", file).code == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("run", "nothing"), 4),
        (("show", "nothing"), 4),
        (("run", "calculator"), 2),
        (("run", "calculator", "expression"), 2),
        (("run", "calculator", "expression=1/0"), 2),
        (("run", "calculator", "expression=1", "--json-args", "{}"), 2),
    ],
)
def test_what_goes_wrong_has_its_exit_code(aios: Aios, words: tuple[str, ...], code: int) -> None:
    ran = aios("tool", *words, "--json")
    assert ran.code == code
    assert ran.error()["message"]


def test_values_are_text_where_the_tool_wants_text() -> None:
    properties: JsonObject = {"text": {"type": "string"}, "n": {"type": "integer"}}
    words = ("text=12", "n=12", "free=[1, 2]", "other=plain=text")
    assert parse_words(words, properties) == {
        "text": "12",
        "n": 12,
        "free": [1, 2],
        "other": "plain=text",
    }
    with pytest.raises(InvalidCall):
        parse_words(("nothing",), properties)
