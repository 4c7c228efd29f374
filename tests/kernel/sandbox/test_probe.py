from pathlib import Path

import pytest

from aios.kernel.sandbox import probe as module
from aios.kernel.sandbox.probe import Wall, probe


def test_asked_for_none_there_is_none_and_it_is_said() -> None:
    walls = probe("none")
    assert walls.wall is Wall.NONE
    assert "without a sandbox" in walls.missing[0]


def test_without_bubblewrap_the_next_wall_is_taken_and_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    walls = probe()
    assert walls.wall in (Wall.LANDLOCK, Wall.NONE)
    assert "apt install bubblewrap" in walls.missing[0]


def test_a_bubblewrap_that_cannot_make_a_sandbox_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'No permissions to create a new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda _: str(fake))
    walls = probe()
    assert walls.wall is not Wall.BUBBLEWRAP
    assert "No permissions" in walls.missing[0]


def test_without_any_wall_it_says_what_that_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(module, "version", lambda: 0)
    walls = probe()
    assert walls.wall is Wall.NONE
    assert "without a sandbox" in walls.missing[1]
    assert "no program is started" in probe("landlock").missing[1]


@pytest.mark.parametrize(("version", "n_said"), [(2, 2), (4, 1), (6, 0)])
def test_what_an_older_landlock_leaves_open_is_said(
    monkeypatch: pytest.MonkeyPatch, version: int, n_said: int
) -> None:
    monkeypatch.setattr(module, "version", lambda: version)
    missing = probe("landlock").missing
    assert sum("before Linux" in each for each in missing) == n_said
