from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from tests.kernel.storage.test_mounts import mounted

from aios.abi.storage import FileWatch
from aios.config import StorageConfig
from aios.errors import ResourceExhausted
from aios.kernel.kernel import Kernel
from aios.kernel.storage import notices as notices_module
from aios.kernel.storage.mount_tables import Mount
from aios.kernel.storage.mounts import Mounts

pytestmark = pytest.mark.anyio


async def newest_change(kernel: Kernel) -> int:
    call = FileWatch(path="/notes", is_waiting=False)
    return (await kernel.init_gate().call(call)).value.next


async def test_what_one_leaves_of_the_notices_is_recorded_without_a_further_one(
    tmp_path: Path,
) -> None:
    async with mounted(tmp_path) as (kernel, files, real):
        notices, since = kernel.storage.mounts.notices, await newest_change(kernel)
        await anyio.wait_all_tasks_blocked()
        for name in ("a", "b", "c"):
            (real / name).write_text(name)
        assert [path for path, _ in notices.take("/notes/b")] == ["/notes/b"]
        assert notices.count() == 2
        with anyio.fail_after(30):
            changes = await files.watch("/notes", since=since)
        assert [each.path for each in changes.versions] == ["/notes/a", "/notes/c"]


async def test_so_many_are_taken_the_first_ones_first(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (kernel, _, real):
        for name in "dabce":
            (real / name).write_text(name)
        notices = kernel.storage.mounts.notices
        assert [path for path, _ in notices.take(limit=2)] == ["/notes/d", "/notes/a"]
        assert [path for path, _ in notices.take()] == ["/notes/b", "/notes/c", "/notes/e"]
        assert notices.count() == 0


@pytest.mark.parametrize("is_cut_off", [True, False])
async def test_what_was_noticed_is_looked_at_by_others_when_the_look_is_cut_off_or_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_cut_off: bool
) -> None:
    look, scope, cut = Mounts._look, anyio.CancelScope(), list[tuple[str, bool]]()

    async def breaks_off(_: Mounts, *noticed: tuple[str, bool]) -> None:
        monkeypatch.setattr(Mounts, "_look", look)
        cut.extend(noticed)
        if not is_cut_off:
            raise ResourceExhausted("the disk is full")
        scope.cancel()
        await anyio.sleep_forever()

    async with mounted(tmp_path) as (kernel, files, real):
        await files.write("/notes/a", "one")

        async def list_them() -> None:
            with scope, suppress(ResourceExhausted):
                await files.list("/notes")

        async with anyio.create_task_group() as tasks:
            async with kernel.storage.mounts._turn:
                tasks.start_soon(list_them)
                await anyio.wait_all_tasks_blocked()
                monkeypatch.setattr(Mounts, "_look", breaks_off)
                (real / "a").write_text("three")
        assert cut == [("/notes/a", True)]
        with anyio.fail_after(30):
            assert [each.size_bytes for each in await files.list("/notes")] == [5]


async def test_what_is_put_back_is_joined_with_what_was_noticed_meanwhile(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (kernel, files, real):
        notices = kernel.storage.mounts.notices
        await files.write("/notes/b", "b")
        await files.list("/notes")
        (real / "a").write_text("a")
        with suppress(ZeroDivisionError), notices.taken() as taken:
            assert taken == [("/notes/a", True)]
            (real / "b").unlink()
            (real / "a").unlink()
            notices.count()
            raise ZeroDivisionError
        assert notices.take() == [("/notes/a", True), ("/notes/b", False)]
        assert notices.take() == []


async def test_a_flood_of_changes_fills_no_memory_and_has_the_mount_compared_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices_module, "MAX_NOTICED", 1_000)
    settle, n_settled = Mounts.settle, 0

    async with mounted(tmp_path, StorageConfig(rescan_s=600.0)) as (kernel, files, real):
        (mount,), notices = kernel.storage.mounts.all(), kernel.storage.mounts.notices

        def flood() -> None:
            for number in range(3_000):
                (real / f"{number}").touch()
                (real / f"{number}").unlink()
                if not number % 100:
                    notices.take(limit=20)
                    assert len(notices._noticed) <= 1_000

        async def meanwhile(self: Mounts, each: Mount) -> None:
            nonlocal n_settled
            n_settled += 1
            await settle(self, each)
            if n_settled == 1:
                flood()
                (real / "kept" / "b").write_text("b")

        monkeypatch.setattr(Mounts, "settle", meanwhile)
        (real / "kept").mkdir()
        assert not await files.list("/notes")
        (real / "kept" / "a").write_text("a")
        flood()
        assert mount.is_behind
        with anyio.fail_after(30):
            while not mount.n_made_good:
                await anyio.sleep(0.01)
        await anyio.wait_all_tasks_blocked()
        assert (n_settled, mount.is_behind) == (1, True)
        assert not (await files.mounts())[0].is_watched
        assert [each.path for each in await files.list("/notes/kept")] == [
            "/notes/kept/a",
            "/notes/kept/b",
        ]
        await kernel.mounting._attempt(mount, only_if_due=True)
        assert (n_settled, mount.is_behind) == (2, False)
        assert (await files.mounts())[0].is_watched


async def test_while_a_large_folder_is_compared_calls_come_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices_module, "MAX_NOTICED", 100)
    monkeypatch.setattr("aios.kernel.storage.mounts.BATCH_FILES", 20)
    (tmp_path / "other").mkdir()
    async with mounted(tmp_path, StorageConfig(rescan_s=600.0)) as (kernel, files, real):
        (mount,), notices = kernel.storage.mounts.all(), kernel.storage.mounts.notices
        await files.mount(str(tmp_path / "other"), "/other")
        await files.write("/other/a", "a")

        async def n_read_meanwhile() -> int:
            notices.count()
            n_read = 0
            with anyio.fail_after(60):
                while mount.is_behind:
                    await files.read("/other/a")
                    n_read += 1
                    if n_read == 6 and not (real / "000").exists():
                        await files.write("/notes/000", "anew")
            return n_read

        for number in range(600):
            (real / f"{number:03}").write_text("one")
        assert await n_read_meanwhile() > 10
        assert len(await files.list("/notes")) == 600
        for each in real.iterdir():
            each.unlink()
        assert await n_read_meanwhile() > 10
        assert [each.path for each in await files.list("/notes")] == ["/notes/000"]
        assert await files.read("/notes/000") == b"anew"
        assert len(await files.versions("/notes/000")) == 3, "the file, gone, and anew"


async def test_who_lists_a_large_folder_that_was_not_looked_at_yet_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.storage.mounts.BATCH_FILES", 20)
    (tmp_path / "other").mkdir()
    async with mounted(tmp_path, StorageConfig(rescan_s=600.0)) as (kernel, files, real):
        (mount,), n_listed, n_read = kernel.storage.mounts.all(), -1, 0
        await files.mount(str(tmp_path / "other"), "/other")
        await files.write("/other/a", "a")
        kernel.storage.mounts.notices.unwatch(mount)
        mount.is_watched = False
        for number in range(600):
            (real / f"{number:03}").write_text("one")

        async def list_all() -> None:
            nonlocal n_listed
            n_listed = len(await files.list("/notes"))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(list_all)
                while n_listed < 0:
                    await files.read("/other/a")
                    n_read += 1
        assert n_listed == 600
        assert n_read > 10
