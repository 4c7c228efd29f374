"""Traces: what a crowd of agents asked of an engine, as values; and the call that asks for that of this kernel.

A trace has times and counts of tokens, and nothing of what was said. `kernel/scheduler/trace.py` writes and reads it.
"""

from typing import Annotated

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call
from aios.abi.types import Count

Seconds = Annotated[float, Meta(ge=0)]


class TracedCall(Struct, frozen=True, forbid_unknown_fields=True):
    """One call of an agent to the model.

    Args:
        prompt_tokens: The whole prompt.
        output_tokens: What the model writes, at least 1.
        cached_tokens: Those of the prompt that need not be computed: their pages are kept.
        gap_s: How long the agent is busy elsewhere (a tool runs, somebody reads) before its next call.
        deadline_s: How long after it was made the call should be done.
    """

    prompt_tokens: Count
    output_tokens: Annotated[int, Meta(ge=1)]
    cached_tokens: Count = 0
    gap_s: Seconds = 0.0
    deadline_s: Annotated[float, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        if self.cached_tokens > self.prompt_tokens:
            raise ValueError("more tokens are cached than the prompt has")

    @property
    def n_computed(self) -> int:
        """Tokens that the engine must compute for it."""
        return self.prompt_tokens - self.cached_tokens + self.output_tokens


class TracedAgent(Struct, frozen=True, forbid_unknown_fields=True):
    """One agent: its calls, one after another. `kind` is a label by which outcomes can be told apart."""

    arrives_s: Seconds
    calls: tuple[TracedCall, ...]
    owner: str = ""
    nice: int = 0
    kind: str = ""


class SchedTraced(Answer, frozen=True):
    """The calls that were served last, by agent; `n_dropped` older ones were forgotten."""

    agents: tuple[TracedAgent, ...]
    n_dropped: Count


class SchedTrace(Call[SchedTraced], frozen=True, tag="sched_trace"):
    """Ask when which agent was served how many tokens, of the last `scheduler.trace_calls` generations. Only the owner may."""
