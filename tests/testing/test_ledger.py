import pytest

from aios.testing.ledger import Ledger, Trace


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    for act in ("1", "2", "3"):
        ledger.ask("a", "file", act)
    ledger.acknowledge("a", "file", "1")
    ledger.acknowledge("a", "file", "3")
    return ledger


@pytest.mark.parametrize("found", [["1", "3"], ["1", "2", "3"]])
def test_what_was_not_acknowledged_may_have_happened(ledger: Ledger, found: list[str]) -> None:
    ledger.compare("a", "file", found)
    assert not ledger.violations


@pytest.mark.parametrize("found", [["1"], ["1", "1", "3"], ["3", "1"], ["1", "3", "4"]])
def test_lost_doubled_disordered_and_invented_acts_are_found(
    ledger: Ledger, found: list[str]
) -> None:
    ledger.compare("a", "file", found)
    assert ledger.violations


def test_a_later_life_may_ask_in_another_order() -> None:
    ledger = Ledger()
    for act in ("a", "b", "c", "b", "c"):
        ledger.ask("w0", "tool", act)
    ledger.ask("w0", "tool", "a")
    ledger.compare("w0", "tool", ["b", "c", "a"])
    assert ledger.violations == []
    ledger.compare("w0", "tool", ["b", "c", "b"])
    assert len(ledger.violations) == 1, "no act comes twice, however often it was asked for"


def test_a_trace_tells_orders_apart() -> None:
    one, other = Trace(), Trace()
    one.add("a")
    one.add("b")
    other.add("b")
    other.add("a")
    assert one.n_events == other.n_events == 2
    assert one.value() != other.value()
