import gc
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import anyio
import apsw
import pytest
from tests.kernel.conftest import OpenKernel

from aios.abi.types import Usage
from aios.config import Config, Home, MemoryConfig
from aios.engine.base import Engine
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError, ResourceExhausted
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.memory import meaning
from aios.kernel.memory.embedding import Vectors
from aios.kernel.memory.heirs import hand_over
from aios.kernel.memory.meaning import Meanings
from aios.sdk.files import Files
from aios.sdk.memory import Memory

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(
    folder: Path, embedder: Literal["none", "wordllama", "engine"], *engines: Engine
) -> AsyncIterator[Kernel]:
    config = Config(memory=MemoryConfig(embedder=embedder))
    named = {f"engine{i}": engine for i, engine in enumerate(engines)}
    async with open_kernel(config, Home(folder), engines=named) as kernel:
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
        near = kernel.memory._indexer._near
        assert near is not None
        sizes: list[int] = []
        embed = near.embed

        def counted(texts: Sequence[str]) -> Vectors:
            sizes.append(len(texts))
            return embed(texts)

        monkeypatch.setattr(near, "embed", counted)
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(memory.remember, f"number {number}")
        assert sum(sizes) == 50
        assert len(sizes) < 10
        assert indexed(kernel) == list(range(1, 52))


async def test_an_embedder_that_fails_once_fails_one_note_and_holds_up_nobody(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[AiosError] = []
    async with booted() as kernel:
        memory = Memory(kernel.init_gate())
        await memory.remember("the first loads the embedder")
        near = kernel.memory._indexer._near
        assert near is not None
        embed = near.embed

        def failing(_: Sequence[str]) -> Vectors:
            monkeypatch.setattr(near, "embed", embed)
            raise MemoryError

        monkeypatch.setattr(near, "embed", failing)

        async def remember(text: str) -> None:
            try:
                await memory.remember(text)
            except AiosError as error:
                failed.append(error)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(remember, f"number {number}")
        assert len(failed) == 1
        assert len(indexed(kernel)) == 10


async def test_a_write_that_is_undone_leaves_nothing_in_the_index(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted() as kernel:
        memory = Memory(kernel.init_gate())
        kept = await memory.remember("a note")
        keep = Meanings.keep_one

        def fail(self: Meanings, connection: apsw.Connection, note: int, row: bytes) -> None:
            keep(self, connection, note, row)
            raise apsw.FullError("no room")

        with monkeypatch.context() as patch:
            patch.setattr(Meanings, "keep_one", fail)
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
        with anyio.fail_after(30):
            await memory.remember("a new one")
            while kernel.memory.statistics().n_vectors < 21:
                await memory.recall("number")
        assert indexed(kernel) == list(range(1, 22))


async def indexed_all(memory: Memory, embedder: str) -> None:
    """Wait until every note has a vector of this embedder."""
    with anyio.fail_after(30):
        while True:
            used = await memory.usage()
            if used.embedder.startswith(embedder) and not used.n_waiting:
                return
            await anyio.sleep(0.01)


async def test_another_embedder_makes_its_own_vectors_and_never_sees_those_of_the_first(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, "wordllama") as kernel:
        memory = Memory(kernel.init_gate())
        ids = [await memory.remember(f"the boat number {number}") for number in range(5)]
        assert (await memory.recall("boat")).embedder == "wordllama-0.4-256"
    async with opened(tmp_path, "engine", ScriptedEngine()) as kernel:
        memory = Memory(kernel.init_gate())
        await memory.usage()
        await indexed_all(memory, "engine:")
        assert indexed(kernel) == ids
        ids.append(await memory.remember("a later one"))
        await indexed_all(memory, "engine:")
        assert indexed(kernel) == ids
        found = await memory.recall("the boat number 3")
        assert found.embedder.startswith("engine:")
        assert found.hits[0].note.id == ids[3]
        names = await kernel.db.read(
            lambda c: c.execute("SELECT DISTINCT embedder FROM memory_vectors").fetchall()
        )
        assert names == [(found.embedder,)]
    async with opened(tmp_path, "wordllama") as kernel:
        memory = Memory(kernel.init_gate())
        await memory.usage()
        await indexed_all(memory, "wordllama")
        assert indexed(kernel) == ids


class OtherModel(ScriptedEngine):
    """Makes other vectors than a scripted engine does, by the same name."""

    is_other = True

    async def embed(self, texts: tuple[str, ...]) -> tuple[tuple[tuple[float, ...], ...], Usage]:
        vectors, usage = await super().embed(texts)
        if self.is_other:
            vectors = tuple(tuple(reversed(vector)) for vector in vectors)
        return vectors, usage


class Held(ScriptedEngine):
    """Answers about boats only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked, self.is_let = anyio.Event(), anyio.Event()

    async def embed(self, texts: tuple[str, ...]) -> tuple[tuple[tuple[float, ...], ...], Usage]:
        if any("boat" in text for text in texts):
            self.is_asked.set()
            await self.is_let.wait()
        return await super().embed(texts)


async def test_a_note_that_is_given_away_while_its_vector_is_made_is_found_by_the_heir(
    tmp_path: Path,
) -> None:
    engine = Held()
    async with opened(tmp_path, "engine", engine) as kernel:
        ann, bob = (
            Memory(kernel.gate(kernel.spawn_task(name, lambda _: anyio.sleep_forever())))
            for name in ("ann", "bob")
        )
        note = await ann.remember("the boat is red")
        with anyio.fail_after(30):
            await engine.is_asked.wait()
            owner = kernel.init.owner
            moved = await kernel.db.write(lambda c: hand_over(c, owner, "ann", "bob"))
            await kernel.memory.reindex(moved)
            engine.is_let.set()
            await indexed_all(bob, "engine:")
        (hit,) = (await bob.recall("the boat is red")).hits
        assert hit.note.id == note
        assert hit.why[-1].startswith("meaning")
        assert (await ann.recall("the boat is red")).hits == ()
        assert indexed(kernel) == [note]


async def names_of_vectors(kernel: Kernel) -> set[str]:
    rows = await kernel.db.read(
        lambda c: c.execute("SELECT embedder FROM memory_vectors").fetchall()
    )
    return {str(row[0]) for row in rows}


async def test_another_model_of_the_same_name_makes_vectors_of_its_own(tmp_path: Path) -> None:
    """In the next kernel, and while a kernel runs."""
    async with opened(tmp_path, "engine", ScriptedEngine()) as kernel:
        memory = Memory(kernel.init_gate())
        for number in range(5):
            await memory.remember(f"the boat number {number}")
        await indexed_all(memory, "engine:")
        (first,) = await names_of_vectors(kernel)
    other = OtherModel()
    async with opened(tmp_path, "engine", other) as kernel:
        memory = Memory(kernel.init_gate())
        await memory.usage()
        await indexed_all(memory, f"{first}#2")
        assert await names_of_vectors(kernel) == {f"{first}#2"}
        assert (await memory.recall("the boat number 3")).hits[0].note.text == "the boat number 3"
        other.is_other = False
        await memory.remember("a new one, which shows that another model answers")
        with anyio.fail_after(30):
            while (await memory.usage()).embedder != first:
                await anyio.sleep(0.01)
        await indexed_all(memory, first)
        assert await names_of_vectors(kernel) == {first}
        assert len(indexed(kernel)) == 6
        assert (await memory.check()).faults == ()


async def test_the_next_kernel_reads_all_vectors_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ("the boat is red", "a cake in the oven", "the train leaves at nine")
    async with opened(tmp_path, "wordllama") as kernel:
        memory, files = Memory(kernel.init_gate()), Files(kernel.init_gate())
        notes = [await memory.remember(text) for text in texts]
        for number, text in enumerate(texts):
            await files.write(f"/shared/{number}", text)
        await files.index(is_waiting=True)
    for module in ("memory", "retrieval"):
        monkeypatch.setattr(f"aios.kernel.{module}.meaning.LOADED_ROWS", 2)
    async with opened(tmp_path, "wordllama") as kernel:
        memory, files = Memory(kernel.init_gate()), Files(kernel.init_gate())
        assert (await memory.recall("ship")).hits[0].note.id == notes[0]
        assert indexed(kernel) == notes
        hits = (await files.retrieve("railway", is_waiting=True)).hits
        assert hits[0].path == "/shared/2"
        assert hits[0].why[0].startswith("meaning")


async def test_while_a_far_embedder_is_silent_words_find_notes(tmp_path: Path) -> None:
    async with opened(tmp_path, "engine") as kernel:
        memory = Memory(kernel.init_gate())
        note = await memory.remember("the boat is red")
        found = await memory.recall("boat")
        assert (found.embedder, [hit.note.id for hit in found.hits]) == ("", [note])
        used = await memory.usage()
        assert (used.n_notes, used.embedder, used.n_waiting) == (1, "", 1)


async def test_an_owner_has_no_more_notes_than_its_quota(tmp_path: Path) -> None:
    config = Config(memory=MemoryConfig(embedder="none", max_notes=3))
    async with open_kernel(config, Home(tmp_path), engines={}) as kernel:
        memory, guest = Memory(kernel.init_gate()), Memory(kernel.gate(kernel.admit("eve")[0].pid))
        ids = [await memory.remember(f"note {number}") for number in range(3)]
        with pytest.raises(ResourceExhausted, match="3 notes"):
            await memory.remember("one too many")
        with pytest.raises(ResourceExhausted):
            await memory.update(ids[0], "an update keeps the old one, so it counts")
        await guest.remember("another owner has a quota of its own")
        await memory.forget(ids[0])
        await memory.remember("now there is room")
        assert (await memory.usage()).n_notes == 3
        assert (await guest.usage()).n_notes == 1


async def test_a_kernel_that_has_ended_holds_no_weights_and_no_vectors(tmp_path: Path) -> None:
    """What is left of it is a circle of references; a program that opens many would grow by 70 MB each."""
    async with opened(tmp_path, "wordllama") as kernel:
        await Memory(kernel.init_gate()).remember("a boat")
        files = Files(kernel.init_gate())
        await files.write("/shared/a", "a boat")
        await files.retrieve("boat", is_waiting=True)
        held: list[object] = [kernel.memory._indexer._near, kernel.memory._indexer.meanings]
        held.append(kernel.retriever._indexer.meanings)
        assert all(held)
        left = [weakref.ref(each) for each in held]
        held.clear()
    gc.disable()
    try:
        assert [ref() for ref in left] == [None] * 3
    finally:
        gc.enable()
