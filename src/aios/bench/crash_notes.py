"""A kernel that changes notes until it is killed: `crash_notes.py HOME SEED` prints a line once a change is acknowledged.

`+ ID TEXT` a note is there, `- ID` it is not any more, `> OLD NEW TEXT` one took the place of another.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path

import anyio

from aios.config import Config, Home
from aios.kernel.kernel import open_kernel
from aios.sdk.memory import Memory

N_WORKERS = 4

Say = Callable[..., None]
"""Told the words of a line once the change is acknowledged."""


async def main(home: Path, seed: int) -> None:
    """Work until the end."""
    async with open_kernel(Config(), Home(home), engines={}) as kernel:
        memory = Memory(kernel.init_gate())
        async with anyio.create_task_group() as tasks:
            for worker in range(N_WORKERS):
                tasks.start_soon(work, memory, random.Random(f"{seed} {worker}"), print_it)  # noqa: S311 - repeatable on purpose


async def work(memory: Memory, draw: random.Random, say: Say) -> None:
    """Each worker changes only notes of its own."""
    mine: list[int] = []
    while True:
        text = f"boat number {draw.randrange(10**9)}"
        kind = draw.randrange(4) if mine else 0
        if kind <= 1:
            mine.append(await memory.remember(text))
            say("+", mine[-1], text)
        elif kind == 2:
            place = draw.randrange(len(mine))
            old, mine[place] = mine[place], await memory.update(mine[place], text)
            say(">", old, mine[place], text)
        else:
            gone = await memory.forget(mine.pop(draw.randrange(len(mine))))
            for note in gone:
                say("-", note)


def print_it(*words: object) -> None:
    """Tell who started this program."""
    print(*words, flush=True)  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
