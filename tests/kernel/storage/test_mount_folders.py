"""The real folders of mounts: what is put in the place of one."""

from pathlib import Path

import anyio
import pytest
from tests.kernel.storage.test_mounts import mounted

from aios.config import StorageConfig
from aios.errors import DiskFailed
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


async def check_not_followed(files: Files) -> None:
    """Somebody looks for the folder, and finds a link to one that holds a `key`."""
    note = ""
    with anyio.fail_after(30):
        while not note or "moved away" in note:
            assert [each.path for each in await files.list("/notes")] == ["/notes/a"]
            await anyio.sleep(0.02)
            note = (await files.mounts())[0].note
    assert "real is a symbolic link now" in note
    with pytest.raises(DiskFailed, match="not there"):
        await files.write("/notes/b", "b")


async def test_a_link_in_the_place_of_a_mounted_folder_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "key").write_text("secret")
    async with mounted(tmp_path, StorageConfig(rescan_s=0.05)) as (_, files, real):
        await files.write("/notes/a", "a")
        real.rename(tmp_path / "aside")
        real.symlink_to(outside)
        await check_not_followed(files)
    async with mounted(tmp_path) as (_, files, real):
        await check_not_followed(files)
        assert [each.name for each in outside.iterdir()] == ["key"]
        await files.umount("/notes")
        await files.mount(str(real), "/notes")
        assert await files.read_text("/notes/key") == "secret", "that is the owner's own word"
