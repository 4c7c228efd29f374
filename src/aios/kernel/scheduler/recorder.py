"""A record of the calls that were served last, from which a trace can be made. Pure.

It holds times and counts of tokens, and nothing of what was said. Who made a call is known by its process's name and owner.
"""

from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from aios.abi.trace import TracedAgent, TracedCall
from aios.abi.types import Pid, Usage

DIGITS = 4
"""Of the seconds in a trace: a tenth of a millisecond is less than any call takes."""


class ServedCall(Struct, frozen=True):
    """A call that a model has served. Times are on the kernel's clock; `deadline_s` is when it should have been done."""

    pid: Pid
    name: str
    owner: str
    nice: int
    begun_s: float
    ended_s: float
    usage: Usage
    deadline_s: float | None = None


class Recorder:
    """Keeps the last `n_calls` calls; 0 keeps none. Cost: about 300 bytes a call."""

    def __init__(self, n_calls: int) -> None:
        self._calls: deque[ServedCall] = deque(maxlen=n_calls)
        self._n_noted = 0

    @property
    def n_dropped(self) -> int:
        """Calls that are no longer kept."""
        return self._n_noted - len(self._calls)

    def note(self, call: ServedCall) -> None:
        """A call was served. One that wrote nothing, as an embedding, is not kept."""
        if call.usage.completion_tokens:
            self._n_noted += 1
            self._calls.append(call)

    def trace(self) -> tuple[TracedAgent, ...]:
        """The calls as a trace that begins with the first of them. Cost: O(n log n)."""
        return to_trace(self._calls)


def to_trace(calls: Iterable[ServedCall]) -> tuple[TracedAgent, ...]:
    """A trace of calls: an agent for each process, and one more for each call that it made beside another of its own.

    An agent of a trace makes its calls one after another: it is busy elsewhere from the end of one to the beginning of the
    next. Those that overlap are told apart into as few such strands as there can be.
    """
    ordered = sorted(calls, key=lambda call: call.begun_s)
    strands: dict[Pid, list[list[ServedCall]]] = {}
    for call in ordered:
        mine = strands.setdefault(call.pid, [])
        free = [strand for strand in mine if strand[-1].ended_s <= call.begun_s]
        if free:
            max(free, key=lambda strand: strand[-1].ended_s).append(call)
        else:
            mine.append([call])
    begins_s = ordered[0].begun_s if ordered else 0.0
    agents = [_agent(strand, begins_s) for mine in strands.values() for strand in mine]
    return tuple(sorted(agents, key=lambda agent: agent.arrives_s))


def _agent(strand: list[ServedCall], begins_s: float) -> TracedAgent:
    first = strand[0]
    nexts = [*(call.begun_s for call in strand[1:]), strand[-1].ended_s]
    calls = tuple(_call(call, next_s) for call, next_s in zip(strand, nexts, strict=True))
    return TracedAgent(
        round(first.begun_s - begins_s, DIGITS), calls, first.owner, first.nice, first.name
    )


def _call(call: ServedCall, next_s: float) -> TracedCall:
    usage = call.usage
    due_s = None if call.deadline_s is None else round(call.deadline_s - call.begun_s, DIGITS)
    return TracedCall(
        usage.prompt_tokens,
        usage.completion_tokens,
        min(usage.cached_tokens, usage.prompt_tokens),
        max(0.0, round(next_s - call.ended_s, DIGITS)),
        due_s if due_s and due_s > 0 else None,
    )
