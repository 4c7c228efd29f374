"""Waiting for the rate limits of a remote key, before a call takes a turn: parked, seen in `ps`, and counted as waited.

The limits are those of the configuration, `requests_per_minute` and `tokens_per_minute` of an engine. Engines with one address
and one key share them, as their endpoint does. What the endpoint itself says (429, Retry-After, its headers) is honoured
below, by one governor for the same address and key: `engine/remote/governor.py`.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf

import anyio

from aios.kernel.clock import Clock
from aios.kernel.process import Run
from aios.kernel.ratelimit import Rate, RateLimiter

SHORTEST_S = 0.001
"""Clocks differ in their last digits: who looks a little too early looks again."""


@dataclass(eq=False)
class Waiter:
    """A call that waits at a limit."""

    id: int
    owner: str
    weight: float
    n_tokens: int
    is_begun: bool = False
    woken: anyio.Event = field(default_factory=anyio.Event)


@dataclass
class Permit:
    """What a call took of its key's limits, as its holder says; with 0 it was never made, and takes nothing."""

    n_used: int = 0


@dataclass(eq=False)
class Pace:
    """The calls that wait for one key."""

    limiter: RateLimiter
    clock: Clock
    waiters: dict[int, Waiter] = field(default_factory=dict)

    def enter(self, waiter: Waiter) -> None:
        """Queue a call."""
        self.waiters[waiter.id] = waiter
        self.limiter.arrive(waiter.id, waiter.owner, weight=waiter.weight, n_tokens=waiter.n_tokens)
        self.pump()

    def leave(self, waiter: Waiter) -> None:
        """Take a call out, if it waits."""
        if self.waiters.pop(waiter.id, None) is not None:
            self.limiter.leave(waiter.id)
            self.pump()

    def pump(self) -> None:
        """Let begin what may, and let the first of the others set its alarm."""
        for call_id in self.limiter.advance(self.clock.now_s()):
            waiter = self.waiters.pop(call_id)
            waiter.is_begun = True
            waiter.woken.set()
        first = self.limiter.first()
        if first is not None:
            self.waiters[first].woken.set()

    async def wait(self, waiter: Waiter) -> None:
        """Wait until a call may begin."""
        while not waiter.is_begun:
            waiter.woken = anyio.Event()
            wait_s = inf
            if waiter.id in self.waiters:
                wait_s = max(SHORTEST_S, self.limiter.wait_s(waiter.id, self.clock.now_s()))
            with anyio.move_on_after(wait_s) as alarm:
                await waiter.woken.wait()
            if alarm.cancelled_caught:
                self.pump()


class Pacing:
    """The limits of all keys.

    Args:
        clock: The kernel's.
        weight_of: The share of an owner.
    """

    def __init__(self, clock: Clock, weight_of: Callable[[str], float]) -> None:
        self._clock = clock
        self._weight_of = weight_of
        self._paces: dict[str, Pace] = {}
        self._last_id = 0

    @asynccontextmanager
    async def permit(self, run: Run, rate: Rate | None, n_tokens: int) -> AsyncIterator[Permit]:
        """Wait for the limits of an engine's key; at once where it has none.

        Args:
            run: Who calls.
            rate: The engine's.
            n_tokens: About what the call takes, prompt and output.
        """
        permit = Permit()
        if rate is None:
            yield permit
            return
        pace = self._get_pace(rate)
        self._last_id += 1
        owner = run.process.owner
        waiter = Waiter(self._last_id, owner, self._weight_of(owner), n_tokens)
        try:
            await self._wait(run, pace, waiter)
            yield permit
        finally:
            if waiter.is_begun:
                pace.limiter.settle(n_tokens, permit.n_used, self._clock.now_s())
                pace.pump()

    async def _wait(self, run: Run, pace: Pace, waiter: Waiter) -> None:
        """Wait, parked and counted; a stopped process has no place in the queue, and gets one at the end when it goes on."""
        detail, run.detail = run.detail, "waits for the rate limit of its model's key"
        run.waiting_since_s = self._clock.now_s()

        def hold(is_stopped: bool) -> None:
            if is_stopped:
                pace.leave(waiter)
            elif not waiter.is_begun and waiter.id not in pace.waiters:
                pace.enter(waiter)

        try:
            pace.enter(waiter)
            with run.holding(hold), run.parked():
                await pace.wait(waiter)
        finally:
            pace.leave(waiter)
            run.detail = detail
            run.waited_s += self._clock.now_s() - run.waiting_since_s
            run.waiting_since_s = None
        await run.runnable()

    def _get_pace(self, rate: Rate) -> Pace:
        pace = self._paces.get(rate.key)
        if pace is None:
            limiter = RateLimiter(rate.requests_per_minute, rate.tokens_per_minute)
            pace = self._paces[rate.key] = Pace(limiter, self._clock)
        return pace
