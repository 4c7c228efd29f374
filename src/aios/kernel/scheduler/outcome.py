"""What a simulated schedule was like for those in it: waits, turnarounds, slowdowns, shares. Pure."""

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

JAIN_OF_NONE = 1.0


class CallOutcome(Struct, frozen=True):
    """One call. Times are in seconds of virtual time.

    Args:
        agent: The position of its agent in the trace.
        call: Which of its calls.
        kind: The label of its agent.
        arrived_s: When it was made.
        ended_s: When its last token came.
        waited_s: In all, for all its turns.
        longest_wait_s: For one turn.
        alone_s: What it would have taken on an engine that has nothing else to do.
        n_preemptions: How often it was taken out of its slot.
        read_s: How long it had a slot and waited for its context to be read from disk.
        is_late: It had a deadline and missed it.
    """

    agent: int
    call: int
    kind: str
    arrived_s: float
    ended_s: float
    waited_s: float
    longest_wait_s: float
    alone_s: float
    n_preemptions: int
    is_late: bool
    read_s: float = 0.0

    @property
    def turnaround_s(self) -> float:
        """From the call to its last token."""
        return self.ended_s - self.arrived_s

    @property
    def slowdown(self) -> float:
        """How many times longer it took than alone."""
        return self.turnaround_s / self.alone_s


class Distribution(Struct, frozen=True):
    """Of some figures; all 0 when there are none."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    longest: float


class Outcome(Struct, frozen=True):
    """A whole run.

    Args:
        calls: In the order in which they ended.
        makespan_s: From the start of the trace to the end of the last call.
        served: Tokens computed for each owner.
        contended: The same, counting only while every owner had an agent that was not done: its shares show how fair it was.
        n_refusals: How often a call found no room, or failed for want of it, and had to come back; only without a scheduler.
        n_recomputed: Tokens that were computed again, since they had been dropped.
        peak_tokens: The most that the contexts of calls that had begun took together, as they were announced.
        held_back_s: Time in which a slot was free and calls waited until the working set had room.
        n_lost_tokens: Tokens that were computed for calls which then failed, and were computed again.
    """

    calls: tuple[CallOutcome, ...]
    makespan_s: float
    served: Mapping[str, int]
    contended: Mapping[str, int]
    n_refusals: int = 0
    n_recomputed: int = 0
    peak_tokens: int = 0
    held_back_s: float = 0.0
    n_lost_tokens: int = 0

    @property
    def n_preemptions(self) -> int:
        """Of all calls."""
        return sum(call.n_preemptions for call in self.calls)

    @property
    def jain(self) -> float:
        """Jain's index over the owners, while all of them had work."""
        return jain(self.contended.values())

    @property
    def late_share(self) -> float:
        """The part of all calls that missed a deadline."""
        return sum(call.is_late for call in self.calls) / len(self.calls) if self.calls else 0.0

    @property
    def read_s(self) -> float:
        """How long a call had a slot and waited for its context, in the mean."""
        return self._of(lambda call: call.read_s, None).mean

    def turnaround_s(self, kind: str | None = None) -> Distribution:
        """Of all calls, or of those of a kind."""
        return self._of(lambda call: call.turnaround_s, kind)

    def waited_s(self, kind: str | None = None) -> Distribution:
        """Of all calls, or of those of a kind."""
        return self._of(lambda call: call.waited_s, kind)

    def slowdown(self, kind: str | None = None) -> Distribution:
        """Of all calls, or of those of a kind."""
        return self._of(lambda call: call.slowdown, kind)

    def _of(self, figure: Callable[[CallOutcome], float], kind: str | None) -> Distribution:
        return distribution(figure(call) for call in self.calls if kind in (None, call.kind))


def jain(shares: Iterable[float]) -> float:
    """Jain's index: 1 when all have the same, 1/n when one has all. Source: Jain, Chiu and Hawe, DEC TR-301, 1984."""
    values = list(shares)
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else JAIN_OF_NONE


def distribution(values: Iterable[float]) -> Distribution:
    """Mean and quantiles, by nearest rank."""
    ordered = sorted(values)
    if not ordered:
        return Distribution(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

    def at(q: float) -> float:
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]

    mean = sum(ordered) / len(ordered)
    return Distribution(mean, at(0.5), at(0.9), at(0.95), at(0.99), ordered[-1])
