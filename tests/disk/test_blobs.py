import errno
import random
from functools import partial
from pathlib import Path

import anyio
import pytest

from aios.disk.blobs import INLINE_BYTES, SCHEMA, BlobKey, BlobStore, failed_write
from aios.disk.db import Database
from aios.errors import DiskFailed, ResourceExhausted

pytestmark = pytest.mark.anyio

LARGE = random.Random(1).randbytes(INLINE_BYTES + 1)  # noqa: S311 - any bytes will do
SAMPLES = [b"", b"text " * 100, random.Random(2).randbytes(500), LARGE]  # noqa: S311 - the same


async def put(db: Database, blobs: BlobStore, data: bytes) -> BlobKey:
    piece = blobs.stage(data)
    try:
        return await db.write(lambda c: blobs.put(c, piece))
    finally:
        blobs.settle(piece)


def opened(tmp_path: Path) -> tuple[Database, BlobStore]:
    return Database(tmp_path / "aios.db", [SCHEMA]), BlobStore(tmp_path / "blobs")


@pytest.mark.parametrize("data", SAMPLES, ids=["empty", "packed", "plain", "file"])
async def test_what_is_put_comes_back_and_is_stored_once(tmp_path: Path, data: bytes) -> None:
    db, blobs = opened(tmp_path)
    key = await put(db, blobs, data)
    assert await put(db, blobs, data) == key
    assert db.read_nowait(lambda c: blobs.get(c, key)) == data
    assert db.read_nowait(lambda c: c.execute("SELECT n_refs FROM blobs").fetchall()) == [(2,)]
    assert len(list(tmp_path.glob("blobs/*/*"))) == (data is LARGE)
    await db.aclose()


@pytest.mark.parametrize("data", SAMPLES, ids=["empty", "packed", "plain", "file"])
async def test_it_is_collected_when_the_last_reference_is_gone(tmp_path: Path, data: bytes) -> None:
    db, blobs = opened(tmp_path)
    key = await put(db, blobs, data)
    await db.write(lambda c: blobs.retain(c, [key]))
    await db.write(lambda c: blobs.release(c, [key]))
    assert (await blobs.collect(db)).n_blobs == 0
    await db.write(lambda c: blobs.release(c, [key]))
    found = await blobs.collect(db)
    assert (found.n_blobs, found.n_files) == (1, int(data is LARGE))
    assert found.size_bytes <= len(data), "what is in a file is counted once"
    assert bool(found.size_bytes) == bool(data)
    assert not list(tmp_path.glob("blobs/*/*"))
    with pytest.raises(DiskFailed):
        db.read_nowait(lambda c: blobs.get(c, key))
    await db.aclose()


async def test_a_file_that_is_staged_is_not_collected_and_a_stray_one_is(tmp_path: Path) -> None:
    db, blobs = opened(tmp_path)
    await db.open()
    piece = blobs.stage(LARGE)
    (tmp_path / "blobs" / "aa").mkdir()
    (tmp_path / "blobs" / "aa" / "draft.1.2.3").write_bytes(b"half")
    assert (await blobs.collect(db)).n_files == 0
    key = await db.write(lambda c: blobs.put(c, piece))
    blobs.settle(piece)
    assert (await blobs.collect(db)).n_files == 1, "the draft of a program that was killed"
    assert db.read_nowait(lambda c: blobs.get(c, key)) == LARGE
    given_up = blobs.stage(LARGE[::-1])
    blobs.settle(given_up)
    assert (await blobs.collect(db)).n_files == 1
    await db.aclose()


async def test_many_are_drafts_until_one_sync_and_gone_if_it_never_comes(tmp_path: Path) -> None:
    db, blobs = opened(tmp_path)
    await db.open()
    contents = [bytes([number]) * (INLINE_BYTES + 1) for number in range(20)]
    pieces = [blobs.stage_later(data) for data in [*contents, *contents]]
    names = [path.name for path in tmp_path.glob("blobs/*/*")]
    assert len(names) == len(contents)
    assert all(name.startswith("draft.") for name in names), "one can be seen before it is synced"
    assert (await blobs.collect(db)).n_files == 0
    await blobs.sync_many(pieces)
    keys = [await db.write(partial(blobs.put, piece=piece)) for piece in pieces]
    blobs.settle(*pieces)
    assert [db.read_nowait(partial(blobs.get, key=key)) for key in keys] == [*contents, *contents]
    given_up = [blobs.stage_later(LARGE), blobs.stage_later(LARGE)]
    blobs.settle(given_up[0])
    blobs.sync([given_up[1]])
    blobs.settle(given_up[1], blobs.stage_later(LARGE[::-1]))
    assert len(list(tmp_path.glob("blobs/*/*"))) == len(contents) + 1, "a draft stayed"
    await db.aclose()


async def test_a_failed_sync_of_many_is_said_once(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    pieces = [blobs.stage_later(bytes([n]) * (INLINE_BYTES + 1)) for n in range(20)]
    for draft in tmp_path.glob("blobs/*/draft.*"):
        draft.unlink()
    with pytest.raises(DiskFailed, match="cannot be written"):
        await blobs.sync_many(pieces)
    blobs.settle(*pieces)


async def test_collecting_while_others_write_loses_nothing(tmp_path: Path) -> None:
    db, blobs = opened(tmp_path)
    draw = random.Random(3)  # noqa: S311 - only to vary the order
    samples = [draw.randbytes(INLINE_BYTES + 1) for _ in range(4)]

    async def churn(data: bytes) -> None:
        for _ in range(10):
            key = await put(db, blobs, data)
            assert await db.read(partial(blobs.get, key=key)) == data
            await db.write(partial(blobs.release, keys=[key]))

    async def collect() -> None:
        while True:
            await blobs.collect(db)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as collecting:
            collecting.start_soon(collect)
            async with anyio.create_task_group() as tasks:
                for data in samples:
                    tasks.start_soon(churn, data)
            collecting.cancel_scope.cancel()
    await blobs.collect(db)
    assert not list(tmp_path.glob("blobs/*/*"))
    await db.aclose()


async def test_damage_is_found_and_never_returned(tmp_path: Path) -> None:
    db, blobs = opened(tmp_path)
    keys = [await put(db, blobs, data) for data in SAMPLES]
    assert list(db.read_nowait(blobs.find_damage)) == []
    (path,) = tmp_path.glob("blobs/*/*")
    path.write_bytes(LARGE[:-1] + b"?")
    await db.write(lambda c: c.execute("UPDATE blobs SET data = x'00' WHERE key = ?", (keys[1],)))
    assert len(await db.read(lambda c: list(blobs.find_damage(c)))) == 2
    for key in (keys[1], keys[3]):
        with pytest.raises(DiskFailed):
            db.read_nowait(partial(blobs.get, key=key))
    await db.aclose()


def test_a_full_disk_and_a_broken_one_are_told_apart() -> None:
    assert isinstance(failed_write(OSError(errno.ENOSPC, "full"), Path("x")), ResourceExhausted)
    assert isinstance(failed_write(OSError(errno.EIO, "io"), Path("x")), DiskFailed)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file where the folder should be")
    with pytest.raises(DiskFailed, match="cannot be written"):
        BlobStore(tmp_path / "blobs").stage(LARGE)
