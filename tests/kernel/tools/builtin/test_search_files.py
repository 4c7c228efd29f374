import json
import os
import time
from functools import partial

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from tests.kernel.conftest import OpenKernel
from tests.kernel.tools.offering import idle, run_tool

from aios.abi.storage import FileEdit, Put
from aios.kernel.tools.builtin.search_files import MAX_FILE_BYTES, SMALL_BYTES

pytestmark = pytest.mark.anyio


async def test_a_search_through_very_many_lines_keeps_nobody_waiting(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann = kernel.gate(kernel.spawn_task("ann", idle))
        lines = b"a\n" * (MAX_FILE_BYTES // 2 - 2) + b"B a"
        await ann.call(FileEdit(edits=(Put("many.txt", lines),)))
        longest_s, found = 0.0, list[str]()

        async def search() -> None:
            found.append((await run_tool(ann, "search_files", words="a " * 499 + "b")).text)

        with anyio.fail_after(90):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(search)
                while not found:
                    begun_s = time.perf_counter()
                    await anyio.sleep(0.005)
                    longest_s = max(longest_s, time.perf_counter() - begun_s)
        (hit,) = json.loads(found[0])["hits"]
        assert (hit["line"], hit["text"]) == (MAX_FILE_BYTES // 2 - 1, "B a")
        assert longest_s < 2, "some 10 s, if each word is looked for as often as it was said"


async def test_files_of_a_usual_length_wait_for_no_long_one_of_others(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, end = os.pipe()

    def look(_words: list[str], _limit: int, data: bytes) -> list[tuple[int, str]]:
        if len(data) > SMALL_BYTES:
            os.read(ended, 1)
        return [(1, "found")]

    monkeypatch.setattr("aios.kernel.tools.builtin.search_files._lines", look)
    async with booted() as kernel:
        ann, bob = (kernel.gate(kernel.spawn_task(name, idle)) for name in ("ann", "bob"))
        await ann.call(FileEdit(edits=(Put("long.txt", b"a" * (SMALL_BYTES + 1)),)))
        await bob.call(FileEdit(edits=(Put("short.txt", b"a" * SMALL_BYTES),)))
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(run_tool, ann, "search_files", words="a"))
                await wait_all_tasks_blocked()
                try:
                    assert "found" in (await run_tool(bob, "search_files", words="a")).text
                finally:
                    os.write(end, b".")
    os.close(ended)
    os.close(end)
