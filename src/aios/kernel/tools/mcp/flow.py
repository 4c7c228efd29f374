"""How much a server may say that nobody asked it for. Pure.

Replies are as many as the calls; requests, notifications, log lines and junk are not, and each costs the kernel time. They are let
through at a rate; a server that goes on over it is ended.
"""

BURST = 2_000
PER_S = 200.0
REQUEST = 20
"""So much does a request take, for each must be answered."""
BYTES = 4096
"""So much of what is unasked takes one more."""


class Flow:
    """A bucket that fills at a rate; what is unasked takes from it."""

    def __init__(self, burst: int = BURST, per_s: float = PER_S) -> None:
        self._burst, self._per_s = burst, per_s
        self._left = float(burst)
        self._seen_s: float | None = None

    def admit(self, now_s: float, n: int = 1) -> bool:
        """Take `n`. Returns: whether there were so many."""
        if self._seen_s is not None:
            gained = max(0.0, now_s - self._seen_s) * self._per_s
            self._left = min(float(self._burst), self._left + gained)
        self._seen_s = now_s
        if self._left < n:
            return False
        self._left -= n
        return True

    def check_invariants(self) -> None:
        """Raise AssertionError if it holds what it cannot."""
        assert 0 <= self._left <= self._burst
