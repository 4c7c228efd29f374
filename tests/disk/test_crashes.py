"""`AIOS_TEST_CRASHES=1000` makes the loops long; the seed stands in the message of a failure."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import apsw
import pytest
from tests.disk import crash_writer

from aios.disk import commit
from aios.disk.blobs import SCHEMA, BlobKey, BlobStore
from aios.disk.db import Database
from aios.disk.migrations import Schema
from aios.testing.disk import FaultyDisk

N_CRASHES = int(os.environ.get("AIOS_TEST_CRASHES", "5"))
SEED = int(os.environ.get("AIOS_TEST_SEED", "") or random.SystemRandom().randrange(10**6))
KEYS = Schema("k", ("CREATE TABLE k (n INTEGER PRIMARY KEY, body BLOB)",))


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    draw = random.Random(SEED)  # noqa: S311 - repeatable on purpose
    acknowledged: set[int] = set()
    for _ in range(N_CRASHES):
        command = [
            sys.executable,
            crash_writer.__file__,
            tmp_path,
            SEED,
            max(acknowledged, default=0) + 8,
        ]
        with subprocess.Popen(  # noqa: S603 - our own program
            [str(word) for word in command], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(draw.randrange(1, 40)):
                acknowledged.add(int(writer.stdout.readline()))
            writer.send_signal(signal.SIGKILL)
            acknowledged |= {int(line) for line in writer.stdout if line.endswith("\n")}
        anyio.run(assert_all_is_there, tmp_path, acknowledged)


async def assert_all_is_there(home: Path, acknowledged: set[int]) -> None:
    db = Database(home / "aios.db", [SCHEMA, crash_writer.ROWS])
    blobs = BlobStore(home / "blobs")
    await blobs.collect(db)

    def look(connection: apsw.Connection) -> None:
        rows: dict[int, BlobKey] = dict(connection.execute("SELECT n, blob FROM rows"))
        assert acknowledged <= rows.keys(), f"lost with seed {SEED}: {acknowledged - rows.keys()}"
        for number, key in rows.items():
            assert blobs.get(connection, key) == crash_writer.content(SEED, number), f"seed {SEED}"
        assert not list(blobs.find_damage(connection))
        assert connection.pragma("integrity_check") == "ok"

    await db.read(look)
    await db.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize("max_changes", [0, commit.MAX_CHANGES])
async def test_what_was_acknowledged_survives_a_disk_that_drops_and_tears_what_was_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_changes: int
) -> None:
    monkeypatch.setattr(commit, "MAX_CHANGES", max_changes)
    disk = FaultyDisk(f"faulty-{SEED}")
    draw = random.Random(SEED)  # noqa: S311 - repeatable on purpose
    db = Database(tmp_path / "live" / "aios.db", [KEYS], vfs=f"faulty-{SEED}")
    acknowledged: set[int] = set()
    images: list[tuple[Path, set[int]]] = []

    def insert(connection: apsw.Connection, number: int, size: int) -> None:
        connection.execute("INSERT INTO k VALUES (?, zeroblob(?))", (number, size))
        if draw.random() < 0.3:
            connection.execute("DELETE FROM k WHERE n = -1")
        crash()

    def fold_the_log_later(connection: apsw.Connection) -> None:
        connection.wal_autocheckpoint(draw.randrange(1, 40))

    def crash() -> None:
        if len(images) < 4 * N_CRASHES and draw.random() < 0.5:
            image = tmp_path / f"image-{len(images)}"
            disk.power_fails(tmp_path / "live", into=image, seed=SEED + len(images))
            images.append((image, set(acknowledged)))

    async def write(number: int) -> None:
        size = draw.randrange(1, 20_000)
        await db.write(lambda c: insert(c, number, size))
        acknowledged.add(number)
        crash()

    for first in range(0, 10 * N_CRASHES, 4):
        async with anyio.create_task_group() as tasks:
            for number in range(first, first + 4):
                tasks.start_soon(write, number)
        if first % 20 == 0:
            await db.write(fold_the_log_later)
    await db.aclose()
    disk.unregister()
    assert len(images) > N_CRASHES
    for image, expected in images:
        again = Database(image / "aios.db", [KEYS])
        found = await again.read(lambda c: {n for (n,) in c.execute("SELECT n FROM k")})
        assert expected <= found, f"lost with seed {SEED}: {expected - found}"
        assert await again.read(lambda c: c.pragma("integrity_check")) == "ok"
        await again.aclose()
