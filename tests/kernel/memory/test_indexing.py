from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import apsw
import pytest
from tests.kernel.conftest import OpenKernel

from aios.config import Config, Home, MemoryConfig
from aios.errors import ResourceExhausted
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.memory import meaning
from aios.kernel.memory.embedding import Vectors
from aios.kernel.memory.meaning import Kept, Meanings
from aios.sdk.memory import Memory

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(folder: Path, embedder: str) -> AsyncIterator[Kernel]:
    config = Config(memory=MemoryConfig(embedder=embedder))  # type: ignore[arg-type]  # one of its literals
    async with open_kernel(config, Home(folder), engines={}) as kernel:
        yield kernel


def indexed(kernel: Kernel) -> list[int]:
    """The notes that can be found by meaning."""
    meanings = kernel.memory._indexer.meanings
    assert meanings is not None
    meanings.index.check_invariants()
    return sorted(meanings.index.notes())


async def test_texts_that_come_together_are_embedded_together(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted() as kernel:
        memory = Memory(kernel.init_gate())
        await memory.remember("the first loads the embedder")
        meanings = kernel.memory._indexer.meanings
        assert meanings is not None
        sizes: list[int] = []
        embed = meanings.embedder.embed

        def counted(texts: Sequence[str]) -> Vectors:
            sizes.append(len(texts))
            return embed(texts)

        monkeypatch.setattr(meanings.embedder, "embed", counted)
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(memory.remember, f"number {number}")
        assert sum(sizes) == 50
        assert len(sizes) < 10
        assert indexed(kernel) == list(range(1, 52))


async def test_a_write_that_is_undone_leaves_nothing_in_the_index(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted() as kernel:
        memory = Memory(kernel.init_gate())
        kept = await memory.remember("a note")
        keep = Meanings.keep

        def fail(self: Meanings, connection: apsw.Connection, new: Kept) -> None:
            keep(self, connection, new)
            raise apsw.FullError("no room")

        with monkeypatch.context() as patch:
            patch.setattr(Meanings, "keep", fail)
            with pytest.raises(ResourceExhausted):
                await memory.remember("another")
            with pytest.raises(ResourceExhausted):
                await memory.update(kept, "a note, replaced")
        assert indexed(kernel) == [kept]
        replaced = await memory.update(kept, "a note, replaced")
        assert indexed(kernel) == [replaced]
        await memory.forget(replaced)
        assert indexed(kernel) == []


async def test_old_notes_get_vectors_in_small_writes_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meaning, "BATCH_NOTES", 7)
    async with opened(tmp_path, "none") as kernel:
        memory = Memory(kernel.init_gate())
        for number in range(20):
            await memory.remember(f"number {number}")
    async with opened(tmp_path, "wordllama") as kernel:
        memory = Memory(kernel.init_gate())
        with anyio.fail_after(5):
            await memory.remember("a new one")
            while kernel.memory.statistics().n_vectors < 21:
                await memory.recall("number")
        assert indexed(kernel) == list(range(1, 22))
