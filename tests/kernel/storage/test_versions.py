"""What a policy forbids below a folder, where only the folder is named."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from aios.abi.storage import Move
from aios.config import AccessConfig, ApprovalsConfig, Config, Home
from aios.errors import AccessDenied
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
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
