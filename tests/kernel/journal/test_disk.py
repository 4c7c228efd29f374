import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.from_thread
import apsw
import pytest

from aios.abi.calls import Chat, GetPid
from aios.abi.gate import Fault
from aios.abi.types import Message, Pid, Role
from aios.disk.db import Database
from aios.errors import AiosError, DiskFailed, ResourceExhausted
from aios.kernel.journal import tables
from aios.kernel.journal.disk import JournalDisk
from aios.kernel.journal.records import Effect, Outcome, Record
from aios.kernel.journal.retention import Kept
from aios.kernel.journal.texts import write_call, write_fault
from aios.kernel.replay import Replay

pytestmark = pytest.mark.anyio
FAULT = Fault("tool_failed", "it failed", "")


def record(seq: int, pid: int = 2) -> Record:
    intent = write_call(GetPid())
    return Record(
        Pid(pid),
        seq,
        "getpid",
        intent.digest,
        Effect.PURE,
        1.0,
        outcome=Outcome.DONE,
        intent=intent,
    )


def opened(folder: Path) -> tuple[Database, JournalDisk]:
    db = Database(folder / "aios.db", [tables.SCHEMA])
    return db, JournalDisk(db, 1_000)


async def test_many_records_are_one_commit(tmp_path: Path) -> None:
    db, disk = opened(tmp_path)
    for seq in range(1, 501):
        disk.add(record(seq))
    await disk.flush()
    assert db.statistics().n_commits == 1
    assert len(await disk.load(Pid(2))) == 500
    assert [row.record.seq for row in await disk.load(Pid(2), after=497)] == [498, 499, 500]
    await db.aclose()


async def test_nothing_that_is_written_later_is_there_without_the_records_before(
    tmp_path: Path,
) -> None:
    db, disk = opened(tmp_path)
    seen: list[int] = []

    def look(connection: apsw.Connection) -> None:
        seen.append(len(tables.load(connection, Pid(2))))

    for n in range(1, 4):
        disk.add(record(n))
        await db.write(look)
    assert seen == [1, 2, 3]
    await db.aclose()


async def test_of_calls_that_are_left_those_stay_that_may_have_done_something(
    tmp_path: Path,
) -> None:
    db, disk = opened(tmp_path)
    records = [record(seq) for seq in range(1, 6)]
    done, failed, cut_off, harmless, _ = records
    failed.effect = cut_off.effect = Effect.COMPENSABLE
    failed.outcome, failed.answer = Outcome.FAULT, write_fault(FAULT)
    cut_off.outcome = harmless.outcome = Outcome.CANCELLED
    for each in records:
        disk.add(each)
    await disk.flush()
    disk.leave([done, failed, cut_off, harmless])
    rows = await disk.load(Pid(2))
    assert [row.record.outcome.value for row in rows] == [
        "left", "undone", "left", "undone", "done",
    ]  # fmt: skip
    assert [each.seq for each in Replay(rows).left] == [5]
    await db.aclose()


async def test_records_that_a_full_disk_refused_are_written_when_there_is_room(
    tmp_path: Path,
) -> None:
    connections: list[apsw.Connection] = []
    db = Database(tmp_path / "aios.db", [tables.SCHEMA], prepare=(connections.append,))
    disk = JournalDisk(db, 2_000)
    await db.open()
    connections[0].pragma("max_page_count", 1)  # no more than the writer has
    for seq in range(1, 1_000):
        disk.add(record(seq))
    with pytest.raises(ResourceExhausted, match="full"):
        await disk.flush()
    disk.add(record(1_000))
    connections[0].pragma("max_page_count", 1 << 20)
    await disk.flush()
    assert len(await disk.load(Pid(2))) == 1_000
    await db.aclose()


REFUSE = "CREATE TEMP TRIGGER refuse BEFORE INSERT ON journal_records BEGIN SELECT RAISE(FAIL, 'no'); END"


async def written(db: Database, seen: list[list[int]]) -> None:
    """An effect that notes which records are there with it."""
    with suppress(AiosError, apsw.Error):
        await db.write(lambda c: seen.append([row.record.seq for row in tables.load(c, Pid(2))]))


async def test_what_was_queued_while_a_commit_failed_is_not_there_without_the_records_before(
    tmp_path: Path,
) -> None:
    """Found by a simulation: an effect was on disk before the record that it followed from, and the power failed."""
    connections: list[apsw.Connection] = []
    db = Database(tmp_path / "aios.db", [tables.SCHEMA], prepare=(connections.append,))
    disk, seen = JournalDisk(db, 1_000), list[list[int]]()
    await db.open()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:

            async def go_on() -> None:
                tasks.start_soon(written, db, seen)
                await anyio.wait_all_tasks_blocked()
                disk.add(record(2))
                tasks.start_soon(written, db, seen)
                await anyio.wait_all_tasks_blocked()

            def fail_once() -> bool:
                connections[0].set_commit_hook(None)
                anyio.from_thread.run(go_on)
                return True

            connections[0].set_commit_hook(fail_once)
            disk.add(record(1))
            with pytest.raises(apsw.ConstraintError):
                await disk.flush()
    assert seen == [[1, 2], [1, 2]]
    assert [row.record.seq for row in await disk.load(Pid(2))] == [1, 2]
    await db.aclose()


async def test_what_is_in_a_group_with_records_that_cannot_be_written_fails_with_them(
    tmp_path: Path,
) -> None:
    connections: list[apsw.Connection] = []
    db = Database(tmp_path / "aios.db", [tables.SCHEMA], prepare=(connections.append,))
    disk, seen = JournalDisk(db, 1_000), list[list[int]]()
    await db.open()
    connections[0].execute(REFUSE)
    disk.add(record(1))
    await written(db, seen)
    assert seen == []
    connections[0].execute("DROP TRIGGER refuse")
    await written(db, seen)
    assert seen == [[1]]
    await db.aclose()


async def test_records_are_written_once_a_commit_that_could_not_begin_can(tmp_path: Path) -> None:
    """Found by a simulation: the drain was thought to be in the queue for ever."""
    connections: list[apsw.Connection] = []
    db = Database(tmp_path / "aios.db", [tables.SCHEMA], prepare=(connections.append,))
    disk = JournalDisk(db, 1_000)
    await db.open()
    connections[0].set_busy_timeout(1)
    other = apsw.Connection(str(db.path))
    other.execute("BEGIN IMMEDIATE")
    disk.add(record(1))
    with pytest.raises(DiskFailed):
        await disk.flush()
    other.execute("ROLLBACK")
    other.close()
    assert [row.record.seq for row in await disk.load(Pid(2))] == [1]
    await db.aclose()


async def test_a_disk_that_takes_nothing_refuses_calls_in_the_end(tmp_path: Path) -> None:
    _, disk = opened(tmp_path)
    for seq in range(1_000):
        disk.check_room()
        disk.add(record(seq))
    with pytest.raises(ResourceExhausted, match="1000 journal records"):
        disk.check_room()


def large(seq: int, n_bytes: int) -> Record:
    """A chat that was refused."""
    intent = write_call(Chat(messages=(Message(Role.USER, "x" * n_bytes),)))
    told = write_fault(FAULT)
    return replace(record(seq), call="chat", intent=intent, answer=told, family="agent")


async def test_what_waits_for_the_disk_is_bounded_in_bytes_and_who_adds_much_waits_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.journal.disk.MAX_PENDING_BYTES", 400_000)
    monkeypatch.setattr("aios.kernel.journal.disk.SLOW_BYTES", 150_000)
    db, disk = opened(tmp_path)
    for _ in range(2):
        added = [disk.add(each) for each in (large(1, 100_000), large(2, 100_000), record(3))]
        assert added == [False, True, False], "a small call waits for nobody"
        disk.check_room("agent")
        for seq in (4, 5):
            disk.add(large(seq, 100_000))
        with pytest.raises(ResourceExhausted, match="5 journal records of 40"):
            disk.check_room("agent")
        await disk.flush()
        disk.check_room("agent")
    await db.aclose()


async def test_who_filled_the_room_is_refused_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.journal.disk.MAX_PENDING_BYTES", 200_000)
    db, disk = opened(tmp_path)
    for _ in range(2):
        disk.add(replace(record(1), family="other"))
        for seq in (2, 3):
            disk.add(replace(large(seq, 100_000), family="agent"))
        with pytest.raises(ResourceExhausted, match="of agent and what it started"):
            disk.check_room("agent")
        disk.check_room("other")
        disk.check_room()
        await disk.flush()
        disk.check_room("agent")
    await db.aclose()


async def test_what_a_kernel_left_open_is_found_without_taking_the_whole_journal_into_memory(
    tmp_path: Path,
) -> None:
    n_records = 10_000
    db = Database(tmp_path / "aios.db", [tables.SCHEMA])
    disk = JournalDisk(db, n_records + 1)
    for seq in range(1, n_records + 1):
        disk.add(replace(record(seq), ended_unix_s=float(seq)))
    left = replace(record(n_records // 2), outcome=Outcome.OPEN, answer=None)
    disk.add(replace(left, pid=Pid(3)))
    last = replace(left, seq=n_records + 1)
    disk.add(last)
    await disk.flush()
    told = list[Record]()

    def settle(each: Record) -> Fault:
        told.append(each)
        return FAULT

    tracemalloc.start()
    try:
        found = await db.read(tables.open_records)
        await disk.settle_open(Pid(2), settle)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100 * n_records
    assert [(each.pid, each.seq) for each in found] == [(2, last.seq), (3, left.seq)]
    assert [each.seq for each in told] == [last.seq]
    (row,) = await disk.load(Pid(2), after=n_records)
    assert (row.record.outcome, row.record.ended_unix_s) == (Outcome.FAULT, float(n_records))
    await db.aclose()


async def test_a_drain_ends_though_records_come_faster_than_they_are_written(
    tmp_path: Path,
) -> None:
    db, disk = opened(tmp_path)
    n_done = 0

    def go_on(_: apsw.Connection) -> None:
        nonlocal n_done
        n_done += 1
        if n_done < 100:
            anyio.from_thread.run_sync(disk.add, go_on)

    disk.add(go_on)
    await disk.flush()
    assert n_done < 100
    while n_done < 100:
        await disk.flush()
    await db.aclose()


async def test_a_sweep_leaves_the_living_whole(tmp_path: Path) -> None:
    db, disk = opened(tmp_path)
    for pid in (2, 3, 4):
        for seq in range(1, 11):
            disk.add(record(seq, pid))
    kept = Kept({Pid(2): 1}, since_unix_s=1e9, max_bytes=1, last_pid=Pid(3))
    assert await disk.sweep(kept) == 10
    assert len(await disk.load(Pid(2))) == 10
    assert await disk.load(Pid(3)) == []
    assert len(await disk.load(Pid(4))) == 10, "it came after the living were counted"
    await db.aclose()


async def test_the_owner_is_never_held_back_and_many_middling_records_hold_back_their_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.journal.disk.MAX_PENDING_BYTES", 200_000)
    db, disk = opened(tmp_path)
    disk.add(replace(large(1, 20_000), family=""))
    for seq in range(2, 22):
        disk.add(large(seq, 10_000))
    disk.check_room()
    with pytest.raises(ResourceExhausted):
        disk.check_room("agent")
    await db.aclose()
