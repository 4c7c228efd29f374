"""A program that serves tools, under one kernel after another."""

from pathlib import Path

import anyio
import pytest
from tests.kernel.test_programs import ONCE, booted, program

from aios.abi.types import Pid
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio

SERVING = """\
import random, anyio, aios

@aios.tool(effect="reversible")
async def add(word: str) -> str:
    "Write a word down."
    await anyio.sleep(random.random() / 50)
    await opened.files.append("/shared/words.txt", f"{word}\\n")
    return word

async def main(client: aios.Client) -> None:
    global opened
    opened = client
    await client.tools.serve(add)

aios.run(main)
"""


async def test_a_program_that_serves_tools_asks_alike_whatever_its_calls_take(
    tmp_path: Path,
) -> None:
    path = program(tmp_path, "")
    (tmp_path / "agent" / "main.py").write_text(SERVING)

    async def ask(client: Client, words: list[str]) -> None:
        async with anyio.create_task_group() as callers:
            for word in words:
                callers.start_soon(client.tools.run, "agent/add", {"word": word})

    words, pid = list[str](), Pid(0)
    for life in range(3):
        async with booted(tmp_path) as (kernel, client):
            if life == 0:
                pid = (await client.spawn(path, restart=ONCE)).pid
                while not any(tool.provider for tool in await client.tools.list()):
                    await anyio.sleep(0.01)
            for n in (5, 1, 3):
                new = [f"{life}-{len(words) + i}" for i in range(n)]
                await ask(client, new)
                words += new
            told = [line.text for line in kernel.table.get(pid).log.read(0)[0]]
            assert not any("diverge" in line for line in told)
            assert any("is where it was" in line for line in told) == (life > 0)
            assert sorted((await client.files.read_text("/shared/words.txt")).split()) == sorted(
                words
            )
