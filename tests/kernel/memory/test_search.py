from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import pytest
from tests.kernel.conftest import OpenKernel

from aios.abi.memory import Note
from aios.config import Config, Home, MemoryConfig
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.memory import meaning, tables
from aios.sdk.memory import Memory

pytestmark = pytest.mark.anyio

BERLIN = (
    "Berlin is the capital of Germany",
    "The capital of Germany is Berlin, a large city",
    "Berlin is a city in Germany",
)


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


def agent(kernel: Kernel, name: str) -> Memory:
    return Memory(kernel.gate(kernel.spawn_task(name, idle)))


async def test_neighbours_are_linked_when_they_are_written_and_only_in_one_space(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        ann, bob = agent(kernel, "ann"), agent(kernel, "bob")
        mine = [await ann.remember(fact) for fact in BERLIN]
        other = await bob.remember(BERLIN[0])
        far = await ann.remember("Restart the server after changing its configuration")
        assert set((await ann.get(mine[2])).links) == {mine[0], mine[1]}
        assert (await ann.get(far)).links == ()
        assert (await bob.get(other)).links == ()


async def test_notes_that_do_not_hold_hide_none_that_is_near_by_meaning(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann, then = agent(kernel, "ann"), kernel.clock.unix_s() - 60
        async with anyio.create_task_group() as tasks:
            for number in range(130):
                over = partial(ann.remember, valid_from_unix_s=then, valid_to_unix_s=then + 1)
                tasks.start_soon(over, f"The red boat number {number} is in the harbour")
        note = await ann.remember("A ship lies at anchor near the pier")
        (hit,) = (await ann.recall("which boats are in the harbour")).hits
        assert (hit.note.id, hit.why[0][:7]) == (note, "meaning")
        assert len((await ann.recall("boats in the harbour", at_unix_s=then)).hits) == 10


async def test_links_are_followed_when_asked_for_and_say_so(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann, bob = agent(kernel, "ann"), agent(kernel, "bob")
        key = await ann.remember("The spare key is under the blue pot", scope="shared")
        alarm = await ann.remember("Alarm code: 4711")
        await ann.link(key, alarm)
        alone = await ann.recall("where is the spare key", limit=1)
        assert [hit.note.id for hit in alone.hits] == [key]
        both = await ann.recall("where is the spare key", follow_links=True)
        assert [hit.note.id for hit in both.hits][:2] == [key, alarm]
        assert f"linked to {key}" in both.hits[1].why
        assert both.hits[0].score > both.hits[1].score
        seen = await bob.recall("where is the spare key", follow_links=True)
        assert [hit.note.id for hit in seen.hits] == [key], "a link shows nobody a private note"


async def test_an_update_takes_the_links_over(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann = agent(kernel, "ann")
        old, other = await ann.remember("The key is here"), await ann.remember("Alarm: 4711")
        await ann.link(old, other)
        new = await ann.update(old, "The key is there")
        assert other in (await ann.get(new)).links
        assert set((await ann.get(other)).links) == {old, new}
        await ann.forget(new)
        assert (await ann.get(other)).links == ()


async def test_notes_from_before_the_embedder_are_linked_when_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meaning, "BATCH_NOTES", 1)
    async with open_kernel(
        Config(memory=MemoryConfig(embedder="none")), Home(tmp_path), engines={}
    ) as kernel:
        memory = Memory(kernel.init_gate())
        ids = [await memory.remember(fact) for fact in BERLIN]
        assert (await memory.get(ids[0])).links == ()
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        memory = Memory(kernel.init_gate())
        with anyio.fail_after(30):
            while kernel.memory.statistics().n_vectors < len(BERLIN):
                await memory.recall("capital")
        assert (await memory.get(ids[2])).links == (ids[0], ids[1])


async def test_of_what_is_linked_no_text_is_read_but_of_what_is_shown(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted() as kernel:
        ann = agent(kernel, "ann")
        hub = await ann.remember("The spare key is under the blue pot")
        others = [await ann.remember(f"Number {number} of a list") for number in range(20)]
        for other in others:
            await ann.link(hub, other)
        make, read = tables._note, list[int]()

        def note_from(row: Sequence[object]) -> Note:
            read.append(int(str(row[0])))
            return make(row)

        monkeypatch.setattr(tables, "_note", note_from)
        assert (await ann.get(hub)).links == tuple(others)
        assert read == [hub]
        read.clear()
        found = await ann.recall("where is the spare key", limit=2, follow_links=True)
        assert [hit.note.id for hit in found.hits] == [hub, others[-1]]
        assert len(read) <= 2 + 2, "those of the search, then those that the links lead to"
