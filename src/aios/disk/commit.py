"""Group commit: the writes of many, one transaction, one sync.

Each write has a savepoint of its own: one that fails is undone alone, and the others are committed. Some writes nobody waits
for: they are *owed*, and tried again, before anything else, until they are on disk. If what stands behind one in the queue may
be true only because of it, then it is *needed*: no group is committed without it.

A group ends early behind a write that changed much, so that nobody waits for one such write of each of the others.

What costs as much for one write as for many may be left to the end of the group: see `Job.closing`.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import apsw

T_co = TypeVar("T_co", covariant=True)

MAX_CHANGES = 2_000
"""Rows that are changed before a group ends early: about 50 ms. Counted and not timed, so that a run can be repeated."""

Closing = Callable[[apsw.Connection], None]
"""The last thing that a group does before its commit, once for all jobs that name it. If it fails, so do all jobs."""


class Job(Generic[T_co]):
    """A write that waits for its commit, and then what came of it.

    `on_failure` is told in the writer's thread that it was undone, perhaps twice.
    """

    def __init__(
        self,
        write: Callable[[apsw.Connection], T_co],
        publish: Callable[[T_co], None] | None = None,
        *,
        on_failure: Callable[[], None] | None = None,
        is_owed: bool = False,
        is_needed: bool = False,
        closing: Closing | None = None,
    ) -> None:
        self._write = write
        self._publish = publish
        self._on_failure = on_failure
        self.is_owed = is_owed
        self.is_urgent = False
        self.is_needed = is_needed
        self.closing = closing
        self._value: list[T_co] = []
        self.error: Exception | None = None
        self.is_done = False

    def attempt(self, connection: apsw.Connection) -> None:
        """Do the write inside a savepoint; an error of it is kept for who asked."""
        self.error = None
        self._value.clear()
        connection.execute("SAVEPOINT job")
        try:
            self._value.append(self._write(connection))
        except Exception as error:  # noqa: BLE001 - raised again by `result`, where it belongs
            self.fail(error)
            if connection.in_transaction:  # a full disk has undone everything already
                connection.execute("ROLLBACK TO job")
        if connection.in_transaction:
            connection.execute("RELEASE job")

    def fail(self, error: Exception) -> None:
        """It, or the commit, failed: nothing of it is there, whatever it returned."""
        self.error = error
        if self._on_failure is not None:
            self._on_failure()

    def publish(self) -> None:
        """It is on disk: let what lies beside the database, such as an index in memory, know of it."""
        if self._publish is not None and self.error is None:
            self._publish(self._value[0])

    @property
    def is_written(self) -> bool:
        """It is on disk."""
        return self.is_done and self.error is None

    def result(self) -> T_co:
        """What the write returned.

        Raises:
            Exception: Whatever the write or the commit raised.
        """
        assert self.is_done, "asked for the result of a write that was not committed"
        if self.error is not None:
            raise self.error
        return self._value[0]


def commit(connection: apsw.Connection, jobs: Sequence[Job[object]]) -> list[Job[object]]:
    """Run the jobs in their order and commit them together; when this returns each is done, on disk or failed, or was not begun.

    Returns: Those to be run before any other: the owed ones that failed, and then those that were not begun.
    """
    begun = list[Job[object]]()
    error = _find_failure(connection, jobs, begun)
    if error is not None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return fail_all(jobs, error)
    for job in begun:
        job.is_done = True
    for job in begun:
        job.publish()
    return [*_owed(begun), *jobs[len(begun) :]]


def fail_all(jobs: Sequence[Job[object]], error: Exception) -> list[Job[object]]:
    """None of the jobs was written. Returns: the owed ones, as `commit` does."""
    for job in jobs:
        job.fail(error)
        job.is_done = True
    return _owed(jobs)


def _owed(jobs: Sequence[Job[object]]) -> list[Job[object]]:
    return [job for job in jobs if job.is_owed and job.error is not None]


def _find_failure(
    connection: apsw.Connection, jobs: Sequence[Job[object]], begun: list[Job[object]]
) -> Exception | None:
    """Try to commit the first of the jobs, which it adds to `begun`. Returns: what undid all; None if these are on disk."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        most = connection.total_changes() + MAX_CHANGES
        for job in jobs:
            begun.append(job)
            job.attempt(connection)
            if job.is_needed and job.error is not None:
                return job.error
            if not connection.in_transaction:
                return job.error if isinstance(job.error, apsw.Error) else apsw.FullError("undone")
            if connection.total_changes() > most:
                break
        for closing in dict.fromkeys(job.closing for job in begun if job.error is None):
            if closing is not None:
                closing(connection)
        connection.execute("COMMIT")
    except apsw.Error as error:
        return error
    return None
