"""Traces as text: JSON lines, one agent a line. Pure.

    {"arrives_s": 0.5, "owner": "ann", "nice": 0, "kind": "chat", "calls": [
        {"prompt_tokens": 120, "cached_tokens": 0, "output_tokens": 24, "gap_s": 1.5}]}

A trace is either made up (`aios.bench.sched_traces`) or recorded (`recorder.py`).
"""

from collections.abc import Iterable

import msgspec

from aios.abi.trace import TracedAgent
from aios.errors import InvalidCall
from aios.malformed import named
from aios.readers import from_json


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
                agents.append(from_json(line, TracedAgent))
            except msgspec.MsgspecError as error:
                hint = "a line is an agent with `arrives_s` and `calls`; see abi/trace.py"
                raise InvalidCall(
                    f"line {number} of the trace: {named(error)}", hint=hint
                ) from error
    return tuple(agents)
