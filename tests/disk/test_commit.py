from functools import partial
from pathlib import Path

import apsw
import pytest

from aios.disk.commit import MAX_CHANGES, Job, commit
from aios.disk.connection import connect


def test_the_jobs_of_a_group_are_committed_in_order_and_a_failed_one_is_undone(
    tmp_path: Path,
) -> None:
    connection = connect(tmp_path / "a.db", is_writer=True)
    connection.execute("CREATE TABLE t (a UNIQUE)")

    def insert(c: apsw.Connection, value: int) -> int:
        c.execute("INSERT INTO t VALUES (?)", (value,))
        return c.last_insert_rowid()

    jobs = [Job(partial(insert, value=value)) for value in (5, 6, 5)]
    commit(connection, jobs)
    assert [jobs[0].result(), jobs[1].result()] == [1, 2]
    with pytest.raises(apsw.ConstraintError):
        jobs[2].result()
    assert connection.execute("SELECT a FROM t").fetchall() == [(5,), (6,)]


def test_a_commit_that_fails_fails_its_jobs(tmp_path: Path) -> None:
    connection = connect(tmp_path / "a.db", is_writer=True)
    connection.execute("CREATE TABLE t (a)")
    connection.set_commit_hook(lambda: True)
    job = Job(lambda c: c.execute("INSERT INTO t VALUES (1)").fetchall())
    commit(connection, [job])
    with pytest.raises(apsw.Error):
        job.result()
    assert connection.execute("SELECT a FROM t").fetchall() == []


def test_only_what_is_on_disk_is_published_in_order(tmp_path: Path) -> None:
    connection = connect(tmp_path / "a.db", is_writer=True)
    connection.execute("CREATE TABLE t (a UNIQUE)")
    published: list[object] = []

    def insert(c: apsw.Connection, value: int) -> int:
        c.execute("INSERT INTO t VALUES (?)", (value,))
        assert not published, "published before the commit"
        return value

    commit(connection, [Job(partial(insert, value=value), published.append) for value in (5, 6, 5)])
    assert published == [5, 6]
    published.clear()
    connection.set_commit_hook(lambda: True)
    commit(connection, [Job(partial(insert, value=7), published.append)])
    assert published == []


def test_no_group_is_committed_without_what_it_needs_which_is_run_again(tmp_path: Path) -> None:
    connection = connect(tmp_path / "a.db", is_writer=True)
    connection.execute("CREATE TABLE t (a UNIQUE)")
    undone: list[str] = []
    published: list[str] = []

    def insert(c: apsw.Connection, value: int) -> None:
        c.execute("INSERT INTO t VALUES (?)", (value,))

    def owed(value: int, *, is_needed: bool) -> Job[None]:
        return Job(
            partial(insert, value=value), lambda _: published.append(str(value)),
            on_failure=lambda: undone.append(str(value)), is_owed=True, is_needed=is_needed,
        )  # fmt: skip

    connection.execute("INSERT INTO t VALUES (1), (2)")
    only_owed, needed = owed(1, is_needed=False), owed(2, is_needed=True)
    asked = [Job(partial(insert, value=value)) for value in (8, 9)]
    assert commit(connection, [asked[0], only_owed]) == [only_owed], "it is undone alone"
    assert commit(connection, [only_owed, needed, asked[1]]) == [only_owed, needed]
    with pytest.raises(apsw.ConstraintError):
        asked[1].result()
    assert connection.execute("SELECT a FROM t").fetchall() == [(1,), (2,), (8,)]
    connection.execute("DELETE FROM t")
    published.clear()
    assert commit(connection, [only_owed, needed]) == []
    assert connection.execute("SELECT a FROM t").fetchall() == [(1,), (2,)]
    assert (published, set(undone)) == (["1", "2"], {"1", "2"})


def test_what_closes_a_group_is_done_once_after_its_writes_and_fails_with_them(
    tmp_path: Path,
) -> None:
    connection = connect(tmp_path / "a.db", is_writer=True)
    connection.execute("CREATE TABLE t (a UNIQUE)")

    def insert(c: apsw.Connection, value: int) -> None:
        c.execute("INSERT INTO t VALUES (?)", (value,))

    def close(c: apsw.Connection) -> None:
        c.execute("INSERT INTO t SELECT -max(a) FROM t")

    commit(connection, [Job(partial(insert, value=value), closing=close) for value in (5, 6, 5)])
    assert connection.execute("SELECT a FROM t").fetchall() == [(5,), (6,), (-6,)]
    failed = Job(partial(insert, value=5), closing=close)
    commit(connection, [failed, Job(partial(insert, value=3))])
    assert connection.execute("SELECT a FROM t").fetchall() == [(5,), (6,), (-6,), (3,)]
    jobs = [Job(partial(insert, value=4), closing=close), Job(partial(insert, value=2))]
    commit(connection, jobs)
    for job in jobs:
        with pytest.raises(apsw.ConstraintError):
            job.result()
    assert connection.execute("SELECT a FROM t").fetchall() == [(5,), (6,), (-6,), (3,)]


@pytest.mark.parametrize("is_undone", [False, True])
def test_a_group_ends_behind_a_write_that_changed_much(tmp_path: Path, *, is_undone: bool) -> None:
    connection = connect(tmp_path / "a.db", is_writer=True)
    connection.execute("CREATE TABLE t (a UNIQUE)")
    published: list[object] = []
    closed: list[str] = []

    def insert(c: apsw.Connection, first: int, n: int) -> int:
        c.executemany("INSERT INTO t VALUES (?)", ((first + number,) for number in range(n)))
        if n > 1 and is_undone:
            raise ValueError("too much")
        return first

    def job(first: int, n: int, name: str = "") -> Job[int]:
        return Job(
            partial(insert, first=first, n=n), published.append,
            closing=(lambda _: closed.append(name)) if name else None,
        )  # fmt: skip

    many = MAX_CHANGES + 1
    jobs = [job(-1, 1, "first"), job(0, many), job(many, 1, "second"), job(many, 1)]
    assert commit(connection, jobs) == jobs[2:]
    assert [each.is_done for each in jobs] == [True, True, False, False]
    assert published == ([-1] if is_undone else [-1, 0])
    assert closed == ["first"]
    assert commit(connection, jobs[2:]) == []
    assert jobs[2].result() == many
    with pytest.raises(apsw.ConstraintError):
        jobs[3].result()
    assert closed == ["first", "second"]
    assert connection.execute("SELECT count(*) FROM t").get == (2 if is_undone else many + 2)


def test_what_is_owed_comes_before_what_was_not_begun(tmp_path: Path) -> None:
    connection = connect(tmp_path / "a.db", is_writer=True)
    connection.execute("CREATE TABLE t (a UNIQUE)")

    def fail(_: apsw.Connection) -> None:
        raise ValueError("not yet")

    def fill(c: apsw.Connection) -> None:
        numbers = ((number,) for number in range(MAX_CHANGES + 1))
        c.executemany("INSERT INTO t VALUES (?)", numbers)

    owed, large, later = Job(fail, is_owed=True), Job(fill), Job(fill)
    assert commit(connection, [owed, large, later]) == [owed, later]
    assert large.is_written
    assert not later.is_done
