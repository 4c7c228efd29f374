"""The signals that end a command."""

import os
import signal

import pytest

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
