"""Wall time of budgets: how long something of a process tree has been alive and not stopped. Pure: told the time, never asks for it.

Other goods are reserved before they are spent; time passes by itself. So a limit of it is a moment, at which the shell stops
what runs. Time during which the whole tree is stopped or ended, or no kernel runs, is not counted; a tree with many processes
at work uses as much as one.
"""

from math import inf

from aios.kernel.budget import Account, Good, Ledger


class WallTimes:
    """The clocks of all accounts of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._running: set[Account] = set()
        """Those with a limit whose clock runs."""

    def count(self, account: Account, step: int, now_s: float) -> bool:
        """One process more (`step` 1) or less (-1) at work in an account. Returns: whether that moved a limit's moment."""
        is_moved = False
        for each in account.chain():
            if not each.n_at_work:
                each.wall_since_s = now_s
            each.n_at_work += step
            assert each.n_at_work >= 0, f"process {each.pid} has {each.n_at_work} at work"
            if not each.n_at_work:
                each.wall_s += now_s - each.wall_since_s
            is_moved |= self.note_limit(each)
        return is_moved

    def note_limit(self, account: Account) -> bool:
        """Look at the limit of an account, which may be another now. Returns: whether it has one."""
        is_limited = Good.WALL in account.limits
        if is_limited and account.n_at_work:
            self._running.add(account)
        else:
            self._running.discard(account)
        return is_limited

    def spent_ms(self, account: Account, now_s: float) -> int:
        """What has passed in an account so far."""
        running_s = now_s - account.wall_since_s if account.n_at_work else 0.0
        return int(1000 * (account.wall_s + running_s))

    def left_ms(self, account: Account, now_s: float) -> int | None:
        """The least that is left up the tree; None without any limit."""
        found = [
            each.limits[Good.WALL] - self.spent_ms(each, now_s)
            for each in account.chain()
            if Good.WALL in each.limits
        ]
        return max(0, min(found)) if found else None

    def exhausted(self, now_s: float) -> list[Account]:
        """The accounts with nothing left in which something is at work; it must be stopped."""
        return sorted(
            (each for each in self._running if self._left_s(each, now_s) <= 0),
            key=lambda each: each.pid,
        )

    def running(self) -> list[Account]:
        """The accounts with a limit whose clock runs."""
        return sorted(self._running, key=lambda each: each.pid)

    def next_s(self, now_s: float) -> float:
        """Seconds until the first moment at which something must be stopped, if nothing changes; infinite without one."""
        return min((max(0.0, self._left_s(each, now_s)) for each in self._running), default=inf)

    def _left_s(self, account: Account, now_s: float) -> float:
        spent_s = account.wall_s + now_s - account.wall_since_s
        return account.limits[Good.WALL] / 1000 - spent_s

    def check_invariants(self) -> None:
        """Raise AssertionError if a clock that has a limit is lost."""
        for account in self._running:
            assert account.n_at_work > 0, f"process {account.pid} has nothing at work"
            assert Good.WALL in account.limits, f"process {account.pid} has no limit of time"
