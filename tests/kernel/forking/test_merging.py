"""Folders that are merged by three states, compared with dictionaries."""

import random
from pathlib import Path

import apsw
import pytest

from aios.abi.fork import Forked
from aios.abi.types import Pid
from aios.config import Config, Home
from aios.errors import Conflict, NotFound, TooLarge
from aios.kernel.forking import merging
from aios.kernel.forking.tables import Group, Limb
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.storage.branch import branch
from aios.kernel.storage.tables import last_change
from aios.kernel.storage.versions import Author, Transaction
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio

SOURCE, BRANCH = "/agents/a", "/agents/b"
NAMES = ("one.txt", "two.txt", "three.txt", "deep/four.txt", "deep/five.txt")
N_ROUNDS = 15


class Folders:
    """Two folders of a kernel, and what they should hold."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.files = Client(kernel.init_gate()).files

    def transaction(self, connection: apsw.Connection) -> Transaction:
        _, blobs, clock = self.kernel.storage.parts
        author = Author(Pid(1), self.kernel.storage.boot, SOURCE, clock.unix_s())
        return Transaction(connection, blobs, author, self.kernel.storage.quota_bytes)

    async def begin(self, number: int) -> tuple[Group, Limb]:
        """A branch of the source."""
        db, _, _ = self.kernel.storage.parts

        def write(connection: apsw.Connection) -> int:
            branch(self.transaction(connection), SOURCE, BRANCH)
            return last_change(connection)

        limb = Limb(Forked(Pid(9), "b", 0), BRANCH, await db.write(write), 0)
        return Group(number, Pid(2), "owner", "a", SOURCE, 0.0, (limb,)), limb

    async def merge(self, group: Group, limb: Limb) -> int:
        db, _, _ = self.kernel.storage.parts
        return await db.write(lambda c: merging.merge(self.transaction(c), group, limb))

    async def erase(self) -> None:
        db, blobs, _ = self.kernel.storage.parts
        await db.write(lambda c: merging.erase_files(c, blobs, BRANCH, heir=SOURCE))

    async def change(self, home: str, chance: random.Random, n: int) -> None:
        """Write and delete some of the files of a folder."""
        for _ in range(n):
            name, state = chance.choice(NAMES), await self.state(home)
            if chance.random() < 0.3 and name in state:
                await self.files.delete(f"{home}/{name}")
            else:
                await self.files.write(f"{home}/{name}", chance.choice((b"x", b"y", b"z")))

    async def state(self, home: str) -> dict[str, bytes]:
        found = await self.files.list(home, is_deep=True)
        return {
            each.path.removeprefix(f"{home}/"): await self.files.read(each.path) for each in found
        }


async def test_a_merge_is_what_a_merge_of_three_dictionaries_is(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)  # noqa: S311 - a test
    chance = random.Random(seed)  # noqa: S311 - a test
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        folders = Folders(kernel)
        await folders.change(SOURCE, chance, 8)
        for number in range(N_ROUNDS):
            base = await folders.state(SOURCE)
            group, limb = await folders.begin(number)
            await folders.change(BRANCH, chance, chance.randrange(4))
            await folders.change(SOURCE, chance, chance.randrange(3))
            mine, theirs = await folders.state(BRANCH), await folders.state(SOURCE)
            changed = {name for name in NAMES if base.get(name) != mine.get(name)}
            clashes = {
                name for name in changed if theirs.get(name) not in (base.get(name), mine.get(name))
            }
            if clashes:
                with pytest.raises(Conflict):
                    await folders.merge(group, limb)
                assert await folders.state(SOURCE) == theirs, f"seed {seed}"
            else:
                assert await folders.merge(group, limb) == len(changed), f"seed {seed}"
                wanted = {
                    name: mine.get(name) if name in changed else theirs.get(name) for name in NAMES
                }
                found = await folders.state(SOURCE)
                assert found == {k: v for k, v in wanted.items() if v is not None}, f"seed {seed}"
            await folders.erase()
        assert await folders.state(BRANCH) == {}
        assert (await folders.files.check()).faults == (), f"seed {seed}"
        used = {each.path: each for each in (await folders.files.usage()).usages}
        assert BRANCH not in used
        assert used[SOURCE].n_files == len(await folders.state(SOURCE))


async def test_what_a_branch_of_an_empty_folder_writes_is_its_own(tmp_path: Path) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        folders = Folders(kernel)
        group, limb = await folders.begin(1)
        await folders.files.write(f"{BRANCH}/first.txt", b"first")
        assert await folders.merge(group, limb) == 1
        assert await folders.state(SOURCE) == {"first.txt": b"first"}


async def test_a_folder_comes_where_a_file_was(tmp_path: Path) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        folders = Folders(kernel)
        await folders.files.write(f"{SOURCE}/plan", b"a file")
        group, limb = await folders.begin(1)
        await folders.files.delete(f"{BRANCH}/plan")
        await folders.files.write(f"{BRANCH}/plan/part.txt", b"in a folder")
        assert await folders.merge(group, limb) == 2
        assert await folders.state(SOURCE) == {"plan/part.txt": b"in a folder"}


async def test_no_link_to_a_branch_that_is_erased_leads_to_a_later_one_of_its_name(
    tmp_path: Path,
) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        folders = Folders(kernel)
        await folders.files.write(f"{BRANCH}/draft", b"public")
        link = await folders.files.link(f"{BRANCH}/draft")
        await folders.erase()
        await folders.files.write(f"{BRANCH}/draft", b"secret")
        with pytest.raises(NotFound):
            await kernel.links.open(link.token)


async def test_folders_are_erased_in_parts_and_what_others_have_too_is_paid_by_the_heir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        folders = Folders(kernel)
        db, blobs, _ = kernel.storage.parts
        for version in (b"1", b"2", b"3"):
            for name in NAMES:
                await folders.files.write(f"{BRANCH}/{name}", version + name.encode())
        await folders.files.copy(f"{BRANCH}/{NAMES[0]}", f"{SOURCE}/kept.txt")
        monkeypatch.setattr(merging, "MAX_ERASED", 4)
        pairs = [(BRANCH, SOURCE), ("/agents/none", SOURCE)]
        parts = 1
        while not await db.write(lambda c: merging.erase_folders(c, blobs, pairs)):
            parts += 1
            n_there = len(await folders.state(BRANCH))
            used = {each.path: each for each in (await folders.files.usage()).usages}
            assert n_there == (used[BRANCH].n_files if BRANCH in used else 0)
        assert parts == 4, "15 versions, four at a time"
        assert await folders.state(BRANCH) == {}
        assert await folders.state(SOURCE) == {"kept.txt": b"3" + NAMES[0].encode()}
        assert (await folders.files.check()).faults == ()
        (used_by_source,) = (await folders.files.usage()).usages
        assert used_by_source.path == SOURCE
        assert used_by_source.stored_bytes > 0


async def test_a_branch_that_changed_more_than_one_call_may_is_not_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        folders = Folders(kernel)
        group, limb = await folders.begin(1)
        for name in ("one.txt", "two.txt"):
            await folders.files.write(f"{BRANCH}/{name}", b"x")
        monkeypatch.setattr(merging, "MAX_MERGED", 1)
        with pytest.raises(TooLarge, match="changed over 1 files"):
            await folders.merge(group, limb)
        assert await folders.state(SOURCE) == {}
