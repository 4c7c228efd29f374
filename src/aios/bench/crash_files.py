"""A kernel that changes and indexes files until it is killed: `crash_files.py HOME SEED REAL` prints `worker text` once a change is acknowledged.

Each worker has files of its own and says what they hold; `-` stands for none. Every other worker has them in the folder REAL, which is mounted.
"""

import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import anyio

from aios.abi.storage import Copy, Delete, Move, Put
from aios.config import AccessConfig, Config, Home
from aios.errors import DeadlineExceeded, NotFound
from aios.kernel.kernel import open_kernel
from aios.sdk.files import Files

N_WORKERS = 4
SHOWN_CHARS = 40

Say = Callable[[int, str], None]
"""Told the number of a worker and what both its files hold, once that is acknowledged."""


def folder_of(worker: int) -> str:
    """Where a worker has its files."""
    return f"/notes/{worker}" if worker % 2 else f"/shared/{worker}"


async def main(home: Path, seed: int, real: Path) -> None:
    """Work until the end."""
    async with open_kernel(Config(access=AccessConfig("full")), Home(home), engines={}) as kernel:
        files = Files(kernel.init_gate())
        if not await files.mounts():
            await files.mount(str(real), "/notes")
        async with anyio.create_task_group() as tasks:
            for worker in range(N_WORKERS):
                draw = random.Random(f"{seed} {worker}")  # noqa: S311 - repeatable on purpose
                tasks.start_soon(work, files, worker, draw, print_it)


async def work(files: Files, worker: int, draw: random.Random, say: Say) -> None:
    """Write, move, find and delete; both files of a worker always change in one call."""
    folder = folder_of(worker)
    here, there = f"{folder}/a", f"{folder}/b"
    with suppress(NotFound):  # what the killed one before left in the middle of a move
        await files.delete(folder)
    while True:
        word = f"boat{draw.randrange(10**9)}"
        text = f"{word} " * draw.choice([1, 1, 300, 300, 2_000, 90_000])
        await files.edit([Put(here, text.encode()), Put(there, text.encode())])
        say(worker, text)
        kind = draw.randrange(6)
        if kind == 0:
            await files.delete(folder)
            say(worker, "-")
        elif kind == 1:
            edited = await files.edit([Move(here, f"{here}x"), Put(there, b"moved")])
            await files.rollback(transaction=edited.transaction)
            say(worker, text)
        elif kind == 2:
            await files.purge(folder, keep=2)
            await files.collect()
        elif kind == 3:
            with suppress(DeadlineExceeded):
                await files.retrieve(keywords=[word], under=folder, is_waiting=True, deadline_s=0.3)
        elif kind == 4:
            text = f"{word} " + "long " * 10
            await files.upload(f"{folder}/c", pieces_of(text, draw))
            clear = Delete(here), Delete(there)
            await files.edit([*clear, Move(f"{folder}/c", there), Copy(there, here)])
            say(worker, text)


async def pieces_of(text: str, draw: random.Random) -> AsyncIterator[bytes]:
    """A content that is cut into several files, each of which is only in part what others have."""
    for _ in range(3):
        yield b"%s\n%s\n" % (text.encode(), draw.randbytes(70_000).hex().encode())


def print_it(worker: int, text: str) -> None:
    """Tell who started this program."""
    print(worker, text[:SHOWN_CHARS], flush=True)  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
