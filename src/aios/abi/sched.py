"""The calls about scheduling: who gets a turn at an engine next. What they do is `kernel/scheduler/control.py`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call
from aios.abi.types import Count

PolicyName = Literal["fifo", "rr", "priority", "mlfq", "fair", "bvt", "edf"]
Owner = Annotated[str, Meta(min_length=1, max_length=128)]
Weight = Annotated[float, Meta(ge=0.001, le=1000)]
QuantumTokens = Annotated[int, Meta(ge=1, le=65_536)]


class LaneInfo(Struct, frozen=True):
    """The turns of one resource: how many there are at once, how many are taken, and who waits.

    `working_set_tokens` are in contexts that have begun and not ended; a call that would let them outgrow `budget_tokens` waits.
    """

    resource: str
    capacity: Count
    n_granted: Count
    n_queued: Count
    longest_wait_s: float
    is_preemptible: bool
    working_set_tokens: Count
    budget_tokens: Count | None


class SchedInfo(Answer, frozen=True):
    """The policy in force, its parameters, and the lanes. Owners that `weights` does not name weigh 1."""

    policy: PolicyName
    quantum_tokens: Count
    weights: dict[str, float]
    lanes: tuple[LaneInfo, ...]


class Sched(Call[SchedInfo], frozen=True):
    """Ask how turns are given: the policy and the state of each lane."""


class SetSched(Call[SchedInfo], frozen=True, tag="set_sched"):
    """Change how turns are given from now on; what is None stays. Only the owner may.

    All that wait are ranked anew, as of when they were queued; what programs and owners were served before is forgotten. Weights
    are added to those there are; a weight of 1 is that of everybody.
    """

    policy: PolicyName | None = None
    quantum_tokens: QuantumTokens | None = None
    weights: Annotated[dict[Owner, Weight], Meta(max_length=10_000)] = {}  # noqa: RUF012 - msgspec copies it
