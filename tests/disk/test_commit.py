from functools import partial
from pathlib import Path

import apsw
import pytest

from aios.disk.commit import Job, commit
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
