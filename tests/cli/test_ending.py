"""The signals that end a command."""

import os
import signal
from threading import Event

import pytest
from tests.cli.conftest import LONGEST_S

from aios.cli.ending import ending_in_order, ending_signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_what_is_done_is_done_whole_and_then_the_command_ends(
    number: signal.Signals, code: int
) -> None:
    before, done = signal.getsignal(number), list[str]()

    def act() -> None:
        with ending_in_order() as ending:
            with ending.held():
                os.kill(os.getpid(), number)
                done.append("whole")
            done.append("more")

    with pytest.raises(SystemExit) as ended:
        act()
    assert (ended.value.code, done) == (code, ["whole"])
    assert signal.getsignal(number) is before


def test_a_second_signal_waits_for_nothing() -> None:
    done = list[str]()

    def act() -> None:
        with ending_in_order() as ending, ending.held():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("first")
            os.kill(os.getpid(), signal.SIGINT)
            done.append("second")

    with pytest.raises(KeyboardInterrupt):
        act()
    assert done == ["first"]


def test_a_terminal_that_closes_ends_no_command_that_nohup_began() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in ending_signals()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.SIGHUP in ending_signals()


def test_a_signal_waits_no_longer_than_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aios.cli.ending.HELD_S", 1)

    def act() -> None:
        with ending_in_order() as ending, ending.held():
            os.kill(os.getpid(), signal.SIGTERM)
            Event().wait(LONGEST_S)

    with pytest.raises(SystemExit) as ended:
        act()
    assert ended.value.code == 143


def test_a_signal_is_heeded_also_if_what_was_held_fails() -> None:
    def act() -> None:
        with ending_in_order() as ending, ending.held():
            os.kill(os.getpid(), signal.SIGTERM)
            raise ValueError

    with pytest.raises(SystemExit):
        act()


def test_a_ctrl_c_that_is_not_for_this_command_stays_so() -> None:
    before, done = signal.signal(signal.SIGINT, signal.SIG_IGN), list[str]()
    try:
        with ending_in_order():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("whole")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["whole"]
