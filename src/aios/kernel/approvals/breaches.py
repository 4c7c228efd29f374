"""Asking whether a process may spend more: its budget's breach pauses it, and the answer raises the limit or ends the call.

    a call that does not fit, a time that is over -> paused -> one question for each limit -> yes: the limit is raised, all who wait for it look again
                                                                                           -> no: their calls fail with `BudgetExceeded`
    nobody answers, or cannot be asked -> it stays stopped, as by `aios stop`

A process that waits is let go on as well by whoever raises the limit himself (`aios budget ID WHAT=+N --cont`). After a crash the program asks
again and finds its question, or the answer.
"""

from collections.abc import Iterable
from typing import Protocol

import anyio
import msgspec
from msgspec import Struct

from aios.abi.approvals import BUDGET_RAISE, DENY, ONCE, WAITS_FOR, Approval, ApprovalState
from aios.abi.types import Pid
from aios.errors import AiosError, BudgetExceeded
from aios.kernel.access.policy import digest_of
from aios.kernel.approvals.approvals import Approvals
from aios.kernel.approvals.asked import Asked
from aios.kernel.budget import Good, Shortage
from aios.kernel.process import Process, Run
from aios.kernel.process_table import ProcessTable
from aios.kernel.spending import Budgets, raises
from aios.readers import from_json

OPEN = ApprovalState.OPEN


class Holds(Protocol):
    """What is used of `Signals`: neither module knows the other."""

    def hold(self, process: Process, *, is_lasting: bool = True) -> None:
        """Hold a process."""
        ...

    def let_go(self, process: Process) -> None:
        """Let it go on."""
        ...


class Notes(Protocol):
    """What is used of the kernel."""

    def note(self, process: Process, text: str) -> None:
        """Write into its log what the kernel has to say of it."""
        ...


class Breach(Struct, frozen=True):
    """What a question is about, as its arguments show it; the answer is carried out by them, also under another kernel."""

    budget_of: Pid
    what: str
    limit: int
    left: int
    wanted: int
    gives: int
    """How much more a plain yes gives: as much again, or what is lacking if that is more."""


class Breaches:
    """The questions about budgets, and who waits for them."""

    def __init__(
        self,
        approvals: Approvals,
        budgets: Budgets,
        *,
        table: ProcessTable,
        signals: Holds,
        notes: Notes,
    ) -> None:
        """Make it, and listen to answers."""
        self._approvals = approvals
        self._budgets = budgets
        self._table = table
        self._signals = signals
        self._notes = notes
        self._calls: dict[Run, int] = {}
        """Calls by the question that they wait for, until they are served or over."""
        self._idle: dict[int, list[Process]] = {}
        """Processes whose time is over, by the question."""
        self._paused: set[Process] = set()
        """Those that were held here, until they are let go or have ended."""
        approvals.watchers.append(self._hear)

    async def wait(self, run: Run, shortage: Shortage, why: str) -> bool:
        """Pause the process of a call that does not fit, and return when it is to look again.

        Returns: False if nobody can be asked.

        Raises:
            BudgetExceeded: The owner said no.
        """
        process = run.process
        if self._is_owner_elsewhere(process):
            return False
        self._pause(process, shortage, why)
        question = await self._inquire(process, shortage, why)
        if question is None:
            return False
        self._join(run, question.id)
        if question.state is not OPEN:
            self._hear(question)
        else:
            await self._wait(run, question.id)
        after = self._approvals.get(question.id)
        if after.state is ApprovalState.DENIED:
            raise BudgetExceeded(
                f"{why}, and {after.by or 'the owner'} gives no more (question {after.id})",
                hint=f"ask for less; `aios budget {shortage.pid}` or `aios approvals revoke {after.id}` lets it spend more",
            )
        return True

    def leave(self, run: Run) -> None:
        """A call is served, or over: its question goes with the last who waits for it, and its process goes on."""
        if not self._part(run):
            return
        process = run.process
        waiting = [[each.process for each in self._calls], *self._idle.values()]
        if process in self._paused and not any(process in each for each in waiting):
            self._let_go([process])

    async def ask_for_time(self, shortage: Shortage, why: str, over: Iterable[Process]) -> None:
        """Pause processes whose time is over, and ask whether they may go on."""
        held = list(over)
        for process in held:
            self._pause(process, shortage, why)
        question = await self._inquire(held[0], shortage, why) if held else None
        if question is None:
            self._stay(held)
            return
        self._idle.setdefault(question.id, []).extend(held)
        if question.state is not OPEN:
            self._hear(question)

    def note(self, process: Process) -> None:
        """A process was let go on, or has ended: nobody need be asked for its sake."""
        self._paused.discard(process)
        for number, held in list(self._idle.items()):
            if process in held:
                held.remove(process)
                if not held:
                    del self._idle[number]
                    self._approvals.withdraw(number)

    # --- the rest ------------------------------------------------------------------------------------------------

    async def _inquire(self, process: Process, shortage: Shortage, why: str) -> Approval | None:
        """The question about a limit: it is that of the process whose budget it is, as long as that lives."""
        owner = self._table.find(shortage.pid)
        if owner is None:
            gone = (
                f"process {shortage.pid} has ended and is forgotten, so nobody can raise its limit"
            )
            self._notes.note(process, f"{gone}: it stays stopped, `aios kill` ends it")
            return None
        whose = owner if owner.is_alive else process
        limit, left = shortage.limit, shortage.left
        gives = max(limit, shortage.wanted - left)
        breach = Breach(shortage.pid, shortage.good.value, limit, left, shortage.wanted, gives)
        asked = Asked(
            BUDGET_RAISE,
            f"Process {owner.name} ({owner.pid})",
            digest_of([shortage.pid, shortage.good.value, limit]),
            f"{process.name} ({process.pid}) waits: {why}; `{ONCE}` gives {gives} more, a number so many",
            msgspec.json.encode(breach).decode(),
            choices=(ONCE, DENY),
        )
        try:
            return await self._approvals.inquire(whose, asked)
        except (
            AiosError
        ) as error:  # too many are open, or the disk is full: then it is just stopped
            stays = f"it stays stopped, {raises(shortage)}"
            self._notes.note(process, f"nobody could be asked ({error.message}): {stays}")
            return None

    def _pause(self, process: Process, shortage: Shortage, why: str) -> None:
        """Hold it until the answer; the next kernel finds out by itself that it is to be paused."""
        if not process.is_stopped:
            self._notes.note(
                process, f"paused: {why}; `aios approvals` decides, or {raises(shortage)}"
            )
            self._signals.hold(process, is_lasting=False)
            self._paused.add(process)

    def _is_owner_elsewhere(self, process: Process) -> bool:
        """Whether somebody stopped it already who is not asked: it goes on when he says so."""
        return process.is_stopped and not process.is_held

    def _join(self, run: Run, number: int) -> None:
        if self._calls.get(run) != number:
            self._part(run)
            self._calls[run] = number

    def _part(self, run: Run) -> bool:
        """Take a call from the question that it waits for. Returns: whether it waited for one."""
        number = self._calls.pop(run, None)
        if number is not None and number not in self._calls.values():
            self._approvals.withdraw(number)
        return number is not None

    async def _wait(self, run: Run, number: int) -> None:
        """Return when the process may go on, or the question is over."""
        process = run.process
        with run.saying(f"{WAITS_FOR}{number}"):
            while process.is_stopped:
                question = self._approvals.get(number)
                if question.state is not OPEN or self._approvals.expire(question):
                    break
                with anyio.move_on_after(self._approvals.patience_s(question)):
                    await run.runnable()

    def _hear(self, row: Approval) -> None:
        """A question is new, answered or over."""
        if row.action != BUDGET_RAISE or row.state is OPEN:
            return
        if row.state is ApprovalState.ALLOWED and row.holds:
            self._give(row)
        idle = self._idle.pop(row.id, [])
        waiting = [run.process for run, number in self._calls.items() if number == row.id]
        if row.state is ApprovalState.EXPIRED:
            self._stay([*waiting, *idle])
        elif row.state is ApprovalState.DENIED:
            self._stay(idle)
            self._let_go(waiting)
        else:
            self._let_go([*waiting, *idle])

    def _give(self, row: Approval) -> None:
        breach = from_json(row.arguments, Breach)
        more = breach.gives if row.said == ONCE else int(row.said)
        self._budgets.give(breach.budget_of, Good(breach.what), more)
        self._approvals.take(row)

    def _let_go(self, processes: Iterable[Process]) -> None:
        """Whoever stopped one of them besides lets it go on himself."""
        for process in processes:
            if process.is_held:
                self._signals.let_go(process)

    def _stay(self, processes: Iterable[Process]) -> None:
        """Nobody will answer: they stay stopped, also under the next kernel."""
        for process in processes:
            if process.is_held:
                self._signals.hold(process)
                told = "nobody gave it more: it stays stopped until `aios cont`, which asks again"
                self._notes.note(process, told)
