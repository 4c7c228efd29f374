"""aios fs search, group, join and index against a kernel that runs."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios

from aios.cli.fs_search import _tell_state

pytestmark = pytest.mark.usefixtures("served")


def put(aios: Aios, folder: Path, path: str, text: str) -> None:
    source = folder / "in"
    source.write_text(text)
    assert aios("fs", "put", str(source), path).code == 0


def test_a_file_is_found_by_what_is_in_it(aios: Aios, tmp_path: Path) -> None:
    put(aios, tmp_path, "/shared/trip.md", "The train to Rome leaves at nine.\n")
    put(aios, tmp_path, "/shared/cake.txt", "An hour in the oven.\n")
    found = aios("fs", "search", "train to Rome", "--wait", "--type", "md", "--since", "1d")
    assert "/shared/trip.md:1-1  version 1" in found.out
    assert "words: train, rome" in found.out
    assert "cake" not in found.out
    rows = aios("fs", "search", "--keywords", "oven, hour", "--json").rows()
    assert [row["path"] for row in rows] == ["/shared/cake.txt"]
    assert aios("fs", "search", "oven", "--since", "2100-01-01").out == ""
    for ago in ("30s", "1h30m", "100w", "1850-01-01"):
        assert "/shared/cake.txt" in aios("fs", "search", "oven", "--since", ago).out
    for ago in ("soon", "999999999999w", "0d"):
        assert aios("fs", "search", "oven", "--since", ago).code == 2
    assert len(aios("fs", "search", "the", "-n", "1", "--json").rows()) == 1
    assert aios("fs", "search").code == 2


def test_a_type_that_is_none_is_refused_with_those_there_are(aios: Aios, tmp_path: Path) -> None:
    put(aios, tmp_path, "/shared/a.odd", "The train to Rome.\n")
    for command in (("search", "train"), ("group", "folder")):
        assert "/shared" in aios("fs", *command, "--wait", "--type", "odd").out
        assert aios("fs", *command, "--type", ".PY").code == 0, "there is none yet"
        ran = aios("fs", *command, "--type", "bogus")
        assert (ran.code, ran.out) == (2, "")
        assert "no file is of the type 'bogus'\nhint: types are text, markdown, html" in ran.err
    assert aios("fs", "search", "elephants", "--keywords", "zebra", "--type", "odd").code == 0


def test_a_path_where_nothing_is_is_told_and_not_taken_for_no_hits(
    aios: Aios, tmp_path: Path
) -> None:
    put(aios, tmp_path, "/shared/q/rome.md", "When does the train leave?\n")
    for command in (
        ("search", "train", "--under", "/shared/nosuch"),
        ("group", "type", "--under", "/agents/nobody"),
        ("join", "/shared/q", "/shared/nosuch"),
        ("join", "/shared/nosuch", "/shared/q"),
        ("purge", "/shared/nosuch"),
    ):
        ran = aios("fs", *command)
        assert (ran.code, ran.out) == (4, "")
        assert "no file" in ran.err
        assert "`aios fs ls`" in ran.err
    for unrooted in ("/nosuch", "nosuch"):
        ran = aios("fs", "search", "train", "--under", unrooted)
        assert "no folder /nosuch\nhint: the paths of the owner begin with" in ran.err
    for empty in ("/", "/agents", "/groups"):
        assert aios("fs", "join", empty, "/shared/q").code == 0


def test_many_changes_that_are_not_indexed_are_no_exact_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for n_pending, told in (
        (1, "1 change is"),
        (999, "999 changes are"),
        (1_000, "1000 or more changes are"),
    ):
        _tell_state(n_pending, "")
        assert f"{told} not indexed yet" in capsys.readouterr().err


def test_files_are_grouped_joined_and_counted(aios: Aios, tmp_path: Path) -> None:
    put(aios, tmp_path, "/shared/q/rome.md", "When does the train leave?\n")
    put(aios, tmp_path, "/shared/a/travel.md", "The train leaves at nine.\n")
    put(aios, tmp_path, "/shared/a/x.bin", "\0")
    index = aios("fs", "index", "--rebuild", "--wait")
    assert "3 files, 2 with text" in index.out
    assert "by name only: /shared/a/x.bin (no text)" in index.out
    groups = aios("fs", "group", "folder", "--json").rows()
    assert [(row["key"], row["n_files"]) for row in groups] == [("/shared/a", 2), ("/shared/q", 1)]
    assert "/shared/q" in aios("fs", "group", "folder").out
    (pair,) = aios("fs", "join", "/shared/q", "/shared/a", "--type", "md", "--json").rows()
    assert pair["path"] == "/shared/q/rome.md"
    assert "'path': '/shared/a/travel.md'" in str(pair["hit"])
    assert "/shared/a/travel.md:1-1" in aios("fs", "join", "/shared/q", "/shared/a").out
    assert aios("fs", "index", "--json").rows()[0]["n_pending"] == 0
