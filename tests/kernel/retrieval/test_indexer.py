"""The index after losses, kills and changes of its embedder."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import anyio
import apsw
import pytest
from tests.kernel.retrieval.test_retriever import NONE, agent, opened, paths

from aios.abi.storage import Put
from aios.config import Config
from aios.errors import DiskFailed
from aios.kernel.retrieval import indexer
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


async def test_the_index_goes_on_where_it_was(tmp_path: Path) -> None:
    async with opened(tmp_path) as kernel:
        await agent(kernel, "bob").write("a.md", "one fox")
        await Files(kernel.init_gate()).index(is_waiting=True)
    async with opened(tmp_path) as kernel:
        owner = Files(kernel.init_gate())
        assert (await owner.index()).n_pending == 0
        assert await paths(owner, "fox") == ["/agents/bob/a.md"]


@pytest.mark.parametrize("loss", ["deleted", "damaged"])
async def test_a_lost_index_is_made_again(tmp_path: Path, loss: str) -> None:
    async with opened(tmp_path) as kernel:
        await agent(kernel, "ann").write("a.md", "one fox")
        assert await paths(Files(kernel.init_gate()), "fox")
    index = tmp_path / "index.db"
    if loss == "deleted":
        index.unlink()
    else:
        index.write_bytes(b"no database at all, but long enough to be read as one" * 100)
    async with opened(tmp_path) as kernel:
        assert await paths(Files(kernel.init_gate()), "fox") == ["/agents/ann/a.md"]


async def test_an_index_of_other_files_is_made_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as kernel:
        ann = agent(kernel, "ann")
        for n in range(3):
            await ann.write(f"{n}.md", "a fox")
        assert len(await paths(ann, "fox")) == 3
    (tmp_path / "aios.db").unlink()
    async with opened(tmp_path) as kernel:
        ann = agent(kernel, "ann")
        await ann.write("new.md", "a badger")
        assert await paths(ann, "fox") == []
        assert await paths(ann, "badger") == ["/agents/ann/new.md"]


async def test_the_owner_has_the_index_made_anew(tmp_path: Path) -> None:
    async with opened(tmp_path) as kernel:
        ann, owner = agent(kernel, "ann"), Files(kernel.init_gate())
        await ann.write("a.md", "one fox")
        assert await paths(ann, "fox")
        for _ in range(3):
            await owner.reindex()
            assert await paths(ann, "fox") == ["/agents/ann/a.md"]
        assert (await owner.index(is_waiting=True)).n_files == 1


async def test_passages_of_another_embedder_get_vectors_of_this_one(tmp_path: Path) -> None:
    pytest.importorskip("wordllama")
    async with opened(tmp_path, NONE) as kernel:
        await agent(kernel, "ann").edit([Put("a.md", b"a physician"), Put("b.md", b"a bank")])
        await Files(kernel.init_gate()).index(is_waiting=True)
    index = apsw.Connection(str(tmp_path / "index.db"))
    index.execute("INSERT INTO vectors SELECT id, 'another', x'00' FROM passages")
    index.close()
    async with opened(tmp_path, Config()) as kernel:
        owner = Files(kernel.init_gate())
        with anyio.fail_after(30):
            while (await owner.index(is_waiting=True)).n_unlike:
                pass
            # what is on disk is searched a moment later
            while (found := await owner.retrieve("a doctor of medicine")).hits[0].path[
                -4:
            ] != "a.md":
                await anyio.sleep(0.01)
    index = apsw.Connection(str(tmp_path / "index.db"))
    assert set(index.execute("SELECT DISTINCT embedder FROM vectors")) == {(found.embedder,)}
    index.close()


KILLED = """
import sys, anyio
from pathlib import Path
from aios.config import Config, Home, MemoryConfig
from aios.kernel.kernel import open_kernel
from aios.sdk.files import Files

async def main():
    config = Config(memory=MemoryConfig(embedder="none"))
    async with open_kernel(config, Home(Path(sys.argv[1])), engines={}) as kernel:
        files = Files(kernel.init_gate())
        await files.index()
        print("ready", flush=True)
        n = int(sys.argv[2])
        while True:
            n += 1
            await files.write(f"/shared/{n % 7}.md", f"fox number{n}")
            await files.index(is_waiting=n % 3 == 0)
            print(n, flush=True)

anyio.run(main)
"""
N_KILLS = int(os.environ.get("AIOS_TEST_KILLS", "3"))


def kill_after(program: Path, home: Path, last: int, *, n_writes: int) -> int:
    """Run a kernel that writes files, and kill it in the middle; the number of its last write."""
    child = subprocess.Popen(  # noqa: S603 - a program of our own
        [sys.executable, str(program), str(home), str(last)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    for _ in range(n_writes):
        last = int(child.stdout.readline())
    child.kill()
    child.stdout.read()
    child.stdout.close()
    child.wait()
    return last


async def test_a_killed_kernel_leaves_an_index_that_tells_the_truth(tmp_path: Path) -> None:
    program = tmp_path / "killed.py"
    program.write_text(dedent(KILLED))
    home, last = tmp_path / "home", 0
    for kill in range(N_KILLS):
        last = kill_after(program, home, last, n_writes=4 + 3 * kill)
        async with opened(home) as kernel:
            owner = Files(kernel.init_gate())
            there = {each.path for each in await owner.list("/shared")}
            assert set(await paths(owner, "fox")) == there
            for path in there:
                (word,) = (await owner.read_text(path)).split()[1:]
                assert await paths(owner, "", word) == [path]
            assert (await owner.index()).n_files == len(there)
        last += 1  # the write that was not acknowledged may have happened


async def test_a_file_that_brings_a_bug_to_light_stops_the_index_and_no_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(indexer, "RETRY_S", 0.01)
    async with opened(tmp_path) as kernel:
        ann, owner = agent(kernel, "ann"), Files(kernel.init_gate())
        with monkeypatch.context() as patch:
            patch.setattr(indexer.Indexer, "_read", fails)
            await ann.write("a.md", "one fox")
            with pytest.raises(DiskFailed, match=r"stands still: .* ValueError: a bug"):
                await owner.index(is_waiting=True)
        while (await owner.index()).n_pending:
            await anyio.sleep(0.01)
        assert await paths(ann, "fox") == ["/agents/ann/a.md"]
