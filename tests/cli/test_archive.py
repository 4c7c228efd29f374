"""aios export and import: all notes and files as one file."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios, serving


def test_a_home_is_moved_to_another_machine(
    aios: Aios, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, source = tmp_path / "home.aios", tmp_path / "a.txt"
    source.write_text("hello")
    assert aios("export", file).code == 4, "there is nothing yet"
    with serving(home):
        aios("mem", "add", "The boat is red", "--tag", "t")
        aios("fs", "put", source, "/shared/a")
        source.write_text("hello again")
        aios("fs", "put", source, "/shared/a", "-m", "better")
        row = aios("export", file, "--json").rows()[0]
        assert row["n_entries"] == 5  # a note, two contents, two versions
        assert row["size_bytes"] == file.stat().st_size
        assert file.stat().st_mode & 0o777 == 0o600
        assert aios("export", file).code == 6, "it is there already"
        assert aios("export", file, "--force").code == 0
        refused = aios("import", file)
        assert refused.code == 6
        assert "aios shutdown" in refused.err
    other = tmp_path / "other"
    monkeypatch.setenv("AIOS_HOME", str(other))
    spoilt = tmp_path / "spoilt.aios"
    spoilt.write_bytes(file.read_bytes()[:-40])
    broken = aios("import", spoilt)
    assert (broken.code, other.exists()) == (2, False)
    assert "cut off" in broken.err
    assert aios("import", file).out.startswith(
        "1 note, 0 interactions, 2 versions of files, 0 shares; here already: 0"
    )
    assert aios("import", file, "--json").rows()[0]["n_known"] == 3
    assert aios("fsck").out == "2 versions, 2 blobs, 1 note, 0 faults\n"
    with serving(other):
        rows = aios("fs", "versions", "/shared/a", "--json").rows()
    assert [row["author"] for row in rows] == ["owner", "owner"]


def test_what_is_left_as_it_is_is_named(
    aios: Aios, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, source, other = (tmp_path / name for name in ("one.aios", "a.txt", "other"))
    for folder in (home, other):
        monkeypatch.setenv("AIOS_HOME", str(folder))
        source.write_text(folder.name)
        with serving(folder):
            aios("fs", "put", source, "/shared/a")
            aios("export", file)
    assert aios("import", file).code == 6
    assert "left as it is: /shared/a" in aios("import", file, "--keep-mine").out
