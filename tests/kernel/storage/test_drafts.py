from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from tests.kernel.conftest import OpenKernel

from aios.abi.storage import FileDraft, Put
from aios.abi.types import Pid
from aios.config import Config, Home, StorageConfig
from aios.errors import InvalidCall, NotFound, ResourceExhausted
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.process import INIT_PID
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


def agent(kernel: Kernel, name: str) -> tuple[Pid, Files]:
    pid = kernel.spawn_task(name, idle)
    return pid, Files(kernel.gate(pid))


async def test_drafts_are_bounded_private_and_end_with_their_process(booted: OpenKernel) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await anyio.sleep_forever()

    async with booted() as kernel:
        (pid, ann), (_, bob) = agent(kernel, "ann"), agent(kernel, "bob")
        async with anyio.create_task_group() as tasks:
            for _ in range(StorageConfig().max_drafts):
                tasks.start_soon(ann.upload, "a", endless())
            with anyio.fail_after(30):
                while len(kernel.storage.drafts._open) < StorageConfig().max_drafts:
                    await anyio.sleep(0.01)
            with pytest.raises(ResourceExhausted, match="drafts"):
                await ann.upload("a", endless())
            with pytest.raises(NotFound):
                await bob.edit([Put("a", draft=1)])
            with pytest.raises(InvalidCall):
                await ann.edit([Put("a", b"and data", draft=1)])
            tasks.cancel_scope.cancel()
        await kernel.signals.kill(kernel.table.get(pid), reason="test")
        assert not kernel.storage.drafts._open


async def test_an_upload_that_breaks_off_leaves_no_draft(booted: OpenKernel) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise KeyboardInterrupt

    async with booted() as kernel:
        _, ann = agent(kernel, "ann")
        with pytest.raises(KeyboardInterrupt):
            await ann.upload("a", broken())
        assert not kernel.storage.drafts._open


async def test_what_a_killed_client_has_left_is_collected(booted: OpenKernel) -> None:
    async with booted() as kernel:
        (pid, _), drafts = agent(kernel, "ann"), kernel.storage.drafts
        ann, owner = kernel.gate(pid), Files(kernel.init_gate())
        files = kernel.storage.parts[1].folder
        for content in (b"x", b"y"):
            await ann.call(FileDraft(content * (3 << 20)))
        assert (await owner.collect()).size_bytes == 0
        assert sorted(number for _, number in drafts._open) == [1, 2], (
            "somebody may be adding to them"
        )
        drafts._open[pid, 1].touched_s -= 1_000
        assert (await owner.collect()).size_bytes > 1 << 20
        assert sorted(number for _, number in drafts._open) == [2]
        drafts._open[pid, 2].touched_s -= 100_000
        await kernel.init_gate().call(FileDraft(b"z"))
        assert sorted(number for _, number in drafts._open) == [3]
        assert not list(files.glob("??/*")), "nothing of them is on disk"


async def test_drafts_that_are_left_make_room_and_are_no_way_around_quotas(
    tmp_path: Path,
) -> None:
    config = Config(storage=StorageConfig(quota_bytes=1_000, max_drafts=2))
    async with open_kernel(config, Home(tmp_path), engines={}) as kernel:
        gate, drafts = kernel.init_gate(), kernel.storage.drafts
        for _ in range(2):
            await gate.call(FileDraft(b"x" * 900))
        with pytest.raises(ResourceExhausted, match="2 drafts open"):
            await gate.call(FileDraft(b"x"))
        with pytest.raises(ResourceExhausted, match="larger than any folder"):
            await gate.call(FileDraft(b"x" * 200, draft=1))
        drafts._open[INIT_PID, 1].touched_s -= 1_000
        await gate.call(FileDraft(b"x"))
        assert sorted(number for _, number in drafts._open) == [2, 3]
        drafts._open[INIT_PID, 2].touched_s -= 1_000
        await Files(gate).collect()
        assert sorted(number for _, number in drafts._open) == [3]
        await Files(gate).set_quota("/shared", 5_000)
        await gate.call(FileDraft(b"x" * 2_000, draft=3))
