"""Budgets at work: calls reserve their worst case here before they begin, and wait or fail when it does not fit."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from aios.abi.budget import Budget, BudgetInfo, Limits, OnBreach, SetBudget, Spent
from aios.abi.types import Kind, Pid
from aios.errors import AccessDenied, AiosError, BudgetExceeded
from aios.kernel.budget import Amounts, Good, Ledger, Reservation, Shortage
from aios.kernel.process import INIT_PID, Process, Run

Pause = Callable[[Process, str], None]
"""Stops a process and writes the reason into its log."""


class Budgets:
    """Reserves for calls what they may spend at most; the handlers of the calls about budgets."""

    def __init__(self, pause: Pause, on_change: Callable[[Pid], None] = lambda _: None) -> None:
        self._ledger = Ledger()
        self._pause = pause
        self._on_change = on_change
        """Told whose limits or spendings are others now, where there are limits."""
        self._on_breach: dict[Pid, OnBreach] = {}
        self._alive: dict[Pid, Reservation] = {}
        """What each process holds of its ancestors' `children` while it lives."""
        self._waiting: dict[Pid, deque[anyio.Event]] = {}
        """The calls that wait for what others hold, by the process whose limit is in their way, in the order of their coming."""

    def open(self, process: Process) -> None:
        """A new process: it spends under the limits of those above it, or of who pays for it and those above that."""
        self._ledger.open(process.pid, process.ppid or None, {})
        if process.payer is not None:
            self.place(process, process.payer)

    def place(self, process: Process, payer: Pid) -> None:
        """Let a process that has spent nothing yet spend under the limits of another, which is remembered, and of those above that."""
        process.payer = payer
        self._ledger.place(process.pid, payer)

    def limit(self, process: Process, limits: Limits) -> None:
        """Set the limits of a process."""
        self._ledger.set_limits(process.pid, _amounts(limits))
        self._wake_next(process.pid)

    def end(self, process: Process) -> None:
        """The process has ended: one child less for those above it."""
        held = self._alive.pop(process.pid, None)
        if held is not None:
            held.settle({})

    def forget(self, pid: Pid) -> None:
        """The process is no longer remembered."""
        self._ledger.forget(pid)
        self._on_breach.pop(pid, None)

    def is_limited(self, process: Process) -> bool:
        """Whether anything that the process spends is limited, so that it pays to know the worst case."""
        return self._ledger.is_limited(process.pid)

    async def reserve(
        self, run: Run, amounts: Amounts, *, elastic: Good | None = None
    ) -> Reservation:
        """Take the worst case of a call from the budgets of its process and of all above it.

        What would fit if running calls gave back what they hold waits for that. What does not fit stops the process until
        somebody lets it go on, and then it is tried again; where the budget says `fail`, it fails at once. The caller
        settles the reservation, however the call ends.

        Args:
            run: The call.
            amounts: Its worst case.
            elastic: Of this good, less than the amount will do: all that is left is taken, if that is anything.

        Raises:
            BudgetExceeded: It does not fit.
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
                    self._breach(run, got)
                if run.process.is_stopped and woken_for is not None:
                    self._wake_next(woken_for)  # it would keep the others waiting for as long
                    woken_for = None
                await run.runnable()
        finally:
            if woken_for is not None:
                self._wake_next(woken_for)

    def settle(self, reservation: Reservation, spent: Amounts) -> None:
        """Book what a call has really spent, give back the rest, and let the first look again who waits for it.

        Who is served lets the next one look, so what is given back costs by those whom it serves, not by all who wait.
        """
        reservation.settle(spent)
        for account in reservation.account.chain():
            if spent:
                self._on_change(account.pid)
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
        self._ledger.set_limits(call.pid, _amounts(call.limits))
        self._on_breach[call.pid] = call.on_breach
        self._on_change(call.pid)
        self._wake_next(call.pid)
        return self.info(call.pid)

    def restore(self, process: Process, before: BudgetInfo) -> None:
        """Take up what an earlier kernel knew of a process's budget."""
        if process.kind is Kind.PROGRAM and process.is_alive:
            child = self._ledger.reserve(process.ppid, {Good.CHILDREN: 1})
            if isinstance(child, Reservation):
                self.hold_child(process, child)
        self.limit(process, before.limits)
        self._on_breach[process.pid] = before.on_breach
        self._ledger.get(process.pid).spent.update(
            {good: getattr(before.spent, good.value) for good in Good}
        )

    def info(self, pid: Pid) -> BudgetInfo:
        """What a process may spend, has spent and holds."""
        account = self._ledger.get(pid)
        left = {good.value: self._ledger.left(pid, good) for good in Good}
        return BudgetInfo(
            pid,
            Limits(**{good.value: limit for good, limit in account.limits.items()}),
            self._on_breach.get(pid, "pause"),
            _spent(account.spent),
            _spent(account.reserved),
            Limits(**left),
        )

    def check_invariants(self) -> None:
        """Raise AssertionError if the accounts contradict each other."""
        self._ledger.check_invariants()

    def _breach(self, run: Run, shortage: Shortage) -> None:
        """Do what the budget says of a call that does not fit: stop its process, or raise."""
        why = _described(shortage, run)
        if self._on_breach.get(shortage.pid, "pause") == "fail":
            raise BudgetExceeded(why, hint=f"`aios budget {shortage.pid}` shows and sets it")
        if not run.process.is_stopped:
            self._pause(run.process, f"paused: {why}; `aios budget {shortage.pid}` sets it")

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


def _described(shortage: Shortage, run: Run) -> str:
    whose = "its" if shortage.pid == run.process.pid else f"process {shortage.pid}'s"
    return (
        f"{run.name} may need {shortage.wanted} {shortage.good.value.replace('_', ' ')}, and of {whose} budget of "
        f"{shortage.limit} only {shortage.left} are left"
    )
