import errno
import os
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from aios.abi.storage import Put
from aios.config import Config, Home, StorageConfig
from aios.errors import AccessDenied, AiosError, Conflict, DiskFailed, InvalidCall, NotFound
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio

DEFAULTS = StorageConfig()


@asynccontextmanager
async def mounted(
    tmp_path: Path, config: StorageConfig = DEFAULTS, **how: bool
) -> AsyncIterator[tuple[Kernel, Files, Path]]:
    """A kernel with a real folder under `/notes`, which is mounted if it was not."""
    real = tmp_path / "real"
    real.mkdir(exist_ok=True)
    async with open_kernel(Config(storage=config), Home(tmp_path / "home"), engines={}) as kernel:
        files = Files(kernel.init_gate())
        if not await files.mounts():
            await files.mount(str(real), "/notes", **how)
        for mount in kernel.storage.mounts.all():
            with anyio.fail_after(30):
                await mount.settled.wait()
        yield kernel, files, real
        assert (await files.check()).faults == ()


async def authors(files: Files, path: str) -> list[tuple[str, int | None]]:
    return [(each.author, each.size_bytes) for each in await files.versions(path)]


async def test_what_is_written_is_in_the_real_file_when_the_call_returns(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (_, files, real):
        await files.write("/notes/a.md", "one")
        assert (real / "a.md").read_bytes() == b"one"
        (real / "a.md").chmod(0o640)
        await files.append("/notes/a.md", " two")
        assert (real / "a.md").read_bytes() == b"one two"
        assert (real / "a.md").stat().st_mode & 0o777 == 0o640
        await files.write("/notes/sub/b", b"\0" * 300_000)
        assert (real / "sub" / "b").stat().st_size == 300_000
        await files.move("/notes/sub/b", "/shared/b")
        assert not (real / "sub").exists(), "a folder that holds nothing is gone"
        await files.copy("/shared/b", "/notes/c/d")
        assert (real / "c" / "d").stat().st_size == 300_000
        await files.delete("/notes/c")
        assert [each.name for each in real.iterdir()] == ["a.md"]


async def test_what_comes_in_pieces_is_nobodys_outside_edit(tmp_path: Path) -> None:
    """A content that is cut otherwise than it would be as a whole is the same content."""
    data = random.Random(1).randbytes(700_000)  # noqa: S311 - any bytes that are cut into several

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    async with mounted(tmp_path) as (_, files, real):
        await files.upload("/notes/long", pieces())
        await files.append("/notes/long", data)
        assert (real / "long").read_bytes() == data + data
        for touched in (False, True):
            if touched:  # also by who writes the same again
                (real / "long").write_bytes(data + data)
            assert await authors(files, "/notes/long") == [("owner", 1_400_000), ("owner", 700_000)]
        changed = data + data[::-1]
        (real / "long").write_bytes(changed)
        assert (await authors(files, "/notes/long"))[0] == ("outside", 1_400_000)
        assert await files.read("/notes/long") == changed


async def test_going_back_brings_the_real_files_back(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (_, files, real):
        (real / "a").write_text("by hand")
        await files.write("/notes/a", "by agent")
        edited = await files.write("/notes/b", "new")
        await files.rollback("/notes/a", version=1)
        assert (real / "a").read_text() == "by hand"
        await files.rollback(transaction=edited.transaction)
        assert not (real / "b").exists()
        await files.delete("/notes/a")
        await files.rollback("/notes/a", version=2)
        assert (real / "a").read_text() == "by agent"


async def test_what_others_change_becomes_a_version_at_once(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "deep" / "er").mkdir(parents=True)
    (real / "deep" / "er" / "x").write_text("before")
    async with mounted(tmp_path) as (_, files, _):
        assert await files.read_text("/notes/deep/er/x") == "before"
        (real / "deep" / "er" / "x").write_text("after")
        assert await files.read_text("/notes/deep/er/x") == "after"
        assert await authors(files, "/notes/deep/er/x") == [("outside", 5), ("outside", 6)]
        (real / "new" / "folder").mkdir(parents=True)
        (real / "new" / "folder" / "y").write_text("y")
        (real / "deep").rename(real / "moved")
        listed = [each.path for each in await files.list("/notes", is_deep=True)]
        assert listed == ["/notes/moved/er/x", "/notes/new/folder/y"]
        (real / "moved" / "er" / "x").write_text("moved")
        assert await files.read_text("/notes/moved/er/x") == "moved"
        (real / "moved" / "er" / "x").unlink()
        with pytest.raises(NotFound):
            await files.read("/notes/moved/er/x")
        assert (await files.read("/notes/moved/er/x", version=1)) == b"after"


async def test_a_watcher_is_told_of_what_others_change(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (_, files, real):
        since = (await files.watch("/notes", is_waiting=False)).next
        (real / "a").write_text("x")
        with anyio.fail_after(30):
            changes = await files.watch("/notes", since=since)
        assert [(each.path, each.author) for each in changes.versions] == [("/notes/a", "outside")]


async def test_a_mount_survives_and_what_changed_meanwhile_is_found(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (_, files, real):
        for name in ("kept", "changed", "deleted"):
            await files.write(f"/notes/{name}", name)
    (real / "changed").write_text("CHANGED")
    (real / "deleted").unlink()
    (real / "added").write_text("added")
    async with mounted(tmp_path) as (_, files, _):
        assert [each.path for each in await files.list("/notes")] == [
            "/notes/added",
            "/notes/changed",
            "/notes/kept",
        ]
        assert await authors(files, "/notes/changed") == [("outside", 7), ("owner", 7)]
        assert len(await files.versions("/notes/kept")) == 1
        assert await authors(files, "/notes/deleted") == [("outside", None), ("owner", 7)]


async def test_a_folder_that_is_not_there_loses_no_file(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (_, files, real):
        await files.write("/notes/a", "a")
    real.rename(tmp_path / "elsewhere")
    async with mounted(tmp_path) as (_, files, _):
        # `mounted` made an empty folder in its place, as an unplugged disk leaves one.
        assert "another folder, and empty" in (await files.mounts())[0].note
        assert await files.read_text("/notes/a") == "a"
        with pytest.raises(DiskFailed):
            await files.write("/notes/a", "b")
        assert await files.read_text("/notes/a") == "a"


async def test_a_folder_that_is_moved_away_while_it_is_mounted_loses_no_file(
    tmp_path: Path,
) -> None:
    async with mounted(tmp_path, StorageConfig(rescan_s=0.05)) as (_, files, real):
        await files.write("/notes/a", "a")
        real.rename(tmp_path / "elsewhere")
        assert [each.path for each in await files.list("/notes")] == ["/notes/a"]
        with pytest.raises(DiskFailed, match="not there"):
            await files.write("/notes/a", "b")
        assert (tmp_path / "elsewhere" / "a").read_text() == "a"
        assert str(real) in (await files.mounts())[0].note
        since = (await files.watch("/notes", is_waiting=False)).next
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "b").write_text("b")
        (tmp_path / "new").rename(real)
        with anyio.fail_after(30):
            while [each.path for each in await files.list("/notes")] != ["/notes/b"]:
                since = (await files.watch("/notes", since=since)).next
        assert (await files.mounts())[0].note == ""
        await files.rollback("/notes/a", version=1)
        assert (real / "a").read_text() == "a"
    async with mounted(tmp_path) as (_, files, real):  # an empty one, if it is known, is the folder
        assert len(await files.list("/notes")) == 2


async def test_a_folder_that_is_removed_with_all_in_it_is_followed_when_it_is_made_again(
    tmp_path: Path,
) -> None:
    async with mounted(tmp_path, StorageConfig(rescan_s=0.05)) as (_, files, real):
        await files.write("/notes/sub/a", "a")
        shutil.rmtree(real)
        with pytest.raises(DiskFailed, match="not there"):
            await files.write("/notes/sub/a", "b")
        real.mkdir()
        (real / "b").write_text("b")
        with anyio.fail_after(30):
            while "/notes/b" not in [each.path for each in await files.list("/notes")]:
                await anyio.sleep(0.02)
        await files.write("/notes/c", "c")
        assert (real / "c").read_text() == "c"


async def test_what_the_disk_does_not_show_is_not_taken_for_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = os.stat

    def stat(path: bytes, **how: int) -> os.stat_result:
        if path in (b"a", b"sub") and "dir_fd" in how:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return look(path, **how)  # type: ignore[arg-type]  # whatever it was called with

    async with mounted(tmp_path) as (kernel, files, real):
        await files.edit([Put("/notes/a", b"a"), Put("/notes/sub/b", b"b")])
        with monkeypatch.context() as broken:
            broken.setattr(os, "stat", stat)
            (real / "a").write_text("new")
            await kernel.storage.mounts.take_notices()
            assert await files.read("/notes/a") == b"a"
            assert len(await files.list("/notes", is_deep=True)) == 2
            with pytest.raises(DiskFailed, match="cannot be looked at"):
                await files.write("/notes/a", "b")
            skipped = (await files.mounts())[0].skipped
            assert "/notes/a" in [each.path for each in skipped]
        assert await files.read("/notes/a") == b"new"
        await files.list("/notes/sub")
        assert (await files.mounts())[0].skipped == ()
        assert [each.size_bytes for each in await files.versions("/notes/sub/b")] == [1]


async def test_what_is_not_shown_is_counted_until_it_is_gone(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (kernel, files, real):
        (mount,) = kernel.storage.mounts.all()
        (real / "sub").mkdir()
        for number in range(150):
            (real / "sub" / f"link{number}").symlink_to(tmp_path)
        for _ in range(2):
            await kernel.storage.mounts.settle(mount)
            (info,) = await files.mounts()
            assert (info.n_skipped, len(info.skipped)) == (150, 100)
        (real / "sub" / "link7").unlink()
        await files.list("/notes/sub")
        assert (await files.mounts())[0].n_skipped == 149
        (real / "sub").rename(tmp_path / "sub")
        await files.list("/notes")
        assert (await files.mounts())[0].n_skipped == 0


async def test_a_folder_that_has_left_the_mount_is_watched_no_longer(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (kernel, files, real):
        await files.write("/notes/sub/deep/a", "a")
        await files.list("/notes")
        (real / "sub").rename(real / "moved")
        await files.list("/notes")
        notices = kernel.storage.mounts.notices
        assert sorted(notices._watches) == ["/notes", "/notes/moved", "/notes/moved/deep"]
        (real / "moved").rename(tmp_path / "moved")
        await files.list("/notes")
        assert sorted(notices._watches) == sorted(notices._paths.values()) == ["/notes"]
        (tmp_path / "moved" / "b").write_text("b")
        assert notices.take() == []


async def test_an_edit_that_the_folder_refuses_is_undone_as_a_whole(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (_, files, real):
        await files.write("/notes/a", "old")
        (tmp_path / "outside").write_text("secret")
        (real / "b").symlink_to(tmp_path / "outside")
        with pytest.raises(AccessDenied, match="symbolic link"):
            await files.edit(
                [Put("/notes/a", b"new"), Put("/notes/b", b"pwned"), Put("/shared/c", b"")]
            )
        assert (real / "a").read_text() == "old"
        assert await files.read_text("/notes/a") == "old"
        assert {author for author, _ in await authors(files, "/notes/a")} == {"owner"}
        assert (tmp_path / "outside").read_text() == "secret"
        for path in ("/notes/b", "/shared/c"):
            with pytest.raises(NotFound):
                await files.read(path)


async def test_the_owner_is_told_why_a_path_is_not_shown_and_nobody_else(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (kernel, files, real):
        await files.share("/notes", "/agents/ann")
        (real / "link").symlink_to("/etc/passwd")
        for look in (files.read, files.stat):
            with pytest.raises(NotFound, match="/notes/link is not shown: a symbolic link") as told:
                await look("/notes/link")
            assert "file_mounts" in told.value.hint
            with pytest.raises(NotFound, match="no file /notes/other"):
                await look("/notes/other")
        ann = Files(kernel.gate(kernel.spawn_task("ann", idle)))
        with pytest.raises(NotFound, match="no file /notes/link"):
            await ann.read("/notes/link")
        (real / "link").unlink()
        (real / "link").write_text("a file now")
        assert await files.read_text("/notes/link") == "a file now"


async def test_who_insists_on_a_version_notices_what_others_did(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (_, files, real):
        await files.write("/notes/a", "1")
        (real / "a").write_text("theirs")
        with pytest.raises(Conflict, match="version 2, not 1"):
            await files.write("/notes/a", "ours", if_version=1)
        await files.write("/notes/a", "ours", if_version=2)
        assert await files.read_text("/notes/a", version=2) == "theirs"


async def test_names_of_any_bytes_have_a_path(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    names = [b"caf\xe9.txt", "cafe\u0301".encode(), b"a\\b", "\u2025".encode(), b"plain"]
    for name in names:
        (real / os.fsdecode(name)).write_bytes(name)
    async with mounted(tmp_path) as (_, files, _):
        listed = {each.path: await files.read(each.path) for each in await files.list("/notes")}
        assert listed == {
            "/notes/caf%E9.txt": names[0],
            "/notes/caf\u00e9": names[1],
            "/notes/a%5Cb": names[2],
            "/notes/plain": names[4],
        }
        assert "no path can show" in (await files.mounts())[0].skipped[0].why
        await files.write("/notes/caf%E9.txt", "new")
        assert (real / os.fsdecode(names[0])).read_text() == "new"
        (real / os.fsdecode(names[1])).write_text("by hand")
        assert await files.read_text("/notes/caf\u00e9") == "by hand"


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


async def test_only_those_it_is_shared_with_see_a_mount(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (kernel, files, real):
        ann = Files(kernel.gate(kernel.spawn_task("ann", idle)))
        (real / "a").write_text("a")
        with pytest.raises(AccessDenied):
            await ann.read("/notes/a")
        assert await ann.mounts() == ()
        assert "/notes" not in [each.path for each in await ann.list("/")]
        for attempt in (ann.mount(str(tmp_path / "home2"), "/x"), ann.umount("/notes")):
            with pytest.raises(AccessDenied, match=r"file\.mount"):
                await attempt
        await files.share("/notes", "/agents/ann")
        assert await ann.read("/notes/a") == b"a"
        with pytest.raises(AccessDenied):
            await ann.write("/notes/a", "b")
        (info,) = await ann.mounts()
        assert (info.path, info.folder, info.skipped) == ("/notes", "", ())
        await files.share("/notes", "/agents/ann", "write")
        await ann.write("/notes/a", "b")
        assert (real / "a").read_text() == "b"
        assert (await files.versions("/notes/a"))[0].author == "/agents/ann"


async def test_a_read_only_mount_is_read_and_never_written(tmp_path: Path) -> None:
    async with mounted(tmp_path, is_read_only=True) as (_, files, real):
        (real / "a").write_text("a")
        assert await files.read("/notes/a") == b"a"
        for attempt in (
            files.write("/notes/a", "b"),
            files.delete("/notes/a"),
            files.move("/notes/a", "/shared/a"),
            files.copy("/notes/a", "/notes/b"),
        ):
            with pytest.raises(AccessDenied, match="read-only"):
                await attempt
        assert list(real.iterdir()) == [real / "a"]
        await files.copy("/notes/a", "/shared/a")


async def test_names_that_can_run_programs_are_neither_seen_nor_written(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / ".git" / "hooks").mkdir(parents=True)
    (real / ".git" / "config").write_text("x")
    (real / ".GIT").mkdir()
    (real / ".GIT" / "config").write_text("x")
    async with mounted(tmp_path) as (_, files, _):
        assert await files.list("/notes", is_deep=True) == []
        for path in ("/notes/.git/hooks/post-commit", "/notes/.GIT/config", "/notes/a/.git/x"):
            with pytest.raises(AccessDenied):
                await files.write(path, "#!/bin/sh")
        assert list((real / ".git" / "hooks").iterdir()) == []


async def test_what_does_not_fit_into_the_quota_is_left_outside(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "large").write_bytes(os.urandom(200_000))
    (real / "small").write_text("small")
    async with mounted(tmp_path, StorageConfig(quota_bytes=100_000)) as (_, files, _):
        assert [each.path for each in await files.list("/notes")] == ["/notes/small"]
        (skipped,) = (await files.mounts())[0].skipped
        assert skipped.path == "/notes/large"
        assert "quota" in skipped.why or "disk" in skipped.why
        since = (await files.watch("/notes", is_waiting=False)).next
        await files.set_quota("/notes", 1_000_000)
        with anyio.fail_after(30):
            (found,) = (await files.watch("/notes", since=since)).versions
        assert found.path == "/notes/large", "there is room for it now"
        assert (await files.mounts())[0].skipped == ()


async def test_a_mount_that_is_taken_away_leaves_the_folder_and_the_versions(
    tmp_path: Path,
) -> None:
    async with mounted(tmp_path) as (kernel, files, real):
        await files.write("/notes/a", "a")
        ann = Files(kernel.gate(kernel.spawn_task("ann", idle)))
        await files.share("/notes", "/agents/ann")
        assert await ann.read("/notes/a", version=1) == b"a"
        await files.umount("/notes")
        with pytest.raises(InvalidCall, match="no folder /notes"):
            await ann.read("/notes/a", version=1)
        assert (real / "a").read_text() == "a"
        with pytest.raises(NotFound, match="no file /notes/a"):
            await files.read("/notes/a")
        with pytest.raises(InvalidCall, match="no folder /notes"):
            await files.write("/notes/a", "b")
        with pytest.raises(InvalidCall, match="no folder /other"):
            await files.versions("/other/a")
        assert await files.read("/notes/a", version=1) == b"a"
        (real / "a").write_text("b")
        await files.mount(str(real), "/notes")
        assert await authors(files, "/notes/a") == [("outside", 1), ("kernel", None), ("owner", 1)]
        await files.umount("/notes")
        for everybodys in ("/", "/agents"):
            with pytest.raises(InvalidCall):
                await files.purge(everybodys)
        assert (await files.purge("/notes", keep=0)).n_versions == 4
        assert [each.stored_bytes for each in (await files.usage()).usages] == [0]


async def test_while_a_mount_is_taken_away_others_are_written_and_it_stays_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.storage.mounts.BATCH_FILES", 2)
    (tmp_path / "other").mkdir()
    async with mounted(tmp_path) as (_, files, real):
        for number in range(60):
            (real / f"{number:02}").write_text("a")
        await files.mount(str(tmp_path / "other"), "/other")
        await files.list("/notes")
        is_left = anyio.Event()

        async def leave() -> None:
            await files.umount("/notes")
            is_left.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave)
            await anyio.lowlevel.checkpoint()
            await files.write("/other/a", "written meanwhile")
            assert len(await files.mounts()) == 2, "it is not done with the first"
            while not is_left.is_set():
                with suppress(AiosError):
                    await files.read("/notes/00")
                (real / "00").write_text("by hand")
                await anyio.lowlevel.checkpoint()
        assert await authors(files, "/notes/00") == [("kernel", None), ("outside", 1)]
        with pytest.raises(NotFound):
            await files.umount("/notes")


async def test_without_watches_a_folder_is_compared_and_says_so(tmp_path: Path) -> None:
    config = StorageConfig(rescan_s=0.05)
    async with mounted(tmp_path, config) as (kernel, files, real):
        mounts = kernel.storage.mounts
        mounts.notices.close()
        mounts.notices._why_none = "no notices"
        await mounts.settle(mounts.all()[0])
        assert not (await files.mounts())[0].is_watched
        since = (await files.watch("/notes", is_waiting=False)).next
        (real / "a").write_text("x")
        with anyio.fail_after(30):
            changes = await files.watch("/notes", since=since)
        assert [each.path for each in changes.versions] == ["/notes/a"]
