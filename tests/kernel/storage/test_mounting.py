from pathlib import Path

import anyio
import pytest

from aios.config import Config, Home
from aios.errors import AccessDenied, Conflict, InvalidCall, NotFound
from aios.kernel.kernel import open_kernel
from aios.kernel.storage.mounts import Mounts
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


async def test_only_a_folder_of_the_users_own_gets_a_name_of_its_own(tmp_path: Path) -> None:
    home, real, other = tmp_path / "state" / "home", tmp_path / "real", tmp_path / "other"
    for folder in (real / "sub", other):
        folder.mkdir(parents=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(home)
    async with open_kernel(Config(), Home(home), engines={}) as kernel:
        files = Files(kernel.init_gate())
        for path in ("/", "/shared", "/agents", "/groups", "/a/b", "/shared/x", "/..", ""):
            with pytest.raises(InvalidCall):
                await files.mount(str(real), path)
        with pytest.raises(InvalidCall):
            await files.mount("relative", "/notes")
        for folder in (
            home,
            home / "blobs",
            tmp_path / "state",
            tmp_path / "link",
            Path("/"),
            Path("/proc"),
            Path("/dev"),
        ):
            with pytest.raises(AccessDenied):
                await files.mount(str(folder), "/notes")
        for folder in (tmp_path / "none", tmp_path / "file"):
            with pytest.raises(NotFound):
                await files.mount(str(folder), "/notes")
        await files.mount(str(real), "/notes")
        for folder, path in ((other, "/notes"), (real / "sub", "/x"), (real, "/x")):
            with pytest.raises(Conflict):
                await files.mount(str(folder), path)
        await files.mount(str(other), "/other")
        assert [each.path for each in await files.mounts()] == ["/notes", "/other"]
        with pytest.raises(NotFound):
            await files.umount("/none")
        with pytest.raises(NotFound):
            await files.umount("/notes/sub")
        await files.umount("/notes")
        assert [each.path for each in await files.mounts()] == ["/other"]


async def test_keys_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me, home = tmp_path / "me", tmp_path / "home"
    for folder in (me / ".ssh" / "old", me / ".config" / "gh", me / "notes"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(me))
    async with open_kernel(Config(), Home(home), engines={}) as kernel:
        files = Files(kernel.init_gate())
        for folder in (me, me / ".ssh", me / ".ssh" / "old", me / ".config"):
            with pytest.raises(AccessDenied, match="where you keep keys"):
                await files.mount(str(folder), "/mine")
        await files.mount(str(me / "notes"), "/notes")


async def test_a_mount_that_is_not_waited_for_says_when_it_was_read(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    for number in range(300):
        (real / f"{number:03}").write_text(str(number))
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        files = Files(kernel.init_gate())
        info = await files.mount(str(real), "/notes", is_waiting=False)
        assert not info.is_settled
        assert await files.read_text("/notes/299") == "299", "what is asked for is read first"
        with anyio.fail_after(30):
            while not (await files.mounts())[0].is_settled:
                await anyio.lowlevel.checkpoint()
        (info,) = await files.mounts()
        assert (info.n_files, info.is_watched, info.note) == (300, True, "")


async def test_a_folder_that_brings_a_bug_to_light_ends_no_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise ValueError("a bug")

    real = tmp_path / "real"
    real.mkdir()
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        files = Files(kernel.init_gate())
        with anyio.fail_after(30):
            with monkeypatch.context() as patch:
                patch.setattr(Mounts, "settle", fails)
                await files.mount(str(real), "/notes")
                assert "ValueError: a bug" in (await files.mounts())[0].note
                patch.setattr(Mounts, "take_notices", fails)
                (real / "a").write_text("new")
            await files.umount("/notes")
            await files.mount(str(real), "/notes")
            assert await files.read_text("/notes/a") == "new"
