"""Why a search went by words alone."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios, serving

from aios.abi.memory import MemoryUsed
from aios.cli.meanings import Searched, words_only
from aios.config import MemoryConfig


@pytest.mark.parametrize(
    ("setting", "embedder", "of", "told"),
    [
        ("none", "", "notes", "memory.embedder is none"),
        ("none", "", "files", "memory.embedder is none"),
        ("auto", "", "notes", "wordllama is not installed; pip install"),
        ("auto", "", "files", "wordllama is not installed; pip install"),
        ("", "", "notes", "pip install 'aios-kernel[memory]'"),
        ("engine", "", "notes", "no engine has answered yet that embeds"),
        ("engine", "engine:m:64", "notes", "engine:m:64 did not answer in time"),
        ("engine", "engine:m:64", "files", "for notes only, and wordllama is not installed"),
    ],
)
def test_each_case_has_its_own_cure(setting: str, embedder: str, of: Searched, told: str) -> None:
    said = words_only(MemoryUsed(1, 10, embedder, 0, setting), of)
    assert said.startswith("only words were compared: ")
    assert told in said
    assert ("pip install" in said) == ("not installed" in told or not setting)


def test_an_embedder_that_is_switched_off_is_no_missing_package(aios: Aios, home: Path) -> None:
    with serving(home, memory=MemoryConfig(embedder="none")):
        aios("mem", "add", "The boat is red")
        for words in (("mem", "search", "boat"), ("fs", "search", "boat"), ("fs", "index")):
            told = aios(*words).err
            assert "only words were compared: memory.embedder is none" in told
            assert "pip" not in told
        topics = aios("fs", "group", "topic")
        assert "memory.embedder is none" in topics.err


def test_an_engine_that_does_not_embed_is_named(aios: Aios, home: Path) -> None:
    with serving(home, memory=MemoryConfig(embedder="engine", embedder_model="none-such")):
        aios("mem", "add", "The boat is red")
        found = aios("mem", "search", "boat")
        assert "The boat is red" in found.out
        assert "no engine has answered yet that embeds" in found.err


@pytest.mark.usefixtures("served")
def test_nothing_is_told_when_meanings_were_compared(aios: Aios) -> None:
    aios("mem", "add", "The boat is red")
    for words in (("mem", "search", "boat"), ("fs", "search", "boat")):
        assert "only words" not in aios(*words).err
