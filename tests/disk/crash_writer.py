"""A program that writes until it is killed: `crash_writer.py HOME SEED FIRST` prints each number once it is acknowledged."""

import random
import sys
from pathlib import Path

import anyio
import apsw

from aios.disk.blobs import INLINE_BYTES, SCHEMA, BlobStore
from aios.disk.db import Database
from aios.disk.migrations import Schema

ROWS = Schema("rows", ("CREATE TABLE rows (n INTEGER PRIMARY KEY, blob INTEGER NOT NULL)",))


def content(seed: int, number: int) -> bytes:
    """What is written under that number; every third is large enough for a file."""
    draw = random.Random(f"{seed} {number}")  # noqa: S311 - repeatable on purpose
    return draw.randbytes(INLINE_BYTES + 1 if number % 3 == 0 else draw.randrange(2_000))


async def main(home: Path, seed: int, first: int) -> None:
    db, blobs = Database(home / "aios.db", [SCHEMA, ROWS]), BlobStore(home / "blobs")

    async def write(number: int) -> None:
        piece = blobs.stage(content(seed, number))

        def put(connection: apsw.Connection) -> None:
            connection.execute(
                "INSERT INTO rows VALUES (?, ?)", (number, blobs.put(connection, piece))
            )

        await db.write(put)
        blobs.settle(piece)
        print(number, flush=True)  # noqa: T201 - the parent reads it

    while True:
        async with anyio.create_task_group() as tasks:
            for number in range(first, first + 4):
                tasks.start_soon(write, number)
        first += 4
        if first % 20 == 0:
            await blobs.collect(db)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
