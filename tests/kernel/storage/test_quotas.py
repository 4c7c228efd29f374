import os
from pathlib import Path

import pytest
from tests.kernel.conftest import OpenKernel
from tests.kernel.storage.test_manager import agent

from aios.disk.blobs import SCHEMA as BLOBS
from aios.disk.connection import connect
from aios.disk.migrations import Schema, migrate
from aios.errors import AccessDenied, InvalidCall, ResourceExhausted
from aios.kernel.schemas import SCHEMAS
from aios.kernel.storage.tables import SCHEMA, find_quota
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


async def test_a_folder_takes_what_the_owner_lets_it_and_others_as_much_as_any(
    booted: OpenKernel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with booted() as kernel:
        owner = Files(kernel.init_gate())
        (_, ann), (_, bob) = agent(kernel, "ann"), agent(kernel, "bob")
        await owner.set_quota("/agents/ann", 5_000)
        with pytest.raises(ResourceExhausted, match="/agents/ann may take 5000 bytes"):
            await ann.write("a", os.urandom(6_000))
        await bob.write("a", os.urandom(6_000))
        await ann.write("a", os.urandom(4_000))
        shown = {each.path: each.quota_bytes for each in (await owner.usage()).usages}
        assert shown == {"/agents/ann": 5_000, "/agents/bob": kernel.storage.quota_bytes}
        await owner.set_quota("/agents/ann", None)
        await ann.write("b", os.urandom(6_000))
        real = tmp_path_factory.mktemp("real")
        await owner.mount(str(real), "/notes")
        await owner.set_quota("/notes", 10)
        with pytest.raises(ResourceExhausted):
            await owner.write("/notes/a", os.urandom(100))
        assert not list(real.iterdir())


async def test_only_the_owner_sets_quotas_and_only_of_folders_that_have_one(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        owner = Files(kernel.init_gate())
        _, ann = agent(kernel, "ann")
        with pytest.raises(AccessDenied):
            await ann.set_quota("/agents/ann", 1 << 40)
        for path in ("/", "/agents", "/agents/ann/deep", "/shared/a", "/nowhere", "/workspaces/a"):
            with pytest.raises(InvalidCall, match="no folder with a quota"):
                await owner.set_quota(path, 1)
        assert (await owner.usage()).usages == ()


async def test_the_tables_of_before_quotas_get_them(tmp_path: Path) -> None:
    connection = connect(tmp_path / "aios.db", is_writer=True)
    migrate(connection, (BLOBS, Schema(SCHEMA.area, SCHEMA.steps[:1])))
    migrate(connection, SCHEMAS)
    assert find_quota(connection, "/shared") is None
    connection.close()
