import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.kernel.storage.test_mounts import mounted

from aios.abi.storage import Delete, Edit, Move, Put
from aios.config import Config, Home
from aios.disk.folder import Folder
from aios.errors import AccessDenied, Conflict, InvalidCall, NotFound
from aios.kernel.kernel import open_kernel
from aios.kernel.storage.mounting import Mounting
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


async def killed(*_: object) -> None:
    """In the place of what writes the real files: the kernel dies behind the commit of the versions."""


async def deaf(_: Mounting) -> None:
    """In the place of what follows the folders: so a kernel that should be dead does nothing more."""


@asynccontextmanager
async def left_by_a_killed_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *edits: Edit
) -> AsyncIterator[tuple[Files, Path, anyio.Event]]:
    """The kernel after one that was killed before it wrote `edits` to the real files; it settles its mounts only once the event is set."""
    with monkeypatch.context() as patch:
        patch.setattr(Mounting, "_listen", deaf)
        patch.setattr("aios.kernel.storage.outside.RACY_NS", 0)  # stamps are trusted at once
        async with mounted(tmp_path) as (_, files, _):
            await files.edit([Put("/notes/a.md", b"one"), Put("/notes/x/y", b"y")])
            patch.setattr(Mounts, "_carry_out", killed)
            await files.edit(edits)
    is_their_turn = anyio.Event()
    settle_wanted = Mounting._settle_wanted

    async def late(mounting: Mounting) -> None:
        await is_their_turn.wait()
        await settle_wanted(mounting)

    monkeypatch.setattr(Mounting, "_settle_wanted", late)
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        await kernel.storage.open()
        files = Files(kernel.init_gate())
        yield files, tmp_path / "real", is_their_turn
        is_their_turn.set()
        with anyio.fail_after(30):
            for mount in kernel.storage.mounts.all():
                await mount.settled.wait()
        assert (await files.check()).faults == ()


def in_folder(real: Path) -> dict[str, str]:
    return {str(p.relative_to(real)): p.read_text() for p in real.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "look", [lambda files: files.read("/notes/b.md"), lambda files: files.list("/notes")]
)
async def test_what_a_killed_kernel_left_is_written_before_anybody_looks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    look: Callable[[Files], Awaitable[object]],
) -> None:
    move = Move("/notes/a.md", "/notes/b.md")
    async with left_by_a_killed_kernel(tmp_path, monkeypatch, move) as (files, real, _):
        await look(files)
        assert in_folder(real) == {"b.md": "one", "x/y": "y"}
    async with mounted(tmp_path) as (_, files, real):
        assert in_folder(real) == {"b.md": "one", "x/y": "y"}
        assert [each.author for each in await files.versions("/notes/b.md")] == ["owner"]


@pytest.mark.parametrize(
    ("edits", "found"),
    [
        ((Delete("/notes/x"), Put("/notes/x", b"now")), {"a.md": "one", "x": "now"}),
        ((Delete("/notes/a.md"), Put("/notes/a.md/b", b"now")), {"a.md/b": "now", "x/y": "y"}),
    ],
)
async def test_a_file_in_the_place_of_a_folder_or_the_other_way_round_is_written_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edits: tuple[Edit, ...], found: dict[str, str]
) -> None:
    async with left_by_a_killed_kernel(tmp_path, monkeypatch, *edits):
        pass
    async with mounted(tmp_path) as (_, files, real):
        assert in_folder(real) == found
        listed = [each.path for each in await files.list("/notes", is_deep=True)]
        assert listed == [f"/notes/{each}" for each in found]


async def test_what_a_killed_kernel_left_is_written_before_the_mount_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = Move("/notes/a.md", "/notes/b.md")
    async with left_by_a_killed_kernel(tmp_path, monkeypatch, move) as (files, real, _):
        await files.umount("/notes")
        assert in_folder(real) == {"b.md": "one", "x/y": "y"}


def full(*_: object) -> None:
    """In the place of what gives a real file its content."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("target", ["/notes/b.md", "/zoo/b.md"])
async def test_a_move_that_cannot_be_ended_after_a_kill_leaves_the_file_under_its_old_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    (tmp_path / "zoo").mkdir()
    async with mounted(tmp_path) as (_, files, _):
        await files.mount(str(tmp_path / "zoo"), "/zoo")
    edits = (Move("/notes/a.md", target), Delete("/notes/x"))
    async with left_by_a_killed_kernel(tmp_path, monkeypatch, *edits) as (files, real, settle):
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "replace", full)
            settle.set()
            assert await files.read_text("/notes/a.md") == "one"
            assert [each.path for each in await files.list("/notes")] == ["/notes/a.md"]
        assert in_folder(real) == {"a.md": "one"}
        assert await files.list("/zoo") == []
        assert await files.read_text(target, version=1) == "one"


async def test_what_cannot_be_written_after_a_kill_is_not_shown_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = (Put("/notes/a.md", b"two"), Put("/notes/new", b"new"))
    async with left_by_a_killed_kernel(tmp_path, monkeypatch, *edits) as (files, real, settle):
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "replace", full)
            settle.set()
            assert await files.read_text("/notes/a.md") == "one"
        assert in_folder(real) == {"a.md": "one", "x/y": "y"}
        listed = [each.path for each in await files.list("/notes", is_deep=True)]
        assert listed == ["/notes/a.md", "/notes/x/y"]
        assert await files.read_text("/notes/a.md", version=2) == "two"
        assert await files.read_text("/notes/new", version=1) == "new"
        await files.rollback("/notes/a.md", version=2)
        assert (real / "a.md").read_text() == "two"
