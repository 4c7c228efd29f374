"""Which of the calls of functions are done again, in which order."""

import time
from collections.abc import Sequence

from aios.abi.call import Answer, Call, Done
from aios.abi.calls import Chat, GetPid
from aios.abi.contexts import (
    ContextAppend,
    ContextClose,
    ContextFork,
    ContextId,
    ContextInfo,
    ContextOpen,
)
from aios.abi.types import Message, Pid, Role
from aios.abi.wire import encode, encode_call
from aios.kernel.jobwork import JobWork
from aios.kernel.journal.records import Effect, Outcome, Record
from aios.kernel.journal.tables import Row

SAID = (Message(Role.USER, "said"),)


def row(seq: int, call: Call[Answer], *, job: int, made: int = 0) -> Row:
    answer: Answer = Done()
    if made:
        answer = ContextInfo(ContextId(made), Pid(2), "", 0, 0, 0)
    tag = str(call.__struct_config__.tag)
    record = Record(Pid(2), seq, tag, b"", Effect.REVERSIBLE, 0, outcome=Outcome.DONE, job=job)
    return Row(record, encode_call(call), encode(answer))


def job_work(rows: Sequence[Row]) -> JobWork:
    return JobWork(
        [row for row in rows if row.record.job], [row for row in rows if not row.record.job]
    )


def append(seq: int, context: int, *, job: int) -> Row:
    return row(seq, ContextAppend(ContextId(context), SAID), job=job)


def seqs(work: JobWork, context: int | None = None, before: int | None = None) -> list[int]:
    which = None if context is None else ContextId(context)
    found = []
    while (each := work.take(which, before)) is not None:
        found.append(each.record.seq)
    return found


def test_a_context_gets_what_functions_did_to_it_before_a_call_and_the_rest_at_the_end() -> None:
    rows = [append(seq, context, job=9) for seq, context in ((2, 1), (3, 5), (5, 1), (6, 5))]
    work = job_work([append(1, 1, job=0), *rows, row(7, GetPid(), job=9)])
    assert seqs(work, 1, 4) == [2]
    assert seqs(work, 5, 2) == []
    assert seqs(work) == [3, 5, 6]
    assert seqs(work) == []


def test_chats_without_a_context_leave_nothing_to_be_done() -> None:
    chat, kept = Chat(messages=SAID), Chat(messages=SAID, context=ContextId(1))
    assert seqs(job_work([row(1, chat, job=9), row(2, kept, job=9)])) == [2]


def test_a_context_that_a_function_left_open_is_made_again() -> None:
    rows = [
        row(1, ContextOpen(), job=7, made=1),
        append(2, 1, job=7),
        row(3, ContextOpen(), job=7, made=2),
        append(4, 2, job=7),
        row(5, ContextClose(ContextId(2)), job=8),
    ]
    assert seqs(job_work(rows)) == [1, 2]


def test_a_context_is_made_again_for_the_sake_of_its_fork() -> None:
    rows = [
        row(1, ContextOpen(), job=7, made=1),
        row(2, ContextFork(ContextId(1)), job=7, made=2),
        row(3, ContextClose(ContextId(1)), job=7),
    ]
    assert seqs(job_work(rows)) == [1, 2, 3]
    rows.append(row(4, ContextClose(ContextId(2)), job=7))
    assert seqs(job_work(rows)) == []


def test_a_fork_is_made_again_of_what_was_said_before_it() -> None:
    rows = [
        row(1, ContextOpen(), job=7, made=1),
        append(2, 1, job=7),
        row(3, ContextFork(ContextId(1)), job=7, made=2),
        append(4, 1, job=7),
        row(5, ContextFork(ContextId(2)), job=7, made=3),
        append(6, 3, job=7),
        append(7, 2, job=7),
    ]
    work = job_work(rows)
    assert seqs(work, 3, 8) == [1, 2, 3, 5, 6]
    assert seqs(work, 1, 8) == [4]
    assert seqs(work) == [7]
    assert seqs(job_work([append(2, 1, job=7), *rows[2:]]), 2, 4) == [2, 3], "of the program's own"


def test_a_context_of_functions_that_the_program_spoke_in_is_made_again_and_closed() -> None:
    def made(*between: Row) -> list[Row]:
        opened, closed = row(1, ContextOpen(), job=7, made=1), ContextClose(ContextId(1))
        return [opened, *between, row(9, closed, job=8)]

    assert seqs(job_work(made(append(2, 1, job=0)))) == [1, 9]
    assert seqs(job_work(made(row(2, ContextFork(ContextId(1)), job=0, made=2)))) == [1, 9]
    assert seqs(
        job_work(made(row(2, ContextFork(ContextId(1)), job=7, made=2), append(3, 2, job=0)))
    ) == [1, 2, 9]
    assert seqs(job_work(made(append(2, 1, job=7)))) == []


def test_much_work_is_given_in_little_time() -> None:
    n_works = 20_000
    rows = [append(seq, 1 + seq % 2, job=7) for seq in range(1, n_works + 1)]
    work = job_work(rows)
    began_s = time.process_time()
    assert len(seqs(work, 2, n_works)) == n_works / 2
    assert len(seqs(work)) == n_works / 2
    assert time.process_time() - began_s < 1
