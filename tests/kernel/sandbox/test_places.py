import sys
from pathlib import Path

import pytest

from aios.kernel.sandbox.places import (
    command_places,
    followed,
    interpreter,
    is_python,
    python_links,
    python_places,
)


def test_a_command_brings_the_tree_around_its_bin(tmp_path: Path) -> None:
    tool = tmp_path / "suite" / "bin" / "tool"
    tool.parent.mkdir(parents=True)
    tool.touch()
    assert command_places([str(tool), "-x", "relative"]).readable == (
        tool,
        tmp_path / "suite",
    )


def test_a_script_brings_only_itself(tmp_path: Path) -> None:
    script = tmp_path / "folder" / "script.py"
    script.parent.mkdir()
    script.touch()
    assert command_places(["/usr/bin/env", str(script)]).readable == (script,)


def test_a_program_of_the_users_own_does_not_bring_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, named = tmp_path / "home" / "ann", tmp_path / "named"
    named.symlink_to(home)
    tools = [home / "bin" / "tool", home / "scripts" / "tool", tmp_path / "home" / "bin" / "tool"]
    for tool in tools:
        tool.parent.mkdir(parents=True)
        tool.touch()
    for known_as in (home, named):
        monkeypatch.setenv("HOME", str(known_as))
        for tool in tools:
            assert command_places([str(tool)]).readable == (tool,)
        linked = named / "bin" / "tool"
        assert command_places([str(linked)]).readable == (tools[0],)


def test_links_on_the_way_are_named(tmp_path: Path) -> None:
    real = tmp_path / "versions" / "1" / "bin" / "tool"
    real.parent.mkdir(parents=True)
    real.touch()
    (tmp_path / "current").symlink_to(tmp_path / "versions" / "1")
    places = command_places([str(tmp_path / "current" / "bin" / "tool")])
    assert real in places.readable
    assert places.links == {tmp_path / "current": tmp_path / "versions" / "1"}


def test_what_is_not_there_and_what_the_system_has_is_left_out() -> None:
    assert command_places(["/no/such/program", "/usr/bin/env"]).readable == ()


def test_python_can_be_found_by_its_name() -> None:
    places = python_places()
    real = Path(sys.executable).resolve()
    assert any(real.is_relative_to(root) for root in (*places.readable, Path("/usr")))
    assert Path("/") not in places.readable


def test_each_symlink_on_the_way_is_found(tmp_path: Path) -> None:
    real = tmp_path / "real" / "bin"
    real.mkdir(parents=True)
    (real / "python3").touch()
    (real / "python").symlink_to("python3")
    (tmp_path / "inner").symlink_to("real")
    (tmp_path / "outer").symlink_to(tmp_path / "other" / ".." / "inner")
    (tmp_path / "other").mkdir()
    found = followed(tmp_path / "outer" / "bin" / "python")
    assert found == [tmp_path / "outer", tmp_path / "inner", real / "python"]
    (tmp_path / "round").symlink_to("round")
    assert set(followed(tmp_path / "round")) == {tmp_path / "round"}
    assert all(link.readlink() == target for link, target in python_links().items())
    assert Path(interpreter()).parent == Path(sys.executable).parent.resolve()


def test_what_was_not_there_is_no_place_of_python(tmp_path: Path) -> None:
    assert is_python(python_places().readable[0] / "anything")
    assert not is_python(tmp_path)
