"""Group commit: the writes of many, one transaction, one sync.

Each write has a savepoint of its own: one that fails is undone alone, and the others are committed.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import apsw

T_co = TypeVar("T_co", covariant=True)


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
    ) -> None:
        self._write = write
        self._publish = publish
        self._on_failure = on_failure
        self._value: list[T_co] = []
        self.error: Exception | None = None
        self.is_done = False

    def attempt(self, connection: apsw.Connection) -> None:
        """Do the write inside a savepoint; an error of it is kept for who asked."""
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

    def result(self) -> T_co:
        """What the write returned.

        Raises:
            Exception: Whatever the write or the commit raised.
        """
        assert self.is_done, "asked for the result of a write that was not committed"
        if self.error is not None:
            raise self.error
        return self._value[0]


def commit(connection: apsw.Connection, jobs: Sequence[Job[object]]) -> None:
    """Run the jobs in their order and commit them together; when this returns each is done, on disk or failed."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            job.attempt(connection)
            if not connection.in_transaction:
                raise job.error if isinstance(job.error, apsw.Error) else apsw.FullError("undone")
        connection.execute("COMMIT")
    except apsw.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        for job in jobs:
            job.fail(error)
    for job in jobs:
        job.is_done = True
    for job in jobs:
        job.publish()
