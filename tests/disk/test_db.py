from collections.abc import Callable
from pathlib import Path
from threading import Event

import anyio
import apsw
import pytest
from anyio.lowlevel import checkpoint

from aios.disk.db import Database
from aios.disk.migrations import Schema
from aios.errors import Conflict, DiskFailed, ResourceExhausted

pytestmark = pytest.mark.anyio

SCHEMA = Schema("t", ("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)",))


def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "home" / "aios.db", [SCHEMA])


def insert(text: str, *, key: int | None = None) -> Callable[[apsw.Connection], list[object]]:
    return lambda c: list(c.execute("INSERT INTO t VALUES (?, ?) RETURNING a", (key, text)))


def texts(connection: apsw.Connection) -> list[str]:
    return [b for (b,) in connection.execute("SELECT b FROM t ORDER BY a")]


async def test_what_was_written_is_read_now_and_after_a_restart(tmp_path: Path) -> None:
    db = database(tmp_path)
    assert not db.is_open
    assert await db.write(insert("one")) == [(1,)]
    assert await db.read(texts) == db.read_nowait(texts) == ["one"]
    await db.aclose()
    await db.aclose()
    again = database(tmp_path)
    assert await again.read(texts) == ["one"]
    await again.aclose()


async def test_many_writers_share_a_commit(tmp_path: Path) -> None:
    db = database(tmp_path)
    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(db.write, insert(str(number)))
    found = db.statistics()
    assert found.n_writes == 200
    assert found.n_commits <= 10
    assert len(await db.read(texts)) == 200
    await db.aclose()


async def test_a_write_that_fails_is_undone_alone(tmp_path: Path) -> None:
    db = database(tmp_path)
    await db.open()
    outcomes: dict[int, str] = {}

    def half(connection: apsw.Connection) -> None:
        insert("half")(connection)
        raise KeyError("a bug of the writer")

    async def attempt(number: int) -> None:
        try:
            await db.write(half if number % 2 else insert(str(number)))
            outcomes[number] = "done"
        except KeyError:
            outcomes[number] = "failed"

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(attempt, number)
    assert outcomes == {n: "failed" if n % 2 else "done" for n in range(10)}
    assert await db.read(texts) == ["0", "2", "4", "6", "8"]
    with pytest.raises(apsw.ConstraintError):
        await db.write(insert("twice", key=1))
    await db.aclose()


async def test_a_writer_that_is_cancelled_in_the_queue_has_written_nothing(tmp_path: Path) -> None:
    db = database(tmp_path)
    await db.open()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            scope = anyio.CancelScope()

            async def give_up() -> None:
                with scope:
                    await db.write(insert("given up"))

            await db._turn.acquire()
            tasks.start_soon(give_up)
            tasks.start_soon(db.write, insert("kept"))
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            db._turn.release()
    assert await db.read(texts) == ["kept"]
    await db.aclose()


async def test_a_writer_that_is_cancelled_while_it_is_written_hears_of_it(tmp_path: Path) -> None:
    db = database(tmp_path)
    await db.open()
    begun, go, n_written = Event(), Event(), list[int]()

    def slow(_: apsw.Connection) -> None:
        begun.set()
        assert go.wait(5)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            scope = anyio.CancelScope()

            async def write() -> None:
                with scope:
                    await db.write(insert("kept"))
                    n_written.append(1)
                    await anyio.sleep_forever()

            await db._turn.acquire()
            tasks.start_soon(db.write, slow)
            tasks.start_soon(write)
            await anyio.wait_all_tasks_blocked()
            db._turn.release()
            while not begun.is_set():
                await anyio.sleep(0.001)
            scope.cancel()
            await anyio.sleep(0.01)
            go.set()
    assert await db.read(texts) == ["kept"]
    assert (n_written, scope.cancelled_caught) == ([1], True), "it is cancelled where it waits next"
    await db.aclose()


async def test_a_second_one_is_refused_while_the_first_has_it(tmp_path: Path) -> None:
    first, second = database(tmp_path), database(tmp_path)
    await first.open()
    with pytest.raises(Conflict, match="another kernel"):
        await second.open()
    await first.aclose()
    await second.open()
    await second.aclose()


async def test_a_closed_one_says_so(tmp_path: Path) -> None:
    db = database(tmp_path)
    await db.open()
    await db.aclose()
    with pytest.raises(DiskFailed, match="was closed"):
        await db.write(insert("late"))


async def test_a_full_disk_fails_all_writes_of_the_group_and_no_later_one(tmp_path: Path) -> None:
    db = database(tmp_path)

    def limit(n_pages: int) -> Callable[[apsw.Connection], object]:
        return lambda c: c.pragma("max_page_count", n_pages)

    n_pages = await db.read(lambda c: c.pragma("page_count"))
    await db.write(limit(int(str(n_pages))))
    outcomes: list[str] = []

    async def attempt(text: str) -> None:
        try:
            await db.write(insert(text))
        except ResourceExhausted as error:
            outcomes.append(error.message)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(attempt, "x" * 100_000)
    assert [outcome[:16] for outcome in outcomes] == ["the disk is full"] * 3
    await db.write(limit(1000))
    await db.write(insert("fits"))
    assert await db.read(texts) == ["fits"]
    await db.aclose()


async def test_what_can_be_made_again_is_begun_anew_also_when_it_is_damaged(tmp_path: Path) -> None:
    db = database(tmp_path)
    await db.write(insert("gone"))
    await db.reset()
    assert await db.read(texts) == []
    await db.write(insert("new"))
    await db.aclose()
    db.path.write_bytes(b"damaged" * 1_000)
    again = database(tmp_path)
    with pytest.raises(DiskFailed):
        await again.open()
    await again.reset()
    assert await again.read(texts) == []
    await again.aclose()
    with pytest.raises(DiskFailed):
        await again.reset()


async def test_a_cancelled_writer_leaves_no_other_write_undone(tmp_path: Path) -> None:
    """Found by a simulation: who has taken the group of all is cancelled before its thread begins."""
    db = database(tmp_path)
    await db.open()
    for n_steps in range(12):
        done: list[str] = []

        async def other(text: str, done: list[str] = done) -> None:
            await db.write(insert(text))
            done.append(text)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                scopes = [anyio.CancelScope() for _ in range(3)]

                async def cancelled(scope: anyio.CancelScope) -> None:
                    with scope:
                        await db.write(insert("cancelled"))

                for scope in scopes:
                    tasks.start_soon(cancelled, scope)
                tasks.start_soon(other, f"kept {n_steps}")
                for _ in range(n_steps):
                    await checkpoint()
                for scope in scopes:
                    scope.cancel()
        assert done == [f"kept {n_steps}"]
    await db.aclose()


async def test_a_read_at_once_sees_the_newest_commit_and_keeps_no_log(tmp_path: Path) -> None:
    def fold_early(connection: apsw.Connection) -> None:
        connection.pragma("wal_autocheckpoint", 10)

    path = tmp_path / "home" / "aios.db"
    db = Database(path, [SCHEMA], prepare=(fold_early,))
    for number in range(100):
        text = f"{number} " + "x" * 20_000
        await db.write(insert(text, key=number))
        for _ in range(2):  # the second one is in the snapshot of the first
            assert db.read_nowait(texts)[-1] == text
    assert path.with_name("aios.db-wal").stat().st_size < 300_000
    with pytest.raises(apsw.SQLError, match="no such table"):
        db.read_nowait(lambda c: c.execute("SELECT * FROM missing"))
    await db.write(insert("after", key=100))
    assert db.read_nowait(texts)[-1] == "after"
    await db.aclose()
