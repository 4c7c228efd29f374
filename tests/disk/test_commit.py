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
