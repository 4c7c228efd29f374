"""Budgets at work: calls reserve their worst case here before they begin, and wait or fail when it does not fit."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from math import inf
from typing import Protocol

import anyio

from aios.abi.budget import Budget, BudgetInfo, Limits, OnBreach, SetBudget, Spent
from aios.abi.types import Kind, Pid
from aios.config import KernelConfig
from aios.errors import AccessDenied, AiosError, BudgetExceeded, ResourceExhausted
from aios.kernel.budget import Account, Amounts, Good, Ledger, Reservation, Shortage
from aios.kernel.clock import Clock
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.walltime import WallTimes

SAVE_S = 10.0
"""So much of what time has passed a crash may forget."""
MAX_LIMIT = 10**15
MAX_PAYERS = 128
"""By which forks may share a budget: each costs every reservation of those below it, also when it has ended."""
SHORTEST_S = 0.001
"""Clocks differ in their last digits: who looks a little too early looks again."""
BOOKED = tuple(good for good in Good if good is not Good.WALL)
"""What calls reserve and spend."""

Pause = Callable[[Process, str], None]
"""Stops a process and writes the reason into its log."""


class AsksForMore(Protocol):
    """Lets the owner decide about what does not fit; see `approvals/breaches.py`."""

    async def wait(self, run: Run, shortage: Shortage, why: str) -> bool:
        """Pause the process of a call, and return when it is to look again.

        Returns: False if nobody can be asked.

        Raises:
            BudgetExceeded: The answer is no.
        """
        ...

    async def ask_for_time(self, shortage: Shortage, why: str, over: Iterable[Process]) -> None:
        """Pause processes whose time is over, and ask whether they may go on."""
        ...

    def note(self, process: Process) -> None:
        """A process was let go on, or has ended."""
        ...

    def leave(self, run: Run) -> None:
        """A call is served, or over."""
        ...


class Budgets:
    """Reserves for calls what they may spend at most; the handlers of the calls about budgets."""

    def __init__(
        self,
        clock: Clock,
        pause: Pause,
        config: KernelConfig,
        on_change: Callable[[Process], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._max_children = config.max_children
        self._ledger = Ledger()
        self._known: dict[Pid, Process] = {}
        self._walls = WallTimes(self._ledger)
        self._at_work: dict[Pid, Process] = {}
        """Processes that are alive and not stopped: while there is one, time passes for those above it."""
        self._walls_moved = anyio.Event()
        self._pause = pause
        self._on_change = on_change
        """Told whose limits or spendings are others now, where there are limits."""
        self.asks: AsksForMore | None = None
        """Set where there is somebody to be asked."""
        self._on_breach: dict[Pid, OnBreach] = {}
        self._alive: dict[Pid, Reservation] = {}
        """What each process holds of its ancestors' `children` while it lives."""
        self._waiting: dict[Pid, deque[anyio.Event]] = {}
        """The calls that wait for what others hold, by the process whose limit is in their way, in the order of their coming."""

    def open(self, process: Process) -> None:
        """A new process: it spends under the limits of those above it, or of who pays for it and those above that."""
        self._ledger.open(process.pid, process.ppid or None, {})
        self._known[process.pid] = process
        if process.is_alive:
            self._ledger.count(process.pid, 1)
        self.note(process)
        if process.payer is not None:
            self.place(process, process.payer)

    def place(self, process: Process, payer: Pid) -> None:
        """Let a process that has spent nothing yet spend under the limits of another, which is remembered, and of those above that."""
        process.payer = payer
        account, now_s = self._ledger.get(process.pid), self._clock.now_s()
        if process.pid in self._at_work:
            self._walls.count(account, -1, now_s)
        self._ledger.place(process.pid, payer)
        if process.pid in self._at_work and self._walls.count(account, 1, now_s):
            self._walls_moved.set()

    def check_payers(self, pid: Pid) -> None:
        """Return if a process and those above it may pay for one more.

        Raises:
            ResourceExhausted: There are too many.
        """
        if pid in self._known and sum(1 for _ in self._ledger.get(pid).chain()) > MAX_PAYERS:
            raise ResourceExhausted(
                f"process {pid} is a fork of forks, and {MAX_PAYERS} pay for it already",
                hint="fork an earlier one, or give this fork a budget of its own",
            )

    def limit(self, process: Process, limits: Limits) -> None:
        """Set the limits of a process."""
        self._set_limits(process.pid, limits)

    def note(self, process: Process) -> None:
        """A process is perhaps at work now, or no longer."""
        is_at_work = process.is_alive and not process.is_stopped
        if is_at_work == (process.pid in self._at_work) or process.pid not in self._known:
            return
        if is_at_work:
            self._at_work[process.pid] = process
        else:
            del self._at_work[process.pid]
        if self.asks is not None and (is_at_work or not process.is_alive):
            self.asks.note(process)
        account = self._ledger.get(process.pid)
        if self._walls.count(account, 1 if is_at_work else -1, self._clock.now_s()):
            self._walls_moved.set()

    async def run(self) -> None:
        """Stop what is at work when its time is over, until cancelled."""
        while True:
            self._walls_moved = anyio.Event()
            now_s = self._clock.now_s()
            for account in self._walls.exhausted(now_s):
                await self._end_time(account)
            wait_s = max(SHORTEST_S, min(self._walls.next_s(now_s), SAVE_S))
            if not self._walls.running():
                wait_s = inf
            with anyio.move_on_after(wait_s):
                await self._walls_moved.wait()
            for account in self._walls.running():
                self._tell_change(account)

    def end(self, process: Process) -> None:
        """The process has ended: one child less for those above it."""
        held = self._alive.pop(process.pid, None)
        if held is not None:
            held.settle({})
        self._ledger.count(process.pid, -1)
        self.note(process)

    def binds_others(self, pid: Pid) -> bool:
        """Whether living processes, those that it started or forks of it, spend under limits by way of one that has ended: who forgets it would let them loose under the next kernel."""
        return self._ledger.binds_others(pid)

    def forget(self, pid: Pid) -> None:
        """The process is no longer remembered."""
        self._ledger.forget(pid)
        del self._known[pid]
        self._on_breach.pop(pid, None)

    def is_limited(self, process: Process) -> bool:
        """Whether anything that the process spends is limited, so that it pays to know the worst case."""
        return self._ledger.is_limited(process.pid)

    async def reserve(
        self, run: Run, amounts: Amounts, *, elastic: Good | None = None
    ) -> Reservation:
        """Take the worst case of a call from the budgets of its process and of all above it.

        What would fit if running calls gave back what they hold waits for that. What does not fit stops the process until its owner
        has given more or somebody lets it go on, and then it is tried again; where the budget says `fail`, it fails at once. The
        caller settles the reservation, however the call ends.

        Args:
            run: The call.
            amounts: Its worst case.
            elastic: Of this good, less than the amount will do: all that is left is taken, if that is anything.

        Raises:
            BudgetExceeded: It does not fit, and the owner or the budget says no.
        """
        woken_for: Pid | None = None
        """While it is set, the next in that queue waits for this call to be served or to find that it is not."""
        try:
            while True:
                got = self._try_reserve(run, amounts, elastic)
                if isinstance(got, Reservation):
                    return got
                if got.is_passing:
                    before, woken_for = woken_for, None
                    if before is not None and before != got.pid:
                        self._wake_next(before)
                    await self._wait_at(run, got.pid, is_first=before == got.pid)
                    woken_for = got.pid
                else:
                    if woken_for is not None:
                        self._wake_next(woken_for)  # an answer may be long in coming
                        woken_for = None
                    await self._breach(run, got)
                if run.process.is_stopped and woken_for is not None:
                    self._wake_next(woken_for)  # it would keep the others waiting for as long
                    woken_for = None
                await run.runnable()
        finally:
            if woken_for is not None:
                self._wake_next(woken_for)
            if self.asks is not None:
                self.asks.leave(run)

    def settle(self, reservation: Reservation, spent: Amounts) -> None:
        """Book what a call has really spent, give back the rest, and let the first look again who waits for it.

        Who is served lets the next one look, so what is given back costs by those whom it serves, not by all who wait.
        """
        reservation.settle(spent)
        for account in reservation.account.chain():
            if spent:
                self._tell_change(account)
            self._wake_next(account.pid)

    @asynccontextmanager
    async def spending(self, run: Run, amounts: Amounts) -> AsyncIterator[None]:
        """Hold what the block will spend, and book it; nothing, if the block fails and so has done nothing.

        Raises:
            BudgetExceeded: It does not fit.
        """
        reservation = await self.reserve(run, amounts)
        spent = amounts
        try:
            yield
        except AiosError:
            spent = {}
            raise
        finally:
            self.settle(reservation, spent)

    def left(self, process: Process, good: Good) -> int | None:
        """What a process may still spend of a good; None without any limit."""
        return self._ledger.left(process.pid, good)

    async def reserve_child(self, run: Run) -> Reservation:
        """Hold one child more for the caller and all above it.

        Raises:
            BudgetExceeded: One of them has a limit on children, and as many.
            ResourceExhausted: One that has none has as many as anybody may have.
        """
        for account in self._ledger.get(run.process.pid).chain():
            n_alive = account.reserved.get(Good.CHILDREN, 0)
            is_bounded = account.pid != INIT_PID and Good.CHILDREN not in account.limits
            if is_bounded and n_alive >= self._max_children:
                raise ResourceExhausted(
                    f"process {account.pid} and what it started have {n_alive} programs alive",
                    hint=f"wait for some; `aios budget {account.pid} children=N`, `[budget]` of its agent.toml or kernel.max_children allow more",
                )
        return await self.reserve(run, {Good.CHILDREN: 1})

    def hold_child(self, child: Process, reservation: Reservation) -> None:
        """Keep a reservation of one child until that child has ended."""
        if child.is_alive:
            self._alive[child.pid] = reservation
        else:
            reservation.settle({})

    async def budget(self, _: Run, call: Budget) -> BudgetInfo:
        """What a process may spend, has spent and holds."""
        return self.info(call.pid)

    async def set_budget(self, run: Run, call: SetBudget) -> BudgetInfo:
        """Set the limits of a descendant."""
        if call.pid == run.process.pid or call.pid == INIT_PID:
            raise AccessDenied(
                "nobody sets a budget of their own, and init has none",
                hint="the owner or an ancestor sets it",
            )
        self._on_breach[call.pid] = call.on_breach
        self._set_limits(call.pid, call.limits)
        self._tell_change(self._ledger.get(call.pid))
        return self.info(call.pid)

    def give(self, pid: Pid, good: Good, amount: int) -> None:
        """Let a process spend so much more of a good, if that is limited still."""
        if pid not in self._known:
            return
        account = self._ledger.get(pid)
        limit = account.limits.get(good)
        if limit is not None:
            self._ledger.set_limits(pid, account.limits | {good: min(limit + amount, MAX_LIMIT)})
            self._renew(pid)
            self._tell_change(account)

    def restore(self, process: Process, before: BudgetInfo) -> None:
        """Take up what an earlier kernel knew of a process's budget."""
        if process.kind is Kind.PROGRAM and process.is_alive:
            above = self._ledger.get(process.pid).parent
            child = self._ledger.reserve(above.pid, {Good.CHILDREN: 1}) if above else None
            if isinstance(child, Reservation):
                self.hold_child(process, child)
        self.limit(process, before.limits)
        self._on_breach[process.pid] = before.on_breach
        account = self._ledger.get(process.pid)
        account.spent.update({good: getattr(before.spent, good.value) for good in BOOKED})
        account.wall_s += before.spent.wall_ms / 1000

    def info(self, pid: Pid) -> BudgetInfo:
        """What a process may spend, has spent and holds."""
        account, now_s = self._ledger.get(pid), self._clock.now_s()
        left = {good.value: self._ledger.left(pid, good) for good in BOOKED}
        left[Good.WALL.value] = self._walls.left_ms(account, now_s)
        spent = {**account.spent, Good.WALL: self._walls.spent_ms(account, now_s)}
        return BudgetInfo(
            pid,
            Limits(**{good.value: limit for good, limit in account.limits.items()}),
            self._on_breach.get(pid, "pause"),
            _spent(spent),
            _spent(account.reserved),
            Limits(**left),
        )

    def check_invariants(self) -> None:
        """Raise AssertionError if the accounts contradict each other."""
        self._ledger.check_invariants()
        self._walls.check_invariants()
        assert all(each.is_alive and not each.is_stopped for each in self._at_work.values())

    def _set_limits(self, pid: Pid, limits: Limits) -> None:
        self._ledger.set_limits(pid, _amounts(limits))
        self._renew(pid)

    def _renew(self, pid: Pid) -> None:
        """The limits of a process are others: who waits looks again."""
        self._walls.note_limit(self._ledger.get(pid))
        self._walls_moved.set()
        self._wake_next(pid)

    async def _end_time(self, account: Account) -> None:
        """Stop all that is at work in an account whose time is over, and ask whether it may go on."""
        limit_ms = account.limits[Good.WALL]
        why = f"the {limit_ms / 1000:g} s that process {account.pid} and what it started may be at work are over"
        over = [
            process
            for process in self._at_work.values()
            if account in self._ledger.get(process.pid).chain() and process.exiting is None
        ]
        if not over:  # who ends anyway is asked about no more
            return
        if self.asks is not None:
            shortage = Shortage(account.pid, Good.WALL, 1, 0, limit_ms)
            await self.asks.ask_for_time(shortage, why, over)
        for process in over:
            if not process.is_stopped:
                hint = f"`aios budget {account.pid} wall_ms=+N --cont` gives more"
                self._pause(process, f"paused: {why}; {hint}")
        self._tell_change(account)

    def _tell_change(self, account: Account) -> None:
        """Tell of an account whose process is remembered; one of a forgotten process only holds for those below it."""
        process = self._known.get(account.pid)
        if process is not None:
            self._on_change(process)

    async def _breach(self, run: Run, shortage: Shortage) -> None:
        """Do what the budget says of a call that does not fit: stop its process and ask, or raise."""
        why = _described(shortage, run)
        if self._on_breach.get(shortage.pid, "pause") == "fail":
            raise BudgetExceeded(why, hint=f"`aios budget {shortage.pid}` shows and sets it")
        if self.asks is not None and await self.asks.wait(run, shortage, why):
            return
        if not run.process.is_stopped:
            self._pause(run.process, f"paused: {why}; {raises(shortage)}")
        with run.saying("over budget"):
            await run.runnable()

    def _try_reserve(
        self, run: Run, amounts: Amounts, elastic: Good | None
    ) -> Reservation | Shortage:
        wanted = dict(amounts)
        if elastic in wanted:
            left = self._ledger.left(run.process.pid, elastic)
            if left is not None:
                wanted[elastic] = min(wanted[elastic], max(1, left))
        return self._ledger.reserve(run.process.pid, wanted)

    async def _wait_at(self, run: Run, pid: Pid, *, is_first: bool) -> None:
        """Wait, parked, until what is held under the limit of a process has become less, and it is this call's turn to look."""
        woken = anyio.Event()
        queue = self._waiting.setdefault(pid, deque())
        (queue.appendleft if is_first else queue.append)(woken)
        try:
            with run.parked():
                await woken.wait()
        except BaseException:
            if woken.is_set():
                self._wake_next(pid)  # it does not look any more
            else:
                self._leave(pid, woken)
            raise

    def _wake_next(self, pid: Pid) -> None:
        queue = self._waiting.get(pid)
        if queue:
            woken = queue.popleft()
            if not queue:
                del self._waiting[pid]
            woken.set()

    def _leave(self, pid: Pid, woken: anyio.Event) -> None:
        queue = self._waiting[pid]
        queue.remove(woken)
        if not queue:
            del self._waiting[pid]


def _amounts(limits: Limits) -> dict[Good, int]:
    found = {good: getattr(limits, good.value) for good in Good}
    return {good: limit for good, limit in found.items() if limit is not None}


def _spent(amounts: Amounts) -> Spent:
    return Spent(**{good.value: amount for good, amount in amounts.items()})


def raises(shortage: Shortage) -> str:
    """What its owner can do about a limit: a process that is stopped stays so until it is let go on, too."""
    return f"`aios budget {shortage.pid} {shortage.good.value}=+N --cont` gives more"


def _described(shortage: Shortage, run: Run) -> str:
    whose = "its" if shortage.pid == run.process.pid else f"process {shortage.pid}'s"
    return (
        f"{run.name} may need {shortage.wanted} {shortage.good.value.replace('_', ' ')}, and of {whose} budget of "
        f"{shortage.limit} only {shortage.left} are left"
    )
