from tests.kernel.journal.runs import Pair, rows

from aios.abi.call import Done
from aios.abi.calls import GetPid, Log, Self
from aios.abi.mail import Send, Sent
from aios.abi.types import Pid
from aios.kernel.journal.difference import Parting, find_difference

PAIRS: list[Pair] = [(GetPid(), Self(Pid(2), Pid(1), "a")), (Log(text="a"), Done())]


def test_two_runs_that_asked_and_were_told_the_same_do_not_differ() -> None:
    assert find_difference(rows(PAIRS), rows(PAIRS, pid=9)) is None
    assert find_difference((), ()) is None


def test_another_call_is_where_they_part() -> None:
    left, right = rows(PAIRS), rows([PAIRS[0], (Log(text="b"), Done())])
    found = find_difference(left, right)
    assert found is not None
    assert (found.kind, found.n_equal) == (Parting.CALL, 1)
    assert (found.left, found.right) == (left[1], right[1])


def test_another_answer_to_the_same_call_is_where_they_part() -> None:
    found = find_difference(rows(PAIRS), rows([(GetPid(), Self(Pid(3), Pid(1), "b")), PAIRS[1]]))
    assert found is not None
    assert (found.kind, found.n_equal) == (Parting.ANSWER, 0)


def test_the_receipts_of_two_writes_are_no_difference() -> None:
    call = Send(to=Pid(1), body="hello")
    assert find_difference(rows([(call, Sent(7))]), rows([(call, Sent(9))])) is None


def test_a_run_that_goes_on_differs_from_its_beginning() -> None:
    found = find_difference(rows(PAIRS), rows(PAIRS[:1]))
    assert found is not None
    assert (found.kind, found.n_equal, found.right) == (Parting.END, 1, None)
