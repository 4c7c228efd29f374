from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from aios.abi.types import Pid
from aios.kernel.budget import Good, Ledger, Reservation, Shortage

OUT, CALLS = Good.COMPLETION_TOKENS, Good.CALLS


def test_a_reservation_is_taken_from_all_above_or_from_none() -> None:
    ledger = Ledger()
    ledger.open(Pid(1), None, {OUT: 100})
    ledger.open(Pid(2), Pid(1), {OUT: 60})
    ledger.open(Pid(3), Pid(1), {})
    first = ledger.reserve(Pid(2), {OUT: 60})
    assert isinstance(first, Reservation)
    assert ledger.left(Pid(3), OUT) == 40
    short = ledger.reserve(Pid(3), {CALLS: 1, OUT: 41})
    assert short == Shortage(Pid(1), OUT, 41, 40, 100, is_passing=True)
    assert ledger.get(Pid(3)).reserved.get(CALLS, 0) == 0
    first.settle({OUT: 10})
    assert ledger.left(Pid(3), OUT) == 90
    assert ledger.left(Pid(2), OUT) == 50


def test_without_limits_everything_is_counted_and_nothing_refused() -> None:
    ledger = Ledger()
    ledger.open(Pid(1), None, {})
    got = ledger.reserve(Pid(1), {})
    assert isinstance(got, Reservation)
    got.settle({OUT: 7})
    assert ledger.get(Pid(1)).spent == {OUT: 7}
    assert ledger.left(Pid(1), OUT) is None
    assert not ledger.is_limited(Pid(1))


def test_a_child_left_behind_stays_under_the_limits_of_its_parent() -> None:
    ledger = Ledger()
    ledger.open(Pid(1), None, {OUT: 10})
    ledger.open(Pid(2), Pid(1), {})
    ledger.forget(Pid(1))
    assert ledger.is_limited(Pid(2))
    assert isinstance(ledger.reserve(Pid(2), {OUT: 11}), Shortage)


def test_a_limit_below_what_is_spent_leaves_nothing() -> None:
    ledger = Ledger()
    ledger.open(Pid(1), None, {OUT: 10})
    got = ledger.reserve(Pid(1), {OUT: 10})
    assert isinstance(got, Reservation)
    got.settle({OUT: 10})
    ledger.set_limits(Pid(1), {OUT: 5})
    assert ledger.left(Pid(1), OUT) == 0
    assert ledger.reserve(Pid(1), {OUT: 1}) == Shortage(Pid(1), OUT, 1, 0, 5)


class Spending(RuleBasedStateMachine):
    """Processes that start others, reserve, settle and end in any order: no limit is ever overshot."""

    pids = Bundle("pids")
    reservations = Bundle("reservations")

    @initialize(target=pids, limit=st.integers(0, 200))
    def begin(self, limit: int) -> Pid:
        self.ledger = Ledger()
        self.ledger.open(Pid(1), None, {OUT: limit})
        self.n_pids = 1
        return Pid(1)

    @rule(target=pids, parent=pids, limit=st.none() | st.integers(0, 100))
    def spawn(self, parent: Pid, limit: int | None) -> Pid:
        self.n_pids += 1
        self.ledger.open(Pid(self.n_pids), parent, {} if limit is None else {OUT: limit})
        return Pid(self.n_pids)

    @rule(target=reservations, pid=pids, amount=st.integers(0, 60))
    def reserve(self, pid: Pid, amount: int) -> object:
        left = self.ledger.left(pid, OUT)
        got = self.ledger.reserve(pid, {OUT: amount, CALLS: 1})
        assert isinstance(got, Reservation) == (left is None or amount <= left)
        return got if isinstance(got, Reservation) else multiple()

    @rule(reservation=reservations, share=st.floats(0, 1))
    def settle(self, reservation: Reservation, share: float) -> None:
        if not reservation.is_settled:
            reservation.settle({OUT: int(reservation.amounts[OUT] * share), CALLS: 1})

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "ledger"):
            return
        self.ledger.check_invariants()
        for number in range(1, self.n_pids + 1):
            account = self.ledger.get(Pid(number))
            if OUT in account.limits:
                held = account.spent.get(OUT, 0) + account.reserved.get(OUT, 0)
                assert held <= account.limits[OUT]


TestSpending = Spending.TestCase
