"""The rate limits of one key, shared by weight among the owners whose calls use it. Pure: told the time, never asks for it.

Two leaky buckets, of requests and of tokens, say when the next call may begin; start-time fair queueing says whose it is: a call
is tagged with its owner's virtual time, which moves by the share of a minute that the call takes over the owner's weight. An
owner that was idle starts at the present and gains nothing from having been so. Nobody passes the first: a large call is not
kept waiting by small ones.

A bucket holds a seventh of a minute's limit and fills so slowly that in no minute more than the limit begins, unless a single
call is larger than the bucket: that one waits for a full bucket and leaves a debt.

Source: Goyal et al., Start-time Fair Queueing, 1996; the share of a call is that of its dominant resource (Ghodsi et al., 2011).
"""

from dataclasses import dataclass, field
from math import inf

from msgspec import Struct

WINDOW_S = 60.0
BURST_SHARE = 1 / 7
"""Of a minute's limit, what may begin at once."""
SLACK = 1e-9
"""Of a full bucket, lost to rounding."""


class Rate(Struct, frozen=True):
    """The limits of a key: what begins in a minute, 0 for no limit. `key` names it; engines with the same share them."""

    key: str
    requests_per_minute: int = 0
    tokens_per_minute: int = 0


@dataclass
class Bucket:
    """What may begin now of something that is limited by the minute; 0 is no limit."""

    limit: float
    level: float = 0.0
    """Below nothing when a call took more than a full bucket, or more than it was taken to need."""
    filled_s: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.size

    @property
    def size(self) -> float:
        """What a full one holds."""
        return max(1.0, self.limit * BURST_SHARE)

    @property
    def rate(self) -> float:
        """What comes in a second."""
        rest = self.limit - self.size
        return (rest if rest > 0 else self.limit) / WINDOW_S

    def fill(self, now_s: float) -> None:
        """Let in what has come since the last time."""
        if now_s > self.filled_s:
            self.level = min(self.size, self.level + self.rate * (now_s - self.filled_s))
            self.filled_s = now_s

    def wait_s(self, amount: float) -> float:
        """Seconds until so much is there; what is more than a full bucket waits for a full one."""
        lacking = min(amount, self.size) - self.level
        return 0.0 if not self.limit or lacking <= SLACK * self.size else lacking / self.rate

    def take(self, amount: float) -> None:
        """Take so much out; less than nothing puts it back."""
        if self.limit:
            self.level = min(self.size, self.level - amount)


class Call(Struct, frozen=True):
    """A call that waits: whose it is, and about how many tokens it takes."""

    id: int
    owner: str
    n_tokens: int
    tag: float


@dataclass
class RateLimiter:
    """Who may begin next, and when.

    Args:
        requests_per_minute: 0 is no limit.
        tokens_per_minute: The same, of prompts and outputs.
    """

    requests_per_minute: int
    tokens_per_minute: int
    _waiting: dict[int, Call] = field(default_factory=dict)
    _finish: dict[str, float] = field(default_factory=dict)
    """Where each owner's next call begins in virtual time; what is in the past is as good as none."""
    _now: float = 0.0
    """The present in virtual time."""

    def __post_init__(self) -> None:
        self._requests = Bucket(self.requests_per_minute)
        self._tokens = Bucket(self.tokens_per_minute)

    def arrive(self, call_id: int, owner: str, *, weight: float, n_tokens: int) -> None:
        """A call wants to begin."""
        assert call_id not in self._waiting, f"call {call_id} waits twice"
        tag = max(self._now, self._finish.get(owner, 0.0))
        self._waiting[call_id] = Call(call_id, owner, n_tokens, tag)
        self._finish[owner] = tag + self._share(n_tokens) / weight

    def leave(self, call_id: int) -> None:
        """A call that waits no longer wants to begin. Its owner's later calls keep their tags."""
        del self._waiting[call_id]

    def advance(self, now_s: float) -> list[int]:
        """The calls that begin now, in their order."""
        begun: list[int] = []
        while (first := self.first()) is not None and self.wait_s(first, now_s) <= 0:
            call = self._waiting.pop(first)
            self._requests.take(1)
            self._tokens.take(call.n_tokens)
            self._now = max(self._now, call.tag)
            begun.append(first)
        if not self._waiting:
            self._finish = {owner: at for owner, at in self._finish.items() if at > self._now}
        return begun

    def settle(self, n_taken: int, n_used: int, now_s: float) -> None:
        """A call has ended: give back what it did not use, or take what it used besides. With 0 used it was never made."""
        self._tokens.fill(now_s)
        self._tokens.take(n_used - n_taken)
        if not n_used:
            self._requests.fill(now_s)
            self._requests.take(-1)

    def first(self) -> int | None:
        """The call that begins next; None if none waits."""
        return min(self._waiting, key=lambda each: (self._waiting[each].tag, each), default=None)

    def wait_s(self, call_id: int, now_s: float) -> float:
        """Seconds until a call may begin; infinite while another is before it."""
        if call_id != self.first():
            return inf
        self._requests.fill(now_s)
        self._tokens.fill(now_s)
        n_tokens = self._waiting[call_id].n_tokens
        return max(self._requests.wait_s(1), self._tokens.wait_s(n_tokens))

    @property
    def n_waiting(self) -> int:
        """Calls that wait."""
        return len(self._waiting)

    def _share(self, n_tokens: int) -> float:
        """The larger of the parts of a minute's two limits that a call takes."""
        parts = [1 / self.requests_per_minute if self.requests_per_minute else 0.0]
        parts.append(n_tokens / self.tokens_per_minute if self.tokens_per_minute else 0.0)
        return max(parts)

    def check_invariants(self) -> None:
        """Raise AssertionError if a bucket is too full, or a call waits behind the end of its owner's."""
        assert self._requests.level <= self._requests.size
        assert self._tokens.level <= self._tokens.size
        for call in self._waiting.values():
            assert call.tag <= self._finish[call.owner], f"call {call.id} has no place"
