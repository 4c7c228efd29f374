"""The signals that end a command: Ctrl-C, SIGTERM, and that its terminal closes, unless `nohup` said otherwise."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNAL_BASE = 128
"""The exit code is this much above the signal's number, as shells have it."""


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
        """A signal came; the second one is heeded at once."""
        if self._is_held and not self._came:
            self._came = number
        else:
            _raise(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is done here is done whole: a signal is heeded at its end."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._came:
            _raise(self._came)


@contextmanager
def ending_in_order() -> Iterator[Ending]:
    """Have signals raise here, instead of the command just being gone."""
    ending = Ending()
    before = {number: signal.signal(number, ending.take) for number in ending_signals()}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(SIGNAL_BASE + number)
