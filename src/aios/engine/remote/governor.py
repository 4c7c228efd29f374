"""How fast and how widely one endpoint may be asked with one key: learned from its headers and its 429s.

`Rate` is the pure core; `Governor` waits by it. All engines with the same base URL and key share one governor, so that
what one of them learns holds for the others.

Concurrency: no limit until the first 429; then seven tenths of what was in flight, at most one cut a second, and one
more for each round of successes (additive increase, multiplicative decrease, as in TCP). Rates: `x-ratelimit-*` headers;
with nothing left, requests wait for the reset. Retries: each takes one token of a budget to which each success adds a
quarter, so that in the long run retries add at most a quarter to the load.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from math import inf
from time import monotonic
from weakref import WeakValueDictionary

import anyio
from msgspec import Struct

from aios.errors import RateLimited

MAX_WAIT_S = 60.0
"""A wait longer than this is told to the caller instead of waited for."""
MAX_BLOCK_S = 600.0
"""An endpoint is asked again after this, whatever it said: some tell moments or milliseconds where seconds are meant."""
CUT = 0.7
CUT_PAUSE_S = 1.0
DEFAULT_PAUSE_S = 1.0
MAX_RETRY_TOKENS = 10.0
RETRY_TOKENS_A_SUCCESS = 0.25

_DURATION = re.compile(
    r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)


@dataclass
class Allowance:
    """Requests or tokens that the endpoint still permits until `resets_at_s`; None when it never said."""

    limit: float | None = None
    remaining: float | None = None
    resets_at_s: float = -inf

    def wait_s(self, n: float, now_s: float) -> float:
        """How long until `n` more are permitted. More than the whole limit waits for a full allowance, not for ever."""
        if self.remaining is None or now_s >= self.resets_at_s:
            return 0.0
        wanted = n if self.limit is None else min(n, self.limit)
        return 0.0 if wanted <= self.remaining else self.resets_at_s - now_s

    def take(self, n: float) -> None:
        """Count what is being asked for now, until the endpoint's next word."""
        if self.remaining is not None:
            self.remaining = max(0.0, self.remaining - n)


class GovernorStatistics(Struct, frozen=True):
    """What the governor knows; `concurrency_limit` is infinite until the first 429."""

    n_in_flight: int
    n_waiting: int
    concurrency_limit: float
    n_throttled: int
    n_retries: int


@dataclass
class Rate:
    """The decision whether a request may start now. Pure: told the time, never asks for it."""

    n_in_flight: int = 0
    concurrency_limit: float = inf
    requests: Allowance = field(default_factory=Allowance)
    tokens: Allowance = field(default_factory=Allowance)
    blocked_until_s: float = -inf
    n_throttled: int = 0
    n_retries: int = 0
    retry_tokens: float = MAX_RETRY_TOKENS
    _last_cut_s: float = -inf

    def wait_s(self, n_tokens: int, now_s: float) -> float:
        """0: may start now; infinite: when another request ends; else look again after that many seconds."""
        if self.n_in_flight >= max(1, int(min(self.concurrency_limit, 1 << 30))):
            return inf
        return max(
            0.0,
            self.blocked_until_s - now_s,
            self.requests.wait_s(1, now_s),
            self.tokens.wait_s(n_tokens, now_s),
        )

    def start(self, n_tokens: int) -> None:
        """A request goes out."""
        self.n_in_flight += 1
        self.requests.take(1)
        self.tokens.take(n_tokens)

    def end(self) -> None:
        """A request, or the stream that it opened, is over, however it went."""
        self.n_in_flight -= 1

    def succeed(self, headers: Mapping[str, str], now_s: float) -> None:
        """The endpoint took a request."""
        self._learn(headers, now_s)
        self.concurrency_limit += 1 / self.concurrency_limit
        self.retry_tokens = min(MAX_RETRY_TOKENS, self.retry_tokens + RETRY_TOKENS_A_SUCCESS)

    def throttle(
        self, headers: Mapping[str, str], retry_after_s: float | None, now_s: float
    ) -> None:
        """The endpoint said 429. Those that were in flight together are answered by one cut."""
        self._learn(headers, now_s)
        self.n_throttled += 1
        pause_s = DEFAULT_PAUSE_S if retry_after_s is None else retry_after_s
        self.blocked_until_s = max(self.blocked_until_s, now_s + min(pause_s, MAX_BLOCK_S))
        if now_s - self._last_cut_s >= CUT_PAUSE_S:
            self._last_cut_s = now_s
            self.concurrency_limit = max(1.0, min(self.concurrency_limit, self.n_in_flight) * CUT)

    def take_retry(self) -> bool:
        """Whether there is budget for one more retry; takes it."""
        if self.retry_tokens < 1:
            return False
        self.retry_tokens -= 1
        self.n_retries += 1
        return True

    def check_invariants(self) -> None:
        """Raise AssertionError if the counts contradict themselves."""
        assert self.n_in_flight >= 0
        assert self.concurrency_limit >= 1
        assert 0 <= self.retry_tokens <= MAX_RETRY_TOKENS
        for allowance in (self.requests, self.tokens):
            assert allowance.remaining is None or allowance.remaining >= 0

    def _learn(self, headers: Mapping[str, str], now_s: float) -> None:
        for kind, allowance in (("requests", self.requests), ("tokens", self.tokens)):
            remaining = _number(headers.get(f"x-ratelimit-remaining-{kind}"))
            reset_s = duration_s(headers.get(f"x-ratelimit-reset-{kind}"))
            if remaining is None or reset_s is None:
                continue
            limit = _number(headers.get(f"x-ratelimit-limit-{kind}"))
            allowance.limit = limit or allowance.limit
            allowance.remaining = remaining
            allowance.resets_at_s = now_s + min(reset_s, MAX_BLOCK_S)


@dataclass(eq=False)
class _Ticket:
    n_tokens: int
    woken: anyio.Event


class Governor:
    """Lets requests through in the order in which they came, as fast as `Rate` permits.

    Args:
        now_s: A clock that only grows.
    """

    def __init__(self, *, now_s: Callable[[], float] = monotonic) -> None:
        self.rate = Rate()
        self._now_s = now_s
        self._queue: deque[_Ticket] = deque()

    async def enter(self, n_tokens: int) -> None:
        """Wait until a request of about `n_tokens` may go out; `leave` must follow, whatever happens.

        Raises:
            RateLimited: It would have to wait for more than `MAX_WAIT_S`.
        """
        if not self._queue and self._start(n_tokens) <= 0:
            return
        ticket = _Ticket(n_tokens, anyio.Event())
        self._queue.append(ticket)
        try:
            while (wait_s := self._start(n_tokens) if self._queue[0] is ticket else inf) > 0:
                with anyio.move_on_after(wait_s):
                    await ticket.woken.wait()
                ticket.woken = anyio.Event()
        finally:
            self._queue.remove(ticket)
            self._wake()

    def leave(self) -> None:
        """The request is over, or the stream that it opened."""
        self.rate.end()
        self._wake()

    def succeed(self, headers: Mapping[str, str]) -> None:
        """The endpoint took the request."""
        self.rate.succeed(headers, self._now_s())
        self._wake()

    def throttle(self, headers: Mapping[str, str], retry_after_s: float | None) -> None:
        """The endpoint said 429."""
        self.rate.throttle(headers, retry_after_s, self._now_s())

    def statistics(self) -> GovernorStatistics:
        """What the governor knows now."""
        rate = self.rate
        return GovernorStatistics(
            rate.n_in_flight,
            len(self._queue),
            rate.concurrency_limit,
            rate.n_throttled,
            rate.n_retries,
        )

    def _start(self, n_tokens: int) -> float:
        wait_s = self.rate.wait_s(n_tokens, self._now_s())
        if MAX_WAIT_S < wait_s < inf:
            raise RateLimited(
                f"the endpoint permits no request for another {wait_s:.0f} s",
                hint="wait, ask less often, or raise the limit with the provider",
                retry_after_s=wait_s,
            )
        if wait_s <= 0:
            self.rate.start(n_tokens)
        return wait_s

    def _wake(self) -> None:
        if self._queue:
            self._queue[0].woken.set()


class Governors:
    """One governor for each base URL and key, for as long as an engine uses it."""

    def __init__(self) -> None:
        self._governors: WeakValueDictionary[bytes, Governor] = WeakValueDictionary()

    def get_governor(self, base_url: str, api_key: str | None) -> Governor:
        """The shared governor. The key itself is not kept, only its hash."""
        text = f"{base_url}\0{api_key or ''}".encode("utf-8", "surrogatepass")
        name = blake2b(text, digest_size=16).digest()
        governor = self._governors.get(name)
        if governor is None:
            governor = self._governors[name] = Governor()
        return governor


def duration_s(text: str | None) -> float | None:
    """Seconds of `6m0s`, `1.5s`, `20ms`, `1h2m` or a plain number; None if it is nothing of the kind."""
    if text is None or not (text := text.strip()):
        return None
    plain = _number(text)
    if plain is not None:
        return plain
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    hours, minutes, seconds, millis = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + millis / 1000


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds after which to come again, if the endpoint says so; a date counts from the answer's own `Date`."""
    millis = _number(headers.get("retry-after-ms"))
    if millis is not None:
        return millis / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    try:
        wait = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, wait.total_seconds())


def _number(text: str | None) -> float | None:
    """A finite number that is not negative."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < inf else None
