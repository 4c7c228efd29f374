"""What the world outside saw of a simulated kernel, and what must be true of it. Pure.

An act that was acknowledged has happened once; one that failed or was cut off has happened at most once; those of one agent
happened in its order. This is invariant 6 and 8 of the design, for files, notes and mail alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b


class Trace:
    """A digest of all that happened, in order: two runs are the same if theirs is."""

    def __init__(self) -> None:
        self._digest = blake2b(digest_size=16)
        self.n_events = 0

    def add(self, *what: object) -> None:
        """One event; its parts must have a text that is the same in every run."""
        self.n_events += 1
        self._digest.update(repr(what).encode())

    def value(self) -> str:
        """The digest of the events so far."""
        return self._digest.hexdigest()


@dataclass
class Account:
    """The acts of one agent on one thing, such as appending to its file: what it asked for, and what it was told."""

    asked: list[str] = field(default_factory=list)
    """Each time that it was asked for: a later life, of whose calls before no disk has heard, may ask in another order."""
    done: set[str] = field(default_factory=set)

    def is_order(self, found: Sequence[str]) -> bool:
        """Whether these are some of the acts in an order in which they were asked for, each at most once."""
        if len(set(found)) < len(found):
            return False
        rest = iter(self.asked)
        return all(any(act == each for each in rest) for act in found)


@dataclass
class Ledger:
    """Accounts by agent and thing, and what went wrong."""

    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def ask(self, agent: str, thing: str, act: str) -> None:
        """An act begins; asking again for the same one is what a replayed program does."""
        self.accounts.setdefault((agent, thing), Account()).asked.append(act)

    def acknowledge(self, agent: str, thing: str, act: str) -> None:
        """The agent was told that it is done."""
        self.accounts[agent, thing].done.add(act)

    def take_back(self, agent: str, thing: str, act: str) -> None:
        """The agent is told in a later life that it failed: what no disk had heard of was undone, made again, and failed then."""
        self.accounts[agent, thing].done.discard(act)

    def compare(
        self, agent: str, thing: str, found: Iterable[str], *, may_be_lost: bool = False
    ) -> None:
        """Compare with what is there in the end; of a branch it may be gone."""
        account, there = self.accounts.get((agent, thing), Account()), list(found)
        lost = sorted(account.done.difference(there))
        if lost and not may_be_lost:
            self.broken(f"{agent}: {thing}: acknowledged and lost: {lost}; there are {there}")
        if not account.is_order(there):
            self.broken(f"{agent}: {thing}: twice or out of order: {there}; asked {account.asked}")

    def broken(self, what: str) -> None:
        """An invariant does not hold."""
        self.violations.append(what)
