"""`aios config`."""

import os
from pathlib import Path

import pytest
from tests.cli.conftest import Aios


def test_each_knob_is_shown_with_where_it_came_from(
    aios: Aios, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "config.toml"
    file.write_text("[engine]\nn_slots = 3\n")
    monkeypatch.setenv("AIOS_CONFIG", str(file))
    lines = {line.split()[0]: line for line in aios("config").out.splitlines()}
    assert lines["engine.n_slots"].split()[1:3] == ["3", "file"]
    assert "environment AIOS_ENGINE_KIND" in lines["engine.kind"]
    assert lines["kernel.max_queue"].split()[2] == "default"
    assert "generations at once" in lines["engine.n_slots"]


def test_show_is_the_same_and_json_is_a_knob_a_line(aios: Aios) -> None:
    assert aios("config", "show").out == aios("config").out
    rows = aios("config", "--json").rows()
    assert {"name", "value", "source", "description", "env"} == set(rows[0])
    assert all(row["description"] for row in rows)
    assert aios("config", "show", "--json").rows() == rows


def test_path_prints_the_file_that_is_read(aios: Aios, home: Path) -> None:
    assert aios("config", "path").out == f"{os.devnull}\n"
    (row,) = aios("config", "path", "--json").rows()
    assert row == {"file": os.devnull, "exists": False, "home": str(home)}


def test_a_bad_knob_is_named_with_its_source(aios: Aios, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOS_ENGINE_N_SLOTS", "many")
    ran = aios("config", "--json")
    assert ran.code == 2
    assert "AIOS_ENGINE_N_SLOTS" in str(ran.error()["message"])


def test_a_table_comes_from_the_environment_as_json(
    aios: Aios, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOS_SCHEDULER_WEIGHTS", '{"alice": 2}')
    assert "'alice': 2.0" in aios("config").out
    monkeypatch.setenv("AIOS_SCHEDULER_WEIGHTS", '{"alice": 0')
    assert "scheduler.weights" in str(aios("config", "--json").error()["message"])
