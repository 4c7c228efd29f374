"""What the kernel does with the pages of an agent while it is elsewhere: what `scheduler/gaps.py` decides, at the time it says.

An agent whose call begins before its pages were fetched has them fetched while it waits for its turn: nobody holds a slot
meanwhile. Reading and writing is done in one worker thread, one agent at a time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import anyio
from msgspec import Struct
from msgspec.structs import replace

from aios.abi.types import Pid
from aios.kernel.clock import Clock
from aios.kernel.context.manager import ContextManager
from aios.kernel.process import Run
from aios.kernel.scheduler.gaps import GapKind, Gaps, Plan, Turnover, plan_gap
from aios.kernel.scheduler.queue import RankedQueue

if TYPE_CHECKING:
    from aios.kernel.context.pages import PageStore

PAGE_READ_S = 0.0008
"""Of 0.7 MB in the system's cache; what reading has taken of late is believed more."""
LEARNED_SHARE = 0.2


@dataclass(eq=False)
class Answer:
    """What a call to a model has brought: the tools that it asks for, and where its context is; nothing if it failed."""

    tools: tuple[str, ...] = ()
    fingerprint: str = ""
    pages: tuple[bytes, ...] = ()


class Away(Struct, frozen=True):
    """An agent with pages. `plan` is None while it waits for its turn; times are on the kernel's clock."""

    store: "PageStore"
    pages: tuple[bytes, ...]
    since_s: float = 0.0
    plan: Plan | None = None
    is_fetched: bool = False


@dataclass(eq=False)
class ToolGaps:
    """Follows the calls of agents, and keeps, pages out or fetches their pages in between."""

    contexts: ContextManager
    clock: Clock
    is_on: bool = True
    _gaps: Gaps = field(default_factory=Gaps)
    _turnovers: dict[str, Turnover] = field(default_factory=dict)
    """Of each model's store, by its fingerprint."""
    _page_read_s: float = PAGE_READ_S
    _away: dict[Pid, Away] = field(default_factory=dict)
    _due: RankedQueue = field(default_factory=RankedQueue)
    """Who has something due, by when."""
    _changed: anyio.Event = field(default_factory=anyio.Event)

    @contextmanager
    def call(self, run: Run) -> Iterator[Answer]:
        """A call to a model, from beginning to end; the block fills in what it brought."""
        pid, answer = run.process.pid, Answer()
        if (
            not self.is_on or run.is_background
        ):  # a call on behalf of an agent that makes one itself
            yield answer
            return
        self._gaps.come_back(pid, self.clock.now_s())
        away = self._away.get(pid)
        if away is not None:
            self._away[pid] = replace(away, plan=None)
            self._put(pid, self.clock.now_s())
        try:
            yield answer
        finally:
            self._forget_pages(pid)
            store = self.contexts.find_store(answer.fingerprint)
            if answer.pages and store is not None:
                self._leave(run, answer, store)

    def forget(self, pid: Pid) -> None:
        """The process has ended."""
        self._gaps.forget(pid)
        self._forget_pages(pid)

    async def run(self) -> None:
        """Do what is due when it is due, for ever."""
        while True:
            self._changed = anyio.Event()
            next_s = await self.attend_due()
            delay_s = inf if next_s is None else next_s - self.clock.now_s()
            with anyio.move_on_after(delay_s):
                await self._changed.wait()

    async def attend_due(self) -> float | None:
        """Do what is due now. Returns: when there is more to do, on the kernel's clock; None if there is nothing."""
        while (best := self._due.best()) is not None:
            (at_s,), pid = best
            if at_s > self.clock.now_s():
                return at_s
            self._due.discard(pid)
            await self._attend(Pid(pid))
        return None

    def _leave(self, run: Run, answer: Answer, store: "PageStore") -> None:
        """An agent has its answer. What it will be back for is kept in memory or not."""
        process, now_s = run.process, self.clock.now_s()
        n_evicted, n_frames = store.pressure
        turnover = self._turnovers.setdefault(answer.fingerprint, Turnover())
        turnover_s = turnover.after_s(n_frames=n_frames, n_evicted=n_evicted, now_s=now_s)
        kind = GapKind(process.program or process.name, answer.tools)
        stay = self._gaps.leave(process.pid, kind, now_s)
        if stay is None:
            return
        plan = plan_gap(
            stay,
            n_pages=len(answer.pages),
            page_read_s=self._page_read_s,
            turnover_s=turnover_s,
        )
        self._away[process.pid] = Away(store, answer.pages, now_s, plan)
        if plan.is_kept:
            store.expect(_name(process.pid), answer.pages)
        self._put(process.pid, now_s if plan.is_paged_out else now_s + plan.fetch_after_s)

    async def _attend(self, pid: Pid) -> None:
        """The next thing that is due for an agent."""
        away = self._away.get(pid)
        if away is None:
            return
        now_s, plan = self.clock.now_s(), away.plan
        if plan is None:  # it waits for its turn: nobody is surer to need them
            away.store.expect(_name(pid), away.pages)
            await self._fetch(away)
        elif away.is_fetched:
            self._forget_pages(pid)
        elif now_s < away.since_s + plan.fetch_after_s:
            self._put(pid, away.since_s + plan.fetch_after_s)
            await anyio.to_thread.run_sync(away.store.page_out, away.pages)
        else:
            self._away[pid] = replace(away, is_fetched=True)
            self._put(pid, away.since_s + plan.expect_until_s)
            away.store.expect(_name(pid), away.pages)
            await self._fetch(away)

    async def _fetch(self, away: Away) -> None:
        if away.store.n_resident(away.pages) == away.store.n_known(away.pages):
            return
        begun_s = self.clock.now_s()
        n_pages = await anyio.to_thread.run_sync(partial(away.store.fetch, away.pages))
        if n_pages:
            read_s = (self.clock.now_s() - begun_s) / n_pages
            self._page_read_s += LEARNED_SHARE * (read_s - self._page_read_s)

    def _put(self, pid: Pid, at_s: float) -> None:
        self._due.put(pid, (at_s,))
        self._changed.set()

    def _forget_pages(self, pid: Pid) -> None:
        """Its pages are as good as any others."""
        self._due.discard(pid)
        away = self._away.pop(pid, None)
        if away is not None:
            away.store.expect(_name(pid), ())


def _name(pid: Pid) -> str:
    return str(pid)
