"""A purge of many versions, which takes several calls."""

import anyio
import pytest
from tests.kernel.conftest import OpenKernel

from aios.abi.storage import FilePurge, Purged
from aios.kernel.storage import purging
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "MAX_PURGED", 3)


async def test_one_call_forgets_the_oldest_and_says_how_many_are_left(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.init_gate()
        files = Files(gate)
        for number in range(11):
            await files.write(f"/shared/a/{number % 2}", f"text {number}")
        await files.delete("/shared/a/1")
        first = (await gate.call(FilePurge("/shared/a"))).value
        assert first == Purged(3, 3 * len("text 0"), 7)
        assert [each.version for each in await files.versions("/shared/a/0")] == [6, 5, 4, 3]
        purged = await files.purge("/shared/a", keep=1)
        assert purged == Purged(7, 7 * len("text 0"))
        assert [each.version for each in await files.versions("/shared/a/0")] == [6]
        assert [each.version for each in await files.versions("/shared/a/1")] == [6]
        assert (await files.purge("/shared/a", keep=1)) == Purged(0, 0)
        assert (await files.check()).faults == ()


async def test_of_two_purges_at_once_each_version_goes_once(booted: OpenKernel) -> None:
    async with booted() as kernel:
        files = Files(kernel.init_gate())
        for number in range(12):
            await files.write("/shared/a", f"text {number}")
            await files.write("/shared/same", "same" * (number % 2))
        forgotten: list[int] = []

        async def purge() -> None:
            forgotten.append((await files.purge("/shared", keep=1)).n_versions)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(purge)
        assert sum(forgotten) == 22
        assert await files.read_text("/shared/same") == "same"
        assert (await files.check()).faults == ()
