"""Folders as they were at a moment, given to somebody else."""

from pathlib import Path

import apsw
import pytest

from aios.abi.types import Pid
from aios.config import Config, Home
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.storage.branch import branch
from aios.kernel.storage.versions import Author, Transaction
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio
N_FILES = 100


async def branched(kernel: Kernel, target: str, unix_s: float | None) -> int:
    db, blobs, clock = kernel.storage.parts
    author = Author(Pid(1), kernel.storage.boot, target, clock.unix_s())

    def write(connection: apsw.Connection) -> int:
        tx = Transaction(connection, blobs, author, kernel.storage.quota_bytes)
        return branch(tx, "/agents/a", target, unix_s=unix_s)

    return await db.write(write)


async def test_a_branch_is_the_folder_of_then_and_leaves_no_fault(tmp_path: Path) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        files = Client(kernel.init_gate()).files
        for number in range(N_FILES):
            await files.write(f"/agents/a/{number}.txt", f"{number}".encode())
        await files.write("/agents/a/gone.txt", b"deleted before")
        await files.delete("/agents/a/gone.txt")
        await files.write("/agents/b/stale.txt", b"of an agent of that name before")
        then_s = kernel.clock.unix_s()
        await files.write("/agents/a/0.txt", b"later")
        await files.write("/agents/a/later.txt", b"later")
        assert await branched(kernel, "/agents/b", then_s) == N_FILES
        names = {each.path for each in await files.list("/agents/b")}
        assert names == {f"/agents/b/{number}.txt" for number in range(N_FILES)}
        assert await files.read("/agents/b/0.txt") == b"0"
        await files.write("/agents/b/1.txt", b"of the branch")
        assert await files.read("/agents/a/1.txt") == b"1"
        assert (await files.check()).faults == ()


@pytest.mark.parametrize("then_s", [None, 1e12])
async def test_a_branch_into_a_new_name_counts_as_files_that_were_written(
    tmp_path: Path, then_s: float | None
) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        files = Client(kernel.init_gate()).files
        for name in ("top.txt", "deep/er/file.txt", "deep/same.txt", "deep/twin.txt"):
            await files.write(f"/agents/a/{name}", b"same" if "deep/" in name else b"other")
        await files.write("/agents/a/gone.txt", b"gone")
        await files.delete("/agents/a/gone.txt")
        await files.write("/agents/ab/no.txt", b"a neighbour whose name begins so")
        assert await branched(kernel, "/agents/b", then_s) == 4
        listed = await files.list("/agents/b/deep")
        assert [(each.path, each.is_folder) for each in listed] == [
            ("/agents/b/deep/er", True),
            ("/agents/b/deep/same.txt", False),
            ("/agents/b/deep/twin.txt", False),
        ]
        a, b = [
            each for each in (await files.usage()).usages if each.path in {"/agents/a", "/agents/b"}
        ]
        assert (b.n_files, b.size_bytes) == (a.n_files, a.size_bytes)
        assert await files.read("/agents/b/deep/er/file.txt") == b"same"
        await files.delete("/agents/b/deep")
        assert (await files.check()).faults == ()


async def test_a_branch_takes_no_room_for_contents(tmp_path: Path) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        files = Client(kernel.init_gate()).files
        await files.write("/agents/a/a.bin", bytes(range(256)) * 1000)
        before = (await files.check()).n_blobs
        assert await branched(kernel, "/agents/b", kernel.clock.unix_s()) == 1
        assert (await files.check()).n_blobs == before
