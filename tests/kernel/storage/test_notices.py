from pathlib import Path

import anyio
import pytest
from tests.kernel.storage.test_mounts import mounted

from aios.abi.storage import FileWatch
from aios.kernel.kernel import Kernel

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
