import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.errors import InvalidCall, NotFound
from aios.kernel.tools.manifest import command_of, fill, read_manifest

GOOD = """
name = "text/words"
description = "Count words."
command = ["wc", "-w"]
stdin = "{text}"
[parameters]
type = "object"
properties.text = { type = "string" }
[traits]
effect = "pure"
is_pure = true
[bounds]
cpu_s = 5
memory_bytes = "64MiB"
"""


def test_a_manifest_is_read(tmp_path: Path) -> None:
    file = tmp_path / "words.toml"
    file.write_text(GOOD)
    found = read_manifest(file)
    assert (found.name, found.traits.is_pure, found.bounds.cpu_s) == ("text/words", True, 5)
    assert found.bounds.memory_bytes == 64 << 20


def test_an_agents_program_is_beside_its_manifest(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('name = "a"\ndescription = "b"\nprogram = "hello"\n')
    assert read_manifest(file).program == str(tmp_path / "hello")


@pytest.mark.parametrize(
    "text",
    [
        "name = 3",
        'name = "x"',
        'name = "x"\ndescription = "y"',
        GOOD + "colour = 3",
        GOOD.replace("cpu_s = 5", "cpu_s = -5"),
        GOOD.replace('"pure"', '"none"'),
        GOOD.replace("64MiB", "64Mb"),
        'name = "../x"\ndescription = "y"\ncommand = ["x"]',
        "= =",
        "x" * (129 << 10),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(InvalidCall):
        read_manifest(file)


def test_what_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_manifest(tmp_path / "nothing.toml")
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(InvalidCall):
        read_manifest(tmp_path / "pipe.toml")


@pytest.mark.parametrize(
    ("template", "arguments", "words"),
    [
        (["wc", "-w"], {}, ["wc", "-w"]),
        (["cat", "{path}"], {"path": "a b; rm -rf $HOME"}, ["cat", "a b; rm -rf $HOME"]),
        (["x", "--n={n}"], {"n": 3}, ["x", "--n=3"]),
        (["x", "--n={n}"], {}, ["x"]),
        (["x", "{names}"], {"names": ["a", "b"]}, ["x", "a", "b"]),
        (["x", "{names}"], {"names": []}, ["x"]),
        (["x", "{flag}"], {"flag": True}, ["x", "true"]),
        (["x", "--", "{path}"], {"path": "-rf"}, ["x", "--", "-rf"]),
        (["x", "-e{word}"], {"word": "-rf"}, ["x", "-e-rf"]),
        (["x", "{a}{b}"], {"a": "{b}", "b": "c"}, ["x", "{b}c"]),
    ],
)
def test_arguments_stay_within_their_words(
    template: list[str], arguments: dict[str, object], words: list[str]
) -> None:
    assert command_of(template, arguments) == words


@pytest.mark.parametrize(
    ("template", "arguments"),
    [
        (["x", "{path}"], {"path": "-rf"}),
        (["x", "{paths}"], {"paths": ["a", "--output=/etc/passwd"]}),
        (["x", "{path}"], {"path": "a\0b"}),
        (["x", "{path}"], {"path": "y" * (200 << 10)}),
        (["x", "{paths}"], {"paths": ["y"] * 5_000}),
    ],
)
def test_arguments_that_would_be_more_than_a_word_are_refused(
    template: list[str], arguments: dict[str, object]
) -> None:
    with pytest.raises(InvalidCall):
        command_of(template, arguments)


@given(st.text())
def test_what_is_filled_in_is_never_filled_again(text: str) -> None:
    assert fill("<{a}>", {"a": text, "b": "no"}) == f"<{text}>"
    assert fill("{a}", {}) is None
