"""aios fs mount against a kernel that runs."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios


@pytest.mark.usefixtures("served")
def test_a_folder_is_mounted_written_and_taken_away(aios: Aios, tmp_path: Path) -> None:
    real = tmp_path / "my notes"
    real.mkdir()
    (real / "a").write_text("one\n")
    (real / "link").symlink_to("/etc/passwd")
    mounted = aios("fs", "mount", str(real), "/notes")
    assert mounted.code == 0
    assert "watched" in mounted.out
    assert "not shown: /notes/link: a symbolic link" in mounted.out
    assert aios("fs", "cat", "/notes/a").out == "one\n"
    (tmp_path / "in").write_text("two\n")
    assert aios("fs", "put", str(tmp_path / "in"), "/notes/b").code == 0
    assert (real / "b").read_text() == "two\n"
    (real / "a").write_text("by hand\n")
    assert "-one\n+by hand\n" in aios("fs", "diff", "/notes/a").out
    assert aios("fs", "rollback", "/notes/a", "--version", "1").code == 0
    assert (real / "a").read_text() == "one\n"
    assert aios("fs", "mounts", "--json").rows()[0]["folder"] == str(real)
    assert aios("fs", "mount", str(real), "/again").code == 6
    assert aios("fs", "mount", str(tmp_path / "none"), "/x").code == 2
    assert aios("fs", "umount", "/notes").code == 0
    rows = aios("fs", "versions", "/notes/a", "--json").rows()
    assert [row["author"] for row in rows] == ["kernel", "owner", "outside", "outside"]
    shown = aios("fs", "versions", "/notes/a").out.splitlines()
    assert "  -    kernel   unmounted" in shown[1]
    assert "  1    owner    back to version 1" in shown[2]
    assert aios("fs", "umount", "/notes", "--json").code == 4
    assert sorted(each.name for each in real.iterdir()) == ["a", "b", "link"]
