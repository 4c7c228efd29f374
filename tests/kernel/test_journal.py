import pytest

from aios.abi.calls import GetPid, Kill
from aios.abi.types import Pid
from aios.kernel.journal import Effect, Journal, Outcome


def test_a_call_is_open_until_it_is_settled() -> None:
    journal = Journal(max_records=10)
    record = journal.begin(Pid(2), 1, call=GetPid(), effect=Effect.PURE, now_s=1.0)
    assert journal.records(Pid(2))[0].outcome is Outcome.OPEN
    journal.settle(record, Outcome.DONE, now_s=2.0)
    assert (record.outcome, record.begun_s, record.ended_s) == (Outcome.DONE, 1.0, 2.0)


def test_equal_calls_have_equal_hashes_and_others_do_not() -> None:
    journal = Journal(max_records=10)
    calls = [Kill(pid=Pid(1)), Kill(pid=Pid(1)), Kill(pid=Pid(2))]
    hashes = [
        journal.begin(Pid(2), n, call=call, effect=Effect.IRREVERSIBLE, now_s=0).call_hash
        for n, call in enumerate(calls)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_oldest_settled_records_are_dropped_and_open_ones_never() -> None:
    journal = Journal(max_records=3)
    kept = journal.begin(Pid(1), 1, call=GetPid(), effect=Effect.PURE, now_s=0)
    for seq in range(2, 7):
        record = journal.begin(Pid(1), seq, call=GetPid(), effect=Effect.PURE, now_s=0)
        journal.settle(record, Outcome.DONE, now_s=0)
    assert [record.seq for record in journal.records(Pid(1))] == [1, 5, 6]
    assert kept.outcome is Outcome.OPEN
    statistics = journal.statistics()
    assert (
        statistics.n_records,
        statistics.n_open,
        statistics.n_written,
        statistics.n_dropped,
    ) == (3, 1, 6, 3)


def test_a_record_cannot_be_settled_twice() -> None:
    journal = Journal(max_records=3)
    record = journal.begin(Pid(1), 1, call=GetPid(), effect=Effect.PURE, now_s=0)
    journal.settle(record, Outcome.FAULT, code="not_found", now_s=0)
    with pytest.raises(AssertionError, match="settled already"):
        journal.settle(record, Outcome.DONE, now_s=0)
