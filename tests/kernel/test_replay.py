import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.journal.runs import rows

from aios.abi.call import Done
from aios.abi.calls import GetPid, Log, Self
from aios.abi.types import Pid
from aios.errors import ReplayDivergence
from aios.kernel.journal.records import Effect, Outcome, Record
from aios.kernel.journal.tables import Row
from aios.kernel.replay import Replay, retell


def row(
    seq: int, digest: bytes, *, begun: float = 0.0, ended: float = 0.0, is_open: bool = False
) -> Row:
    outcome = Outcome.OPEN if is_open else Outcome.DONE
    record = Record(Pid(2), seq, "getpid", digest, Effect.PURE, begun, outcome=outcome)
    record.ended_unix_s = ended
    return Row(record)


def test_equal_calls_get_their_answers_in_order_and_each_once() -> None:
    replay = Replay([row(1, b"a"), row(2, b"b"), row(3, b"a")])
    found = [replay.take(digest) for digest in (b"a", b"a", b"a", b"b")]
    assert [each.record.seq if each else None for each in found] == [1, 3, None, 2]
    assert replay.is_over
    assert replay.n_replayed == 3


def test_what_was_cut_off_is_not_told() -> None:
    replay = Replay([row(1, b"a"), row(2, b"b", is_open=True)])
    assert replay.take(b"b") is None
    assert replay.expected().record.seq == 1


def test_what_the_kernel_asked_in_the_course_of_a_call_is_the_programs_to_ask_no_more() -> None:
    nested, undone = row(2, b"b"), row(3, b"c")
    nested.record.within, undone.record.outcome = 1, Outcome.UNDONE
    replay = Replay([row(1, b"a"), nested, undone, row(4, b"c")])
    assert replay.take(b"b") is None
    assert replay.within(1) == [nested]
    again = replay.take(b"c")
    assert (replay.take(b"a") is not None, again and again.record.seq) == (True, 4)
    assert replay.is_over


def test_overlapping_calls_are_told_from_those_that_follow_each_other() -> None:
    apart = [row(1, b"a", begun=1, ended=2), row(2, b"b", begun=2, ended=3)]
    assert not Replay(apart).has_overlaps
    together = [row(1, b"a", begun=1, ended=3), row(2, b"b", begun=2, ended=4)]
    assert Replay(together).has_overlaps
    between = [row(1, b"a", begun=1, ended=2), row(3, b"b", begun=2, ended=3)]
    assert Replay(between).has_overlaps, "call 2 was cut off while call 3 was made"


def test_a_program_is_as_late_as_it_made_the_oldest_call_that_is_left() -> None:
    replay = Replay(
        [
            row(1, b"a", begun=1, is_open=True),
            row(2, b"b", begun=5, ended=90),
            row(3, b"c", begun=9, ended=10),
        ]
    )
    lags = [replay.lag_s]
    for digest in (b"b", b"c"):
        replay.take(digest)
        lags.append(replay.lag_s)
    assert lags == [4, 8, 0]
    assert Replay([]).lag_s == 0


@given(st.lists(st.sampled_from([b"a", b"b", b"c"])), st.randoms())
def test_in_whatever_order_calls_come_each_record_is_told_once(
    digests: list[bytes], draw: random.Random
) -> None:
    replay = Replay([row(seq, digest) for seq, digest in enumerate(digests, 1)])
    asked = list(digests)
    draw.shuffle(asked)
    told = []
    for digest in asked:
        found = replay.take(digest)
        assert found is not None
        assert found.record.digest == digest
        told.append(found.record.seq)
        replay.check_invariants()
    assert sorted(told) == list(range(1, len(digests) + 1))
    assert replay.is_over


def test_a_run_is_told_again_in_its_order_and_open_calls_are_told_nothing() -> None:
    made = rows([(GetPid(), Self(Pid(2), Pid(1), "a")), (Log(text="a"), Done()), (GetPid(), None)])
    told = list(retell(made))
    assert [each.record.seq for each in told] == [1, 2, 3]
    assert [bool(each.answer) for each in told] == [True, True, False]


def test_a_call_that_the_journal_would_not_find_again_diverges() -> None:
    made = rows([(GetPid(), Self(Pid(2), Pid(1), "a")), (Log(text="a"), Done())])
    made[1].record.digest = b"another"
    telling = retell(made)
    assert next(telling).record.seq == 1
    with pytest.raises(ReplayDivergence, match=r"call 2 \(log\)"):
        next(telling)


def test_what_a_function_asked_that_a_program_serves_is_not_asked_for_again() -> None:
    asked = row(2, b"b")
    asked.record.job = 7
    replay = Replay([row(1, b"a"), asked, row(3, b"b"), row(4, b"c", is_open=True)])
    assert [each.record.seq for each in replay.behind(2)] == [3, 4]
    found = [replay.take(digest) for digest in (b"b", b"b", b"a")]
    assert [each.record.seq if each else None for each in found] == [3, None, 1]
    assert replay.is_over


def test_a_run_is_told_with_what_its_functions_asked_in_between() -> None:
    made = rows([(GetPid(), Self(Pid(2), Pid(1), "a")), (GetPid(), Self(Pid(2), Pid(1), "b"))])
    made[0].record.job = 7
    told = list(retell(made))
    assert [each.record.seq for each in told] == [1, 2]
