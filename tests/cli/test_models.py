"""`aios pull` and `aios models` on a store of small files."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios, Terminals, gguf


def test_an_empty_store_says_how_to_fill_it(aios: Aios) -> None:
    ran = aios("models")
    assert (ran.code, ran.out) == (0, "")
    assert "aios pull" in ran.err
    assert aios("models", "--json").out == ""


def test_pull_takes_a_file_in_and_tells_its_path(aios: Aios, home: Path, tmp_path: Path) -> None:
    ran = aios("pull", gguf(tmp_path / "tiny.gguf"))
    assert (ran.code, ran.out) == (0, f"{home / 'models' / 'tiny.gguf'}\n")
    assert aios("models").out.splitlines()[1].split()[0] == "tiny"
    (row,) = aios("models", "ls", "--json").rows()
    assert (row["name"], row["ok"], row["architecture"]) == ("tiny", True, "llama")


def test_pull_as_json_ends_with_the_path(aios: Aios, home: Path, tmp_path: Path) -> None:
    rows = aios("pull", gguf(tmp_path / "tiny.gguf"), "--json").rows()
    assert rows[-1] == {"stage": "done", "path": str(home / "models" / "tiny.gguf")}
    assert [row["stage"] for row in rows].count("done") == 1


def test_pull_on_a_terminal_draws_a_bar(terminal: Terminals, home: Path, tmp_path: Path) -> None:
    pulling = terminal("pull", gguf(tmp_path / "tiny.gguf")).end()
    assert pulling.code == 0
    assert "done" in pulling.out
    assert (home / "models" / "tiny.gguf").is_file()


def test_pull_of_nonsense_is_refused(aios: Aios, tmp_path: Path) -> None:
    assert aios("pull", "ftp://somewhere/x.gguf").code == 2
    (tmp_path / "x.gguf").write_text("no model")
    ran = aios("pull", tmp_path / "x.gguf", "--json")
    assert ran.code == 7
    assert ran.error()["code"] == "model_missing"


def test_check_finds_a_damaged_file_and_says_what_to_do(
    aios: Aios, home: Path, tmp_path: Path
) -> None:
    aios("pull", gguf(tmp_path / "good.gguf"))
    aios("pull", gguf(tmp_path / "bad.gguf", padding=1))
    assert aios("models", "check").code == 0
    stored = home / "models" / "bad.gguf"
    stored.unlink()
    stored.write_bytes(b"GGUF")
    ran = aios("models", "check")
    assert ran.code == 7
    assert ran.out.startswith("good: ok")
    assert "bad.gguf" in ran.err
    assert "aios pull" in ran.err
    assert aios("models", "check", "good", "nope").code == 7


def test_rm_deletes_and_says_what_it_deleted(aios: Aios, home: Path, tmp_path: Path) -> None:
    aios("pull", gguf(tmp_path / "tiny.gguf"))
    ran = aios("models", "rm", "tiny", "nope")
    assert ran.code == 4
    assert ran.out == f"removed {home / 'models' / 'tiny.gguf'}\n"
    assert aios("models", "--json").out == ""


@pytest.mark.parametrize("words", [["models", "rm"], ["models", "polish"], ["pull", "a", "b"]])
def test_senseless_commands_are_refused(aios: Aios, words: list[str]) -> None:
    assert aios(*words).code == 2
