import json
import time

import anyio
import pytest
from tests.kernel.conftest import OpenKernel
from tests.kernel.tools.offering import idle, run_tool

from aios.abi.storage import FileEdit, Put
from aios.kernel.tools.builtin.search_files import MAX_FILE_BYTES

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
