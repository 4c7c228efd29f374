from pathlib import Path

from aios.abi.mail import Letter
from aios.abi.types import Pid
from aios.disk.connection import connect
from aios.disk.migrations import migrate
from aios.kernel.mail import tables


def letter(number: int, to: int) -> Letter:
    return Letter(number, Pid(9), "nine", Pid(to), f"body {number}", 1.0)


def test_mail_is_as_it_was_left_and_numbers_never_come_again(tmp_path: Path) -> None:
    connection = connect(tmp_path / "mail.db", is_writer=True)
    migrate(connection, [tables.SCHEMA])
    assert tables.load(connection).last_id == 0
    tables.put(connection, [letter(1, 2), letter(2, 3), letter(3, 2)])
    tables.set_topic(connection, Pid(2), "news", is_on=True)
    tables.set_topic(connection, Pid(3), "news", is_on=True)
    tables.set_topic(connection, Pid(3), "news", is_on=False)
    tables.remove(connection, [letter(3, 2)])
    stored = tables.load(connection)
    assert [each.id for each in stored.letters] == [1, 2]
    assert stored.letters[0] == letter(1, 2)
    assert stored.correspondents == [(2, 9), (3, 9)]
    assert stored.topics == [(2, "news")]
    assert stored.last_id == 3, "the letter that was taken had it"
    tables.close(connection, Pid(2))
    left = tables.load(connection)
    assert [each.id for each in left.letters] == [2]
    assert (left.correspondents, left.topics) == ([(3, 9)], [])
    connection.close()
