import shutil
from pathlib import Path

import pytest
from tests.kernel.storage.test_mounts import mounted

pytestmark = pytest.mark.anyio


async def test_a_file_that_becomes_a_folder_is_shown_as_one_and_back(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (_, files, real):
        (real / "a").write_text("a file")
        assert await files.read("/notes/a") == b"a file"
        (real / "a").unlink()
        (real / "a").mkdir()
        (real / "a" / "b").write_text("in a folder")
        assert [each.path for each in await files.list("/notes", is_deep=True)] == ["/notes/a/b"]
        shutil.rmtree(real / "a")
        (real / "a").write_text("a file again")
        assert [each.path for each in await files.list("/notes", is_deep=True)] == ["/notes/a"]
        assert (await files.mounts())[0].skipped == ()


async def test_many_outside_edits_are_recorded_together(tmp_path: Path) -> None:
    n = 300
    async with mounted(tmp_path) as (_, files, real):
        for text in ("one", "two!"):
            for number in range(n):
                (real / f"{number:03}").write_text(text)
            assert len(await files.list("/notes")) == n
        for number in range(n):
            (real / f"{number:03}").unlink()
        assert await files.list("/notes") == []
        histories = [await files.versions(f"/notes/{number:03}") for number in range(n)]
        assert {tuple(each.size_bytes for each in history) for history in histories} == {
            (None, 4, 3)
        }
        assert len({each.transaction for history in histories for each in history}) < n / 5
