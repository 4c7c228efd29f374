"""What one call may change: what a policy forbids below a folder where only the folder is named, and how much."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import apsw
import pytest
from tests.kernel.conftest import OpenKernel

from aios.abi.storage import Copy, Delete, Move, Put
from aios.config import AccessConfig, ApprovalsConfig, Config, Home
from aios.errors import AccessDenied, TooLarge
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.storage import manager, versions
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio

BAN = 'forbid(principal == Agent::"ann", action, resource in Path::"/shared/team/vault");'
UNREAD = 'forbid(principal == Agent::"ann", action == Action::"file.read", resource in Path::"/shared/team/vault");'
UNWRITTEN = 'forbid(principal == Agent::"ann", action == Action::"file.write", resource in Path::"/shared/team/vault");'


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


@asynccontextmanager
async def banned(home: Path, policy: str) -> AsyncIterator[tuple[Kernel, Files, Files]]:
    """The owner, and ann, who has a ban on a folder below one that she may use."""
    (home / "policies").mkdir()
    (home / "policies" / "mine.cedar").write_text(policy)
    config = Config(access=AccessConfig("full"), approvals=ApprovalsConfig(timeout_s=0))
    async with open_kernel(config, Home(home), engines={}) as kernel:
        owner = Files(kernel.init_gate())
        await owner.write("/shared/team/a", "a")
        await owner.write("/shared/team/vault/key", "key")
        yield kernel, owner, Files(kernel.gate(kernel.spawn_task("ann", idle)))


@pytest.mark.parametrize("policy", [BAN, UNREAD, UNWRITTEN])
async def test_a_ban_below_a_folder_holds_when_the_folder_is_copied_moved_or_deleted(
    tmp_path: Path, policy: str
) -> None:
    async with banned(tmp_path, policy) as (_, owner, ann):
        with pytest.raises(AccessDenied) as error:
            await ann.edit([Move("/shared/team", "mine")])
        assert ("vault" in error.value.message) is (policy is UNWRITTEN), "a name is told"
        if policy is not UNREAD:
            with pytest.raises(AccessDenied):
                await ann.delete("/shared/team")
        if policy is UNWRITTEN:
            await ann.copy("/shared/team", "/agents/ann/mine")
        else:
            with pytest.raises(AccessDenied, match="may not read all of /shared/team"):
                await ann.copy("/shared/team", "/agents/ann/mine")
        if policy is not UNREAD:
            await ann.write("new/vault/b", "b")
            with pytest.raises(AccessDenied):
                await ann.copy("new", "/shared/team")
        assert await owner.read_text("/shared/team/vault/key") == "key"
        assert await owner.read_text("/shared/team/a") == "a"


async def test_a_rollback_of_a_folder_leaves_what_is_banned_below_it(tmp_path: Path) -> None:
    async with banned(tmp_path, UNWRITTEN) as (_, owner, ann):
        edited = await ann.rollback("/shared/team", unix_s=0)
        assert [each.path for each in edited.versions] == ["/shared/team/a"]
        assert edited.left == ("/shared/team/vault/key",)
        assert await owner.read_text("/shared/team/vault/key") == "key"


async def test_a_rollback_does_not_name_what_may_not_be_read(tmp_path: Path) -> None:
    async with banned(tmp_path, BAN) as (_, owner, ann):
        assert (await ann.rollback("/shared/team", unix_s=0)).left == ()
        assert await owner.read_text("/shared/team/vault/key") == "key"


async def test_a_purge_of_a_folder_is_refused_for_what_is_banned_below_it(tmp_path: Path) -> None:
    async with banned(tmp_path, BAN) as (_, owner, ann):
        await owner.write("/shared/team/vault/key", "new")
        await owner.write("/shared/team/a", "new")
        with pytest.raises(AccessDenied, match="all of /shared/team"):
            await ann.purge("/shared/team", keep=1)
        assert len(await owner.versions("/shared/team/a")) == 2
        assert (await ann.purge("/shared/team/a", keep=1)).n_versions == 1
        assert len(await owner.versions("/shared/team/vault/key")) == 2


async def test_one_call_changes_so_many_files_and_no_more(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "MAX_CALL_CHANGES", 10)
    async with booted() as kernel:
        ann = Files(kernel.gate(kernel.spawn_task("ann", idle)))
        await ann.edit([Put(f"r/{number}", b"x") for number in range(5)])
        with pytest.raises(TooLarge, match="may not change more than"):
            await ann.edit([Copy("r", f"all/{number}") for number in range(3)])
        assert {each.path for each in await ann.list()} == {"/agents/ann/r"}, "nothing is done"
        await ann.edit([Copy("r", f"all/{number}") for number in range(2)])
        await ann.edit([Put(f"all/{number}", b"x") for number in range(2, 4)])
        for step in (ann.delete("all"), ann.copy("all", "more"), ann.move("all", "more")):
            with pytest.raises(TooLarge):
                await step
        await ann.move("r", "s")
        assert len((await ann.delete("all/0")).versions) == 5
        assert len(await ann.list(is_deep=True)) == 7 + 5


async def test_what_is_told_of_long_names_counts_too(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "MAX_CALL_CHANGES", 10)
    async with booted() as kernel:
        files = Files(kernel.init_gate())
        long = "/shared/" + "/".join(["f" * 250] * 12)
        for number in range(3):
            await files.write(f"{long}/{number}", "x")
        with pytest.raises(TooLarge):
            await files.delete(long)
        assert len((await files.delete(f"{long}/0")).versions) == 1


async def test_a_rollback_of_a_folder_counts_what_goes_back(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "MAX_CALL_CHANGES", 4)
    async with booted() as kernel:
        ann = Files(kernel.gate(kernel.spawn_task("ann", idle)))
        for number in range(19):
            await ann.write(f"r/{number}", "old")
        (made,) = (await ann.write("r/19", "old")).versions
        for number in range(4):
            await ann.write(f"r/{number}", "new")
        back = await ann.rollback("r", unix_s=made.unix_s)
        assert [each.path for each in back.versions] == [f"/agents/ann/r/{n}" for n in range(4)]
        assert (await ann.rollback("r", unix_s=back.versions[0].unix_s)).versions == ()
        with pytest.raises(TooLarge):
            await ann.rollback("r", unix_s=made.unix_s - 3600)
        assert len(await ann.list("r")) == 20


async def test_a_rollback_of_more_than_one_call_changes_goes_to_a_later_moment_first(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "MAX_CALL_CHANGES", 4)
    async with booted() as kernel:
        ann = Files(kernel.gate(kernel.spawn_task("ann", idle)))
        for number in range(6):
            await ann.write(f"r/{number}", "old")
        then_unix_s = (await ann.stat("r/5")).changed_unix_s
        for number in range(5):
            await ann.write(f"r/draft{number}", "made and deleted since")
            await ann.delete(f"r/draft{number}")
        later = await ann.edit([Delete(f"r/{number}") for number in range(3)])
        await ann.edit([Delete(f"r/{number}") for number in range(3, 6)])
        with pytest.raises(TooLarge) as refused:
            await ann.rollback("r", unix_s=then_unix_s)
        assert "a later moment first" in refused.value.hint
        for unix_s in (later.versions[0].unix_s, then_unix_s):
            assert len((await ann.rollback("r", unix_s=unix_s)).versions) == 3
        assert len(await ann.list("r")) == 6


@pytest.mark.parametrize("is_rollback", [False, True])
async def test_large_changes_of_a_family_keep_the_small_ones_of_others_waiting_for_one_of_them(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch, *, is_rollback: bool
) -> None:
    monkeypatch.setattr(versions, "LARGE_CHANGES", 2)
    go, written = threading.Event(), list[int]()

    def wait(_: apsw.Connection) -> None:
        assert go.wait(30)

    with anyio.fail_after(60):
        async with booted() as kernel, anyio.create_task_group() as tasks:
            db, _, _ = kernel.storage.parts
            owner, pid = Files(kernel.init_gate()), kernel.spawn_task("ann", idle)
            ann = Files(kernel.gate(pid))
            for number in range(3):
                await ann.write(f"folder/{number}", "x")

            async def change(number: int) -> None:
                if is_rollback:
                    edited = await ann.rollback("folder", unix_s=1.0)
                else:
                    edited = await ann.edit([Copy("folder", f"copy-{number}")])
                written.append(edited.transaction)

            tasks.start_soon(db.write, wait)
            for number in range(8):
                tasks.start_soon(change, number)
            runs = kernel.table.get(pid).runs
            while sum(run.is_parked for run in runs.values()) < 7:
                await anyio.sleep(0.01)
            tasks.start_soon(owner.write, "/shared/small", "small")
            await anyio.wait_all_tasks_blocked()
            go.set()
            while len(written) < 8:
                await anyio.sleep(0.01)
            (version,) = await owner.versions("/shared/small")
    assert sum(number <= version.transaction for number in written) <= 2
