"""Workspaces: what runs change in real folders, by whom, and across a kernel that is killed."""

import errno
import os
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import anyio.from_thread
import pytest
from tests.kernel.tools.offering import idle

from aios.abi.undo import Undo, Undone
from aios.config import Config, Home
from aios.disk.db import MAX_READERS
from aios.disk.folder import Folder, Parts, Stamp
from aios.errors import Conflict
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.process import Run
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def kernel_on(tmp_path: Path) -> AsyncIterator[Kernel]:
    home = Home(tmp_path / "home")
    async with open_kernel(Config(), home, engines={}, is_durable=True) as kernel:
        yield kernel


def run_of(kernel: Kernel, name: str) -> Run:
    process = kernel.table.get(kernel.spawn_task(name, idle))
    return Run(process, 1, "tool_run", anyio.CancelScope())


async def undo(kernel: Kernel, run: Run) -> Undone:
    return (await kernel.init_gate().call(Undo(run.process.pid))).value


async def changed(kernel: Kernel, work: Path) -> tuple[Run, str]:
    """A run that has changed a file of a folder, and the path by which an undo would bring it back."""
    ann = run_of(kernel, "ann")
    async with kernel.storage.workspaces.watching(ann, "it", [work]):
        (work / "a").write_text("after")
    found = (await kernel.init_gate().call(Undo(ann.process.pid, is_dry_run=True))).value
    (path,) = found.paths
    return ann, path.path


async def test_runs_side_by_side_get_what_was_changed_while_they_ran(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    async with kernel_on(tmp_path) as kernel, AsyncExitStack() as ann_runs:
        ann, bob = run_of(kernel, "ann"), run_of(kernel, "bob")
        watching = kernel.storage.workspaces.watching
        await ann_runs.enter_async_context(watching(ann, "ann's", [work]))
        (work / "a").write_text("ann alone")
        async with watching(bob, "bob's", [work]):
            with pytest.raises(Conflict):
                await undo(kernel, ann)
            (work / "b").write_text("both run, bob ends first")
        await ann_runs.aclose()
        assert [path.real for path in (await undo(kernel, ann)).paths] == [f"{work}/a"]
        done = await undo(kernel, bob)
        assert [act.message for act in done.acts] == ["bob's, while others ran"]
        assert list(work.iterdir()) == []


async def test_folders_in_each_other_are_one_workspace_and_two_are_one_act(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "sub").mkdir(parents=True)
    two.mkdir()
    async with kernel_on(tmp_path) as kernel:
        ann = run_of(kernel, "ann")
        async with kernel.storage.workspaces.watching(ann, "it", [one / "sub", one, two]):
            (one / "sub" / "a").write_text("1")
            (two / "b").write_text("2")
        done = await undo(kernel, ann)
        assert (len(done.acts), len(done.paths)) == (1, 2)


async def test_the_state_of_aios_is_never_copied_into_itself(tmp_path: Path) -> None:
    async with kernel_on(tmp_path) as kernel:
        ann = run_of(kernel, "ann")
        async with kernel.storage.workspaces.watching(ann, "it", [tmp_path]):
            (tmp_path / "a").write_text("1")
        done = await undo(kernel, ann)
        assert not done.paths
        assert any("holds, or is in, the state of AIOS" in each.why for each in done.cannot)
        assert (tmp_path / "a").exists()


async def test_a_run_that_was_cut_off_with_its_kernel_can_be_undone(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "a").write_text("before")
    async with kernel_on(tmp_path) as kernel:
        ann = run_of(kernel, "ann")
        spaces = kernel.storage.workspaces
        space, act = spaces._get(work), spaces._act(ann, "it")
        await spaces._enter(space, act)
        (work / "a").write_text("after")  # and the kernel ends before it looks
    async with kernel_on(tmp_path) as kernel:
        bob = run_of(kernel, "bob")
        async with kernel.storage.workspaces.watching(bob, "it", [work]):
            pass
        done = (await kernel.init_gate().call(Undo(ann.process.pid))).value
        assert [path.what for path in done.paths] == ["restored"]
        assert (work / "a").read_text() == "before"


async def test_an_undo_that_was_cut_off_is_carried_out_later(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "a").write_text("before")
    async with kernel_on(tmp_path) as kernel:
        ann, path = await changed(kernel, work)
        kernel.storage.workspaces.write_back = skip  # type: ignore[method-assign,assignment]  # killed between the commit and the file
        await undo(kernel, ann)
        assert (work / "a").read_text() == "after"
    async with kernel_on(tmp_path) as kernel:
        await kernel.storage.open()
        await kernel.storage.workspaces.refresh(path)
        assert (work / "a").read_text() == "before"


@pytest.mark.parametrize("is_killed", [False, True])
async def test_what_an_undo_could_not_write_is_not_taken_for_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_killed: bool
) -> None:
    monkeypatch.setattr("aios.kernel.storage.outside.RACY_NS", 0)  # stamps are trusted at once
    work = tmp_path / "work"
    work.mkdir()
    (work / "a").write_text("before")
    async with kernel_on(tmp_path) as kernel:
        ann, path = await changed(kernel, work)
        if is_killed:
            kernel.storage.workspaces.write_back = skip  # type: ignore[method-assign,assignment]  # killed between the commit and the file
            await undo(kernel, ann)
        else:
            monkeypatch.setattr(Folder, "replace", full)
            done = await undo(kernel, ann)
            assert [each.what for each in done.conflicts] == [f"{work}/a"]
    monkeypatch.setattr(Folder, "replace", full)
    async with kernel_on(tmp_path) as kernel:
        files = Files(kernel.init_gate())
        await kernel.storage.open()
        await kernel.storage.workspaces.refresh(path)
        assert (work / "a").read_text() == "after"
        assert await files.read_text(path) == "after"
        assert await files.read_text(path, version=3) == "before"


@pytest.mark.parametrize("is_killed", [False, True])
async def test_a_move_that_an_undo_cannot_take_back_leaves_the_file_under_its_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_killed: bool
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "a").write_text("a")
    async with kernel_on(tmp_path) as kernel:
        ann = run_of(kernel, "ann")
        async with kernel.storage.workspaces.watching(ann, "it", [work]):
            (work / "a").rename(work / "b")
            (work / "made").write_text("made")
        (path, *_) = (await kernel.init_gate().call(Undo(ann.process.pid, is_dry_run=True))).value.paths  # fmt: skip
        if is_killed:
            kernel.storage.workspaces.write_back = skip  # type: ignore[method-assign,assignment]  # killed between the commit and the file
            await undo(kernel, ann)
        else:
            monkeypatch.setattr(Folder, "replace", full)
            done = await undo(kernel, ann)
            assert {each.what for each in done.conflicts} == {f"{work}/a", f"{work}/b"}
            assert [each.real for each in done.paths] == [f"{work}/made"]
    monkeypatch.setattr(Folder, "replace", full)
    async with kernel_on(tmp_path) as kernel:
        await kernel.storage.open()
        await kernel.storage.workspaces.refresh(path.path)
        assert [each.name for each in work.iterdir()] == ["b"]
        assert await Files(kernel.init_gate()).read_text(path.path[:-1] + "b") == "a"


async def moved(kernel: Kernel, work: Path) -> tuple[Run, str]:
    """A run that has moved `a` to `b`, and the path of the folder."""
    ann = run_of(kernel, "ann")
    async with kernel.storage.workspaces.watching(ann, "it", [work]):
        (work / "a").rename(work / "b")
    found = (await kernel.init_gate().call(Undo(ann.process.pid, is_dry_run=True))).value
    return ann, found.paths[0].path.rpartition("/")[0]


async def test_a_move_that_an_undo_was_taking_back_when_it_was_killed_leaves_one_name(
    tmp_path: Path,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "a").write_text("a")
    async with kernel_on(tmp_path) as kernel:
        ann, path = await moved(kernel, work)
        kernel.storage.workspaces.write_back = skip  # type: ignore[method-assign,assignment]
        await undo(kernel, ann)
        (work / "a").write_text("a")  # killed behind the first file, before it is written down
    async with kernel_on(tmp_path) as kernel:
        await kernel.storage.open()
        await kernel.storage.workspaces.refresh(path)
        assert [each.name for each in work.iterdir()] == ["a"]
        files = Files(kernel.init_gate())
        assert [each.path for each in await files.list(path)] == [f"{path}/a"]


async def test_a_move_whose_undo_was_cut_off_behind_what_it_could_not_write_is_undone_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.storage.working_copy.SLICE_FILES", 1)
    work = tmp_path / "work"
    work.mkdir()
    (work / "a").write_text("a")
    async with kernel_on(tmp_path) as kernel:
        ann, path = await moved(kernel, work)

        def cut_off(*_: object) -> None:
            anyio.from_thread.run_sync(scope.cancel)
            full()

        with monkeypatch.context() as patch, anyio.CancelScope() as scope:
            patch.setattr(Folder, "replace", cut_off)
            await undo(kernel, ann)
        assert scope.cancelled_caught
        assert [each.name for each in work.iterdir()] == ["b"]
    async with kernel_on(tmp_path) as kernel:
        await kernel.storage.open()
        await kernel.storage.workspaces.refresh(path)
        assert [(each.name, each.read_text()) for each in work.iterdir()] == [("a", "a")]


async def test_an_undo_removes_what_fills_the_disk_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "a").write_text("before")
    replace = Folder.replace

    def limited(
        folder: Folder, parts: Parts, pieces: Iterable[bytes], expected: Stamp | None
    ) -> Stamp:
        if (work / "huge").exists():
            full()
        return replace(folder, parts, pieces, expected)

    monkeypatch.setattr(Folder, "replace", limited)
    async with kernel_on(tmp_path) as kernel:
        ann = run_of(kernel, "ann")
        async with kernel.storage.workspaces.watching(ann, "it", [work]):
            (work / "a").write_text("after")
            (work / "huge").write_text("huge")
        assert not (await undo(kernel, ann)).conflicts
        assert [(each.name, each.read_text()) for each in work.iterdir()] == [("a", "before")]


async def test_undos_of_many_files_let_others_read_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.storage.working_copy.SLICE_FILES", 10)
    works = [tmp_path / f"work{n}" for n in range(MAX_READERS)]
    have_begun, may_go = anyio.Event(), anyio.Event()
    begun: set[int] = set()
    remove = Folder.remove

    def held(folder: Folder, parts: Parts, expected: Stamp) -> None:
        begun.add(folder.inode)
        if len(begun) == len(works):
            anyio.from_thread.run_sync(have_begun.set)
        anyio.from_thread.run(may_go.wait)
        remove(folder, parts, expected)

    monkeypatch.setattr(Folder, "remove", held)
    async with kernel_on(tmp_path) as kernel:
        runs = [run_of(kernel, work.name) for work in works]
        for run, work in zip(runs, works, strict=True):
            work.mkdir()
            async with kernel.storage.workspaces.watching(run, "it", [work]):
                for n in range(100):
                    (work / f"{n}").write_text("made")
        with anyio.fail_after(60):
            async with anyio.create_task_group() as undos:
                for run in runs:
                    undos.start_soon(undo, kernel, run)
                await have_begun.wait()
                undos.start_soon(release, may_go)  # once the read below is waiting, too
                left = await kernel.storage._db.read(lambda _: [any(w.iterdir()) for w in works])
        assert left == [True] * len(works)
        assert [list(work.iterdir()) for work in works] == [[]] * len(works)


async def release(event: anyio.Event) -> None:
    event.set()


def full(*_: object) -> None:
    """In the place of what gives a real file its content."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def skip(*_: object) -> dict[str, str]:
    return {}


async def test_what_a_link_was_put_in_the_place_of_comes_back_once_that_is_gone(
    tmp_path: Path,
) -> None:
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    (work / "sub").mkdir(parents=True)
    elsewhere.mkdir()
    (work / "a").write_text("a")
    (work / "sub" / "b").write_text("b")
    async with kernel_on(tmp_path) as kernel:
        ann = run_of(kernel, "ann")
        async with kernel.storage.workspaces.watching(ann, "it", [work]):
            (work / "a").unlink()
            (work / "a").symlink_to(elsewhere)
            shutil.rmtree(work / "sub")
            (work / "sub").symlink_to(elsewhere)
        done = await undo(kernel, ann)
        assert [each.what for each in done.conflicts] == [f"{work}/a", f"{work}/sub/b"]
        assert all("a symbolic link stands at" in each.why for each in done.conflicts)
        assert not list(elsewhere.iterdir())
        (work / "a").unlink()
        (work / "sub").unlink()
        await undo(kernel, ann)
        assert ((work / "a").read_text(), (work / "sub" / "b").read_text()) == ("a", "b")


async def test_a_link_in_the_place_of_a_workspace_is_followed_neither_by_undo_nor_by_a_run(
    tmp_path: Path,
) -> None:
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    work.mkdir()
    elsewhere.mkdir()
    async with kernel_on(tmp_path) as kernel:
        ann = run_of(kernel, "ann")
        for change in (lambda: (work / "x").write_text("x"), (work / "x").unlink):
            async with kernel.storage.workspaces.watching(ann, "it", [work]):
                change()
        work.rmdir()
        work.symlink_to(elsewhere)
        done = (await kernel.init_gate().call(Undo(ann.process.pid, last=1))).value
        assert [each.what for each in done.conflicts] == [f"{work}/x"]
        assert "is a symbolic link now" in done.conflicts[0].why
        assert not list(elsewhere.iterdir())
        bob = run_of(kernel, "bob")
        async with kernel.storage.workspaces.watching(bob, "it", [work]):
            (elsewhere / "theirs").write_text("by the owner, while it runs")
        done = await undo(kernel, bob)
        assert (done.acts, "is a symbolic link now" in done.cannot[0].why) == ((), True)
        assert (elsewhere / "theirs").exists()


async def test_a_folder_that_was_replaced_by_its_copy_is_undone_where_it_is_now(
    tmp_path: Path,
) -> None:
    work, old = tmp_path / "work", tmp_path / "old"
    work.mkdir()
    (work / "a").write_text("before")
    async with kernel_on(tmp_path) as kernel:
        ann, _ = await changed(kernel, work)
        work.rename(old)
        shutil.copytree(old, work)
        assert [each.what for each in (await undo(kernel, ann)).paths] == ["restored"]
        assert ((work / "a").read_text(), (old / "a").read_text()) == ("before", "after")


async def test_folders_are_open_only_while_they_are_looked_at(tmp_path: Path) -> None:
    async with kernel_on(tmp_path) as kernel:
        work = tmp_path / "work"
        work.mkdir()
        ann, _ = await changed(kernel, work)
        await undo(kernel, ann)
        open_now = [each.resolve() for each in Path("/proc/self/fd").iterdir()]
        assert not [each for each in open_now if each.is_relative_to(work)]


async def test_an_undo_that_was_cut_off_is_carried_out_by_the_next(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "a").write_text("before")
    async with kernel_on(tmp_path) as kernel:
        ann, _ = await changed(kernel, work)
        kernel.storage.workspaces.write_back = skip  # type: ignore[method-assign,assignment]  # killed between the commit and the file
        await undo(kernel, ann)
        assert (work / "a").read_text() == "after"
    async with kernel_on(tmp_path) as kernel:
        assert not (await undo(kernel, ann)).acts
        assert (work / "a").read_text() == "before"
