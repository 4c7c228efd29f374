"""The book of questions: which are open, which answers hold, and for what. Pure: no clock, no I/O.

    ask -> OPEN -> allowed (once, process, always) | denied | answered | expired | withdrawn
           allowed once, answered -> used            whatever holds -> revoked

An answer is found by its key alone, which has the process, the act and the digest of its exact arguments; so it never applies to others. Of
each key at most one question is open or answered: who asks the same waits for the same answer.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from aios.abi.approvals import (
    ACT_CHOICES,
    ALWAYS,
    BUDGET_RAISE,
    DENY,
    HUMAN_ASK,
    PROCESS,
    Approval,
    ApprovalState,
)
from aios.abi.types import Pid
from aios.errors import Conflict, InvalidCall, NotFound, ResourceExhausted

OPEN = ApprovalState.OPEN
SHOWN_CHARS = 4 << 20
"""Of the questions in one answer that are over: up to 16 MiB, and a packet holds 64."""
AMOUNT = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)
REVOCABLE = frozenset({ApprovalState.ALLOWED, ApprovalState.DENIED, ApprovalState.ANSWERED})


class Key(NamedTuple):
    """What an answer is for. `who` is a process, or the code of a program."""

    who: Pid | str
    action: str
    resource: str
    effect: str
    is_tainted: bool
    digest: str


class Book:
    """All questions that are open, whose answer holds, or that are kept to be looked at.

    Args:
        max_open: Open questions of one process.
        max_open_in_all: Of all.
        max_kept: Of those that are over.
    """

    def __init__(self, max_open: int, max_open_in_all: int, max_kept: int) -> None:
        self._max_open = max_open
        self._max_open_in_all = max_open_in_all
        self._max_kept = max_kept
        self._all: dict[int, Approval] = {}
        self._by_key: dict[Key, int] = {}
        self._of: defaultdict[Pid, dict[int, None]] = defaultdict(dict)
        """The ids of those of a process that are open or hold."""
        self._n_open = 0
        self._over: dict[int, None] = {}
        """The ids of those that are over, the first to end first."""
        self._last_id = 0
        self.dropped: list[int] = []
        """Ids that went since this was last emptied."""
        self.replaced: list[Approval] = []
        """Answers for a program in whose place a newer one came, since this was last emptied."""

    def load(self, rows: Iterable[Approval], last_id: int) -> None:
        """Take up what another kernel wrote."""
        for row in sorted(rows, key=lambda each: each.id):
            self._put(row)
        self._last_id = max([last_id, *self._all])

    def next_id(self) -> int:
        """A number that no question has had."""
        self._last_id += 1
        return self._last_id

    # --- what holds ----------------------------------------------------------------------------------------------

    def find(self, asked: Approval) -> Approval | None:
        """The question about the same act: open, or with an answer that holds. A no of the process's own comes before a yes of its program."""
        for key in keys_of(asked):
            found = self._by_key.get(key)
            if found is not None:
                return self._all[found]
        return None

    def has(self, number: int) -> bool:
        """Whether a question is still in the book."""
        return number in self._all

    def get(self, number: int) -> Approval:
        """One of them.

        Raises:
            NotFound: There is none of that number.
        """
        found = self._all.get(number)
        if found is None:
            raise NotFound(f"no question {number}", hint="`aios approvals ls --all` lists them")
        return found

    def listed(self, *, is_all: bool) -> list[Approval]:
        """Those that are open, or all, the oldest first."""
        return [self._all[n] for n in sorted(self._all) if is_all or self._all[n].state is OPEN]

    def shown(self, *, is_all: bool) -> list[Approval]:
        """`listed`, as far as one answer has room: of those that are over and neither wait nor hold, the newest."""
        n_chars, found = 0, list[Approval]()
        for row in reversed(self.listed(is_all=is_all)):
            if not row.holds:
                n_chars += len(row.arguments) + len(row.why) + len(row.said)
                n_chars += sum(map(len, row.choices))
            if row.holds or n_chars <= SHOWN_CHARS:
                found.append(row)
        return found[::-1]

    def of_process(self, pid: Pid) -> list[Approval]:
        """Those of a process that are open or hold."""
        return [self._all[number] for number in self._of.get(pid, ())]

    # --- transitions ---------------------------------------------------------------------------------------------

    def add(self, asked: Approval) -> None:
        """A new question, which must not be there yet. Cost: that of the questions of its process.

        Raises:
            ResourceExhausted: Too many are open.
        """
        assert self.find(asked) is None, f"{asked} is in the book"
        n_open = sum(each.state is OPEN for each in self.of_process(asked.pid))
        if n_open >= self._max_open:
            raise ResourceExhausted(
                f"process {asked.pid} has {n_open} questions open, the limit is {self._max_open}",
                hint="wait for an answer (`aios approvals`), or raise approvals.max_open",
            )
        if self._n_open >= self._max_open_in_all:
            raise ResourceExhausted(
                f"{self._n_open} questions are open, the limit is {self._max_open_in_all}",
                hint="answer some (`aios approvals`), or raise approvals.max_open_in_all",
            )
        self._put(asked)

    def put(self, after: Approval) -> Approval:
        """Take up a transition. Returns: it."""
        before = self._all[after.id]
        self._forget_key(before)
        self._over.pop(after.id, None)
        self._put(after)
        return after

    def check_invariants(self) -> None:
        """Raise AssertionError if an answer could be found for what it is not, or by two ways."""
        holding = {number for number, each in self._all.items() if each.holds}
        assert sorted(self._by_key.values()) == sorted(holding), "a key leads nowhere, or two lead"
        for key, number in self._by_key.items():
            assert key == key_of(self._all[number]), f"question {number} is under another's key"
        assert set(self._over) == set(self._all) - holding
        of = {(each.pid, number) for number, each in self._all.items() if each.holds}
        assert {(pid, number) for pid, numbers in self._of.items() for number in numbers} == of
        assert self._n_open == sum(each.state is OPEN for each in self._all.values())
        assert len(self._over) <= self._max_kept
        for each in self._all.values():
            assert each.state is not OPEN or each.holds
            assert not each.holds or each.state is OPEN or each.state in REVOCABLE
            assert each.id <= self._last_id

    def _put(self, row: Approval) -> None:
        self._n_open += (row.state is OPEN) - self._is_open(row.id)
        self._all[row.id] = row
        if row.holds:
            self._of[row.pid][row.id] = None
            key = key_of(row)
            before = self._by_key.get(key)
            self._by_key[key] = row.id
            if before is not None and self._all[before].said == ALWAYS:
                # two processes of a program had asked the same, and both were always allowed; who takes that back means both
                self.replaced.append(over(self._all[before], self._all[before].state))
                self._put(self.replaced[-1])
            return
        self._of[row.pid].pop(row.id, None)
        if not self._of[row.pid]:
            del self._of[row.pid]
        self._over[row.id] = None
        while len(self._over) > self._max_kept:
            number = next(iter(self._over))
            del self._over[number], self._all[number]
            self.dropped.append(number)

    def _is_open(self, number: int) -> bool:
        return number in self._all and self._all[number].state is OPEN

    def is_trusted(self, program: str, code: str) -> bool:
        """Whether an answer holds for a program with that code, whichever process of it asks."""
        who = _program_of(program, code)
        return any(key.who == who for key in self._by_key)

    def _forget_key(self, row: Approval) -> None:
        if row.holds and self._by_key.get(key_of(row)) == row.id:
            del self._by_key[key_of(row)]


def key_of(row: Approval) -> Key:
    """For what a question or its answer counts."""
    return keys_of(row)[-1 if row.state is not OPEN and row.said == ALWAYS else 0]


def keys_of(row: Approval) -> tuple[Key, ...]:
    """The keys under which an answer for an act may be, the narrower first."""
    mine = Key(row.pid, row.action, row.resource, row.effect, row.is_tainted, row.digest)
    if not row.code:
        return (mine,)
    return (mine, mine._replace(who=_program_of(row.program, row.code)))


def _program_of(program: str, code: str) -> str:
    return f"{program}\0{code}"


def answered(row: Approval, answer: str, *, by: str, unix_s: float) -> Approval:
    """A question with its answer.

    Raises:
        Conflict: It is over.
        InvalidCall: That is no answer to it.
    """
    if row.state is not OPEN:
        raise Conflict(
            f"question {row.id} is {row.state.value} already",
            hint=f"`aios approvals revoke {row.id}` takes the answer back"
            if row.state in REVOCABLE
            else "`aios approvals ls` lists those that are open",
        )
    if unix_s >= row.expires_unix_s:
        raise Conflict(f"question {row.id} has expired", hint="it counts as denied")
    if row.choices and answer not in row.choices and not _is_amount(row, answer):
        more = ", or a number" if row.action == BUDGET_RAISE else ""
        raise InvalidCall(
            f"{answer!r} is no answer to question {row.id}",
            hint=f"one of {', '.join(row.choices)}{more}",
        )
    state = ApprovalState.ANSWERED
    if is_act(row):
        state = ApprovalState.DENIED if answer == DENY else ApprovalState.ALLOWED
    return msgspec.structs.replace(row, state=state, said=answer, by=by, answered_unix_s=unix_s)


def _is_amount(row: Approval, answer: str) -> bool:
    """How much more a process may spend is for the owner to say."""
    return row.action == BUDGET_RAISE and AMOUNT.fullmatch(answer) is not None


def is_act(row: Approval) -> bool:
    """Whether it asks if an act may be; other questions are answered by choices of their own, or in words."""
    return bool(row.choices) and row.action != HUMAN_ASK and set(row.choices) <= set(ACT_CHOICES)


def choices_for(row: Approval) -> tuple[str, ...]:
    """What may be answered to whether an act may be; no program is known by what is always allowed if its code cannot be told."""
    return ACT_CHOICES if row.code else tuple(each for each in ACT_CHOICES if each != ALWAYS)


def taken(row: Approval) -> Approval:
    """An answer after one call has taken it: one that is for a single call is used up."""
    assert row.state in REVOCABLE, f"question {row.id} has no answer"
    is_used = row.state is ApprovalState.ANSWERED or row.said not in {PROCESS, ALWAYS, DENY}
    return over(row, ApprovalState.USED) if is_used else row


def over(row: Approval, state: ApprovalState) -> Approval:
    """A question that counts for nothing any more."""
    return msgspec.structs.replace(row, state=state, holds=False)


def untaken(row: Approval) -> Approval:
    """An answer that was taken for a call which was never made."""
    state = ApprovalState.ALLOWED if is_act(row) else ApprovalState.ANSWERED
    return msgspec.structs.replace(row, state=state, holds=True)


def ended(row: Approval) -> Approval:
    """What is left of a question when its process has ended: what is for its program holds on."""
    if row.state is OPEN:
        return over(row, ApprovalState.WITHDRAWN)
    return row if row.said == ALWAYS else over(row, row.state)
