"""Going back in a mount that has something in it which is never written to."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.kernel.conftest import OpenKernel

from aios.abi.storage import Delete, Put
from aios.config import Config, Home
from aios.errors import AccessDenied, NotFound
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


@asynccontextmanager
async def changed(tmp_path: Path) -> AsyncIterator[tuple[Kernel, Files, Path]]:
    """A mount in which ann has changed three files, of which one has a second name since, and one lies behind a link."""
    real = tmp_path / "real"
    real.mkdir()
    for name in ("a", "b", "sub/c"):
        (real / name).parent.mkdir(exist_ok=True)
        (real / name).write_text("old")
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        owner = Files(kernel.init_gate())
        await owner.mount(str(real), "/notes")
        with anyio.fail_after(30):
            await kernel.storage.mounts.all()[0].settled.wait()
        await owner.share("/notes", "/agents/ann", "write")
        ann = Files(kernel.gate(kernel.spawn_task("ann", idle)))
        paths = ("/notes/a", "/notes/b", "/notes/sub/c")
        await ann.edit([Put(path, b"new") for path in paths])
        (tmp_path / "second").hardlink_to(real / "b")
        (real / "sub").rename(tmp_path / "moved")
        (real / "sub").symlink_to(tmp_path / "moved")
        await owner.list("/notes")
        yield kernel, owner, real


def texts(real: Path) -> list[str]:
    return [(real / name).read_text() for name in ("a", "b", "sub/c")]


async def test_a_rollback_to_a_moment_leaves_and_names_what_is_never_written_to(
    tmp_path: Path,
) -> None:
    async with changed(tmp_path) as (kernel, owner, real):
        now_unix_s = kernel.clock.unix_s() + 1
        assert (await owner.rollback("/notes", unix_s=now_unix_s)).left == (), "it is so already"
        (newest, *_) = await owner.versions("/notes/a")
        edited = await owner.rollback("/notes", unix_s=newest.unix_s - 1e-6)
        assert edited.left == ("/notes/b", "/notes/sub/c")
        assert [each.path for each in edited.versions] == ["/notes/a"]
        assert texts(real) == ["old", "new", "new"]
        with pytest.raises(AccessDenied, match="2 names"):
            await owner.rollback("/notes/b", version=1)


async def test_a_rollback_to_a_moment_whose_versions_are_purged_deletes_nothing(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        files = Files(kernel.init_gate())
        for text in ("1", "2"):
            await files.write("/shared/a", text)
        await files.write("/shared/new", "new")
        (newest, _) = await files.versions("/shared/a")
        await files.purge("/shared", keep=1)
        with pytest.raises(NotFound, match="was then is purged"):
            await files.rollback("/shared/a", unix_s=newest.unix_s - 1e-6)
        edited = await files.rollback("/shared", unix_s=newest.unix_s - 1e-6)
        assert edited.left == ("/shared/a",)
        assert [each.path for each in edited.versions] == ["/shared/new"], "it was not there"
        assert await files.read_text("/shared/a") == "2"
        assert (await files.rollback("/shared/a", unix_s=newest.unix_s)).versions == ()


async def test_a_file_comes_back_where_a_folder_is_now(booted: OpenKernel) -> None:
    async with booted() as kernel:
        files = Files(kernel.init_gate())
        await files.write("/shared/t/plan", "a file")
        then_unix_s = (await files.stat("/shared/t/plan")).changed_unix_s
        made = await files.edit([Delete("/shared/t/plan"), Put("/shared/t/plan/part", b"new")])
        undone = await files.rollback(transaction=made.transaction)
        assert await files.read_text("/shared/t/plan") == "a file"
        await files.rollback(transaction=undone.transaction)
        assert await files.read_text("/shared/t/plan/part") == "new"
        await files.rollback("/shared/t", unix_s=then_unix_s)
        assert await files.read_text("/shared/t/plan") == "a file"


async def test_a_file_in_whose_place_a_folder_came_is_back_when_a_mount_refuses_the_rest(
    tmp_path: Path,
) -> None:
    async with changed(tmp_path) as (_, owner, real):
        puts = [Put("/notes/a/part", b"new"), Put("/notes/b", b"refused")]
        with pytest.raises(AccessDenied, match="2 names"):
            await owner.edit([Delete("/notes/a"), *puts])
        assert texts(real) == ["new", "new", "new"]
        assert await owner.read_text("/notes/a") == "new"


async def test_a_purge_frees_of_the_quota_only_what_no_later_version_has(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        files = Files(kernel.init_gate())

        async def stored_bytes() -> int:
            return sum(each.stored_bytes for each in (await files.usage()).usages)

        data = os.urandom(40_000)
        await files.write("/shared/a", data)
        for _ in range(3):
            await files.append("/shared/a", b"x")
            purged = await files.purge("/shared/a", keep=1)
            assert purged.size_bytes < 20_000
            assert await stored_bytes() > 40_000
        await files.write("/shared/a", b"short")
        await files.purge("/shared/a", keep=1)
        assert await stored_bytes() < 1_000
        assert (await files.check()).faults == ()
