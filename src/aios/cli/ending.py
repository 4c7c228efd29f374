"""The signals that end a command: Ctrl-C, SIGTERM, and that its terminal closes, unless `nohup` said otherwise."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNAL_BASE = 128
"""The exit code is this much above the signal's number, as shells have it."""

HELD_S = 2
"""So long a signal waits for what is done whole."""


def ending_signals() -> list[signal.Signals]:
    """Those that end this command."""
    found = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        found.append(signal.SIGHUP)
    return found


class Ending:
    """Raises in the main thread when one comes: `KeyboardInterrupt`, or `SystemExit` with its exit code."""

    def __init__(self) -> None:
        self._is_held = False
        self._came = 0

    def take(self, number: int, _: FrameType | None) -> None:
        """A signal came; the second one is heeded at once, and so is the alarm."""
        if self._is_held and not self._came:
            self._came = number
            signal.alarm(HELD_S)
        else:
            _raise(self._came or number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is done here is done whole, if that takes no longer than `HELD_S`: a signal is heeded at its end."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            signal.alarm(0)
            if self._came:
                _raise(self._came)


@contextmanager
def ending_in_order() -> Iterator[Ending]:
    """Have signals raise here, instead of the command just being gone."""
    ending = Ending()
    heeded = [each for each in ending_signals() if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, ending.take) for each in (*heeded, signal.SIGALRM)}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(SIGNAL_BASE + number)
