"""aios fs do against a kernel that runs."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios


@pytest.mark.usefixtures("served")
def test_a_plan_is_shown_and_what_cannot_be_undone_needs_yes(aios: Aios, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_text("old")
    command = "purge old-notes.md"
    ran = aios("fs", "do", command)
    assert ran.code == 1
    assert "problem: no file is 'old-notes.md'" in ran.err
    assert "nothing was done" in ran.err
    assert aios("fs", "put", str(source), "/shared/old-notes.md").code == 0
    ran = aios("fs", "do", command, "--dry-run")
    assert ran.code == 0
    assert "1. purge /shared/old-notes.md: delete it with all versions, for good" in ran.err
    assert aios("fs", "do", command).code == 6
    assert aios("fs", "cat", "/shared/old-notes.md").out == "old"
    ran = aios("fs", "do", command, "--yes")
    assert ran.out == "purged /shared/old-notes.md: 2 versions are gone\n"
    assert "/shared/memo.txt: version 1" in aios("fs", "do", "write 'hello' to memo.txt").out
    (row,) = aios("fs", "do", command, "--json").rows()
    assert "no file" in str(row["fault"])
