from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from aios.abi.calls import Chat, ChatAnswer, GetPid, Self
from aios.abi.contexts import ContextId
from aios.abi.gate import Fault
from aios.abi.types import Finish, Message, Pid, Role, ToolSpec, Usage
from aios.abi.wire import decode_answer, decode_call, decode_fault
from aios.disk.connection import connect
from aios.disk.migrations import migrate
from aios.errors import DiskFailed
from aios.kernel.journal import tables
from aios.kernel.journal.records import Effect, Outcome, Record, Where
from aios.kernel.journal.texts import MAX_INTENT_BYTES, write_answer, write_call, write_fault

HI = (Message(Role.USER, "hi"),)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[apsw.Connection]:
    opened = connect(tmp_path / "journal.db", is_writer=True)
    migrate(opened, [tables.SCHEMA])
    yield opened
    opened.close()


def record(seq: int, call: Chat | GetPid, answer: ChatAnswer | Self | Fault | None) -> Record:
    intent = write_call(call)
    name = str(call.__struct_config__.tag)
    made = Record(Pid(2), seq, name, intent.digest, Effect.PURE, 1.0, intent=intent)
    if isinstance(answer, Fault):
        made.outcome, made.answer = Outcome.FAULT, write_fault(answer)
    elif answer is not None:
        made.outcome, made.answer = Outcome.DONE, write_answer(answer, intent)
    return made


def said(role: Role, text: str) -> Message:
    return Message(role, text)


def chat_answer(text: str) -> ChatAnswer:
    return ChatAnswer(said(Role.ASSISTANT, text), Finish.STOP, Usage(10, 0, 5), "m")


def test_calls_and_answers_come_back_as_they_were(connection: apsw.Connection) -> None:
    talk = (said(Role.SYSTEM, "be short"), said(Role.USER, "hi " * 500))
    pairs: list[tuple[Chat | GetPid, ChatAnswer | Self | Fault]] = [
        (GetPid(), Self(Pid(2), Pid(1), "a")),
        (Chat(messages=talk, max_tokens=5), chat_answer("ho")),
        (Chat(messages=(), context=ContextId(7)), chat_answer("in a context")),
        (Chat(messages=talk), Fault("not_found", "no engine", "start one")),
    ]
    for seq, (call, answer) in enumerate(pairs, 1):
        tables.save(connection, record(seq, call, answer))
    rows = tables.load(connection, Pid(2))
    for (call, answer), row in zip(pairs, rows, strict=True):
        assert decode_call(row.intent) == call
        decode = decode_fault if isinstance(answer, Fault) else decode_answer
        assert decode(row.answer) == answer


def test_a_long_conversation_is_stored_once(connection: apsw.Connection) -> None:
    talk: tuple[Message, ...] = ()
    for turn in range(1, 101):
        talk = (*talk, said(Role.USER, f"question {turn} " * 10))
        answer = chat_answer(f"answer {turn} " * 10)
        tables.save(connection, record(turn, Chat(messages=talk), answer))
        talk = (*talk, answer.message)
    n_records, n_texts, _ = tables.sizes(connection)
    assert n_records == 100
    assert n_texts == 200 + 1, "two messages a turn, and what all the calls have in common"
    last = decode_call(tables.load(connection, Pid(2), after=99)[0].intent)
    assert isinstance(last, Chat)
    assert last.messages == talk[:-1]


def test_a_call_that_is_too_long_to_be_kept_is_known_by_its_digest_whatever_was_said_in_it(
    connection: apsw.Connection,
) -> None:
    tools = (ToolSpec("t", "x" * MAX_INTENT_BYTES),)
    made = record(1, Chat(messages=HI, tools=tools), chat_answer("ho"))
    tables.save(connection, made)
    (row,) = tables.load(connection, Pid(2))
    assert (row.intent, row.record.digest) == (b"", made.digest)
    assert decode_answer(row.answer) == chat_answer("ho")


def test_a_call_of_a_function_is_kept_whole_with_its_tools_since_it_is_done_again(
    connection: apsw.Connection,
) -> None:
    call = Chat(messages=HI, tools=(ToolSpec("t", "x" * MAX_INTENT_BYTES),))
    made = record(1, call, chat_answer("ho"))
    made.job = 7
    tables.save(connection, made)
    assert decode_call(tables.load(connection, Pid(2))[0].intent) == call


def test_what_is_done_on_disk_is_not_undone_by_a_later_record(connection: apsw.Connection) -> None:
    tables.save(connection, record(1, GetPid(), Self(Pid(2), Pid(1), "a")))
    late = record(1, GetPid(), None)
    late.outcome = Outcome.CANCELLED
    tables.save(connection, late)
    assert tables.load(connection, Pid(2))[0].record.outcome is Outcome.DONE


def test_dropped_records_take_the_texts_with_them_that_only_they_had(
    connection: apsw.Connection,
) -> None:
    head = (said(Role.SYSTEM, "shared"),)
    for pid in (2, 3):
        each = record(1, Chat(messages=(*head, said(Role.USER, str(pid)))), chat_answer("yes"))
        each.pid = Pid(pid)
        tables.save(connection, each)
    assert tables.drop(connection, Pid(2)) == 1
    assert tables.collect(connection) == 2, "its question and its answer"
    row = tables.load(connection, Pid(3))[0]
    call = decode_call(row.intent)
    assert isinstance(call, Chat)
    assert [message.text() for message in call.messages] == ["shared", "3"]
    assert tables.last_pid(connection) == 3
    assert [held.pid for held in tables.survey(connection)] == [3]


def test_a_place_and_an_effect_are_kept(connection: apsw.Connection) -> None:
    each = record(1, GetPid(), None)
    each.effect, each.where = Effect.REVERSIBLE, Where.KERNEL
    tables.save(connection, each)
    found = tables.load(connection, Pid(2), texts=False)[0]
    assert (found.record.effect, found.record.where, found.intent) == (
        Effect.REVERSIBLE,
        Where.KERNEL,
        b"",
    )


def test_without_texts_a_row_has_what_is_short_and_the_rest_is_read_when_it_is_needed(
    connection: apsw.Connection,
) -> None:
    talk = (said(Role.USER, "hi"),)
    pairs: list[tuple[Chat | GetPid, ChatAnswer | Self | Fault | None]] = [
        (GetPid(), Self(Pid(2), Pid(1), "a")),
        (GetPid(), Self(Pid(2), Pid(1), "a" * 300)),
        (Chat(messages=talk), chat_answer("ho")),
        (Chat(messages=talk), Fault("not_found", "no engine " * 30, "start one")),
        (GetPid(), None),
    ]
    for seq, (call, answer) in enumerate(pairs, 1):
        tables.save(connection, record(seq, call, answer))
    whole = tables.load(connection, Pid(2))
    rows = tables.load(connection, Pid(2), texts=False)
    assert [bool(row.answer) for row in rows] == [True, False, False, False, False]
    assert [row.record.code for row in rows] == ["", "", "", "not_found", ""]
    assert rows[0].answer == whole[0].answer
    assert [tables.told(connection, row.record) for row in rows] == [row.answer for row in whole]
    assert [tables.asked(connection, row.record) for row in rows] == [row.intent for row in whole]
    chats = tables.each(connection, Pid(2), calls=("chat",), of_functions=False)
    assert list(chats) == whole[2:4]
    assert not list(tables.each(connection, Pid(2), of_functions=True))
    tables.drop_one(connection, rows[1].record)
    with pytest.raises(DiskFailed, match="record 2 of process 2 is gone"):
        tables.told(connection, rows[1].record)
