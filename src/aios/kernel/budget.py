"""Budgets: what a process and all that it starts may spend. Reserved before, settled after, so nothing is ever overshot. Pure.

Every process has an account under that of the process that started it; an account lives on when its process has ended, so that
children left behind stay under the same limits. A reservation takes the worst case from every account up the tree at once, or
from none; `settle` gives back what was not used.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from msgspec import Struct

from aios.abi.types import Pid


class Good(Enum):
    """What can be spent."""

    PROMPT_TOKENS = "prompt_tokens"
    COMPLETION_TOKENS = "completion_tokens"
    CALLS = "calls"  # system calls that use a model
    TOOL_CALLS = "tool_calls"  # runs of tools, each at the `cost` that the tool declares
    MONEY = "money_micros"  # millionths of the currency that the prices are in
    WRITTEN_BYTES = "written_bytes"  # contents of files
    CHILDREN = "children"  # processes alive at once below the account's own
    WALL = "wall_ms"  # milliseconds in which one of them or more is at work; `walltime.py` counts, nobody reserves


Amounts = Mapping[Good, int]


@dataclass(eq=False)
class Account:
    """What one process and its descendants have spent, hold reserved, and may spend in all."""

    pid: Pid
    parent: "Account | None" = None
    limits: dict[Good, int] = field(default_factory=dict)
    spent: dict[Good, int] = field(default_factory=dict)
    reserved: dict[Good, int] = field(default_factory=dict)
    n_alive: int = 0
    """Processes in it, or below, that have not ended."""
    n_at_work: int = 0
    """Processes in it, or below, that are alive and not stopped."""
    wall_since_s: float = 0.0
    """Since when there is one."""
    wall_s: float = 0.0
    """How long there was one before."""

    def chain(self) -> Iterator["Account"]:
        """The account and those above it."""
        account: Account | None = self
        while account is not None:
            yield account
            account = account.parent

    def left(self, good: Good) -> int | None:
        """What may still be reserved of a good here; None without a limit."""
        limit = self.limits.get(good)
        if limit is None:
            return None
        return limit - self.spent.get(good, 0) - self.reserved.get(good, 0)


class Shortage(Struct, frozen=True):
    """Why a reservation was refused: the account whose limit stands in the way."""

    pid: Pid
    good: Good
    wanted: int
    left: int
    limit: int
    is_passing: bool = False
    """It would fit if the calls that run now gave back all that they hold."""


@dataclass(eq=False)
class Reservation:
    """The worst case of one act, taken from every account up the tree until it is settled, once."""

    account: Account
    amounts: dict[Good, int]
    is_settled: bool = False

    def settle(self, spent: Amounts) -> None:
        """Book what was really spent and give back the rest. Not more than was reserved, if the worst case was known."""
        assert not self.is_settled, "a reservation is settled once"
        self.is_settled = True
        for account in self.account.chain():
            for good, amount in self.amounts.items():
                account.reserved[good] -= amount
            for good, used in spent.items():
                account.spent[good] = account.spent.get(good, 0) + used


class Ledger:
    """All accounts, by process."""

    def __init__(self) -> None:
        self._accounts: dict[Pid, Account] = {}

    def open(self, pid: Pid, parent: Pid | None, limits: Amounts) -> Account:
        """An account for a new process, under that of the process that started it."""
        assert pid not in self._accounts, f"process {pid} has an account"
        above = self._accounts.get(parent) if parent is not None else None
        account = self._accounts[pid] = Account(pid, above, dict(limits))
        return account

    def place(self, pid: Pid, above: Pid) -> None:
        """Put an account that holds and has spent nothing under another; one that is forgotten changes nothing."""
        account, found = self._accounts[pid], self._accounts.get(above)
        assert not account.spent, f"process {pid} has spent"
        if found is not None:
            _count(account.parent, -account.n_alive)
            account.parent = found
            _count(found, account.n_alive)

    def count(self, pid: Pid, step: int) -> None:
        """One process more (`step` 1) or less (-1) is alive in an account."""
        _count(self._accounts[pid], step)

    def binds_others(self, pid: Pid) -> bool:
        """Whether living processes are under limits by way of this account."""
        return self._accounts[pid].n_alive > 0 and self.is_limited(pid)

    def forget(self, pid: Pid) -> None:
        """Drop the account of a process that is forgotten; accounts below it keep it alive as long as they need it."""
        self._accounts.pop(pid, None)

    def get(self, pid: Pid) -> Account:
        """The account of a process."""
        return self._accounts[pid]

    def set_limits(self, pid: Pid, limits: Amounts) -> None:
        """Give an account other limits; one below what is spent stops further spending and undoes nothing."""
        self._accounts[pid].limits = dict(limits)

    def left(self, pid: Pid, good: Good) -> int | None:
        """The most that the process may reserve of a good: the least that is left up the tree; None without any limit."""
        found = [
            left for account in self.get(pid).chain() if (left := account.left(good)) is not None
        ]
        return max(0, min(found)) if found else None

    def is_limited(self, pid: Pid) -> bool:
        """Whether any account up the tree has a limit on anything."""
        return any(account.limits for account in self.get(pid).chain())

    def reserve(self, pid: Pid, amounts: Amounts) -> Reservation | Shortage:
        """Take the amounts from every account up the tree, or say which limit forbids it and take nothing."""
        account = self.get(pid)
        for good, amount in amounts.items():
            for each in account.chain():
                left = each.left(good)
                if left is not None and amount > left:
                    limit = each.limits[good]
                    is_passing = (
                        good is not Good.CHILDREN and amount + each.spent.get(good, 0) <= limit
                    )
                    return Shortage(each.pid, good, amount, max(0, left), limit, is_passing)
        for good, amount in amounts.items():
            for each in account.chain():
                each.reserved[good] = each.reserved.get(good, 0) + amount
        return Reservation(account, dict(amounts))

    def check_invariants(self) -> None:
        """Raise AssertionError if an account holds less than nothing, or less than those below it hold together."""
        below: dict[Account, dict[Good, int]] = {}
        n_below: Counter[Account] = Counter()
        for account in self._accounts.values():
            if account.parent is not None:
                n_below[account.parent] += account.n_alive
            for good, held in account.reserved.items():
                assert held >= 0, f"process {account.pid} holds {held} {good.value}"
                if account.parent is not None:
                    sums = below.setdefault(account.parent, {})
                    sums[good] = sums.get(good, 0) + held
        for account, n_alive in n_below.items():
            assert 0 <= n_alive <= account.n_alive, f"process {account.pid} has lost living ones"
        for account, sums in below.items():
            for good, total in sums.items():
                held = account.reserved.get(good, 0)
                assert held >= total, (
                    f"those below process {account.pid} hold more {good.value} than it"
                )


def _count(account: Account | None, step: int) -> None:
    for each in account.chain() if account is not None else ():
        each.n_alive += step
