"""What a crowd of agents asked of an engine, as values: who came when, with which calls. Pure.

A trace is either made up (`aios.bench.sched_traces`) or recorded; as text it is JSON lines, one agent a line:

    {"arrives_s": 0.5, "owner": "ann", "nice": 0, "kind": "chat", "calls": [
        {"prompt_tokens": 120, "cached_tokens": 0, "output_tokens": 24, "gap_s": 1.5}]}
"""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from aios.errors import InvalidCall

Count = Annotated[int, Meta(ge=0)]
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


def encode_trace(agents: Iterable[TracedAgent]) -> bytes:
    """A trace as JSON lines."""
    return b"".join(msgspec.json.encode(agent) + b"\n" for agent in agents)


def decode_trace(data: bytes) -> tuple[TracedAgent, ...]:
    """Read a trace.

    Raises:
        InvalidCall: A line is not an agent; says which line.
    """
    agents = []
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            try:
                agents.append(msgspec.json.decode(line, type=TracedAgent))
            except msgspec.MsgspecError as error:
                hint = (
                    "a line is an agent with `arrives_s` and `calls`; see kernel/scheduler/trace.py"
                )
                raise InvalidCall(f"line {number} of the trace: {error}", hint=hint) from error
    return tuple(agents)
