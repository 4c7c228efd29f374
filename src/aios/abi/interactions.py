"""The calls about short-term memory: what an agent said, asked and got. What they do is `kernel/memory/interactions.py`."""

from typing import Annotated

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call
from aios.abi.types import Count, Name, Pid

MAX_RECORD_CHARS = 1 << 16

InteractionId = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
"""1 for the first that an agent logged, then one more each."""


class Interaction(Struct, frozen=True):
    """One record. `kind` is the agent's word for it, such as `said`, `asked` or `got`; `taint` where data in it came from outside."""

    id: int
    unix_s: float
    kind: str
    text: str
    taint: str = ""


class Logged(Answer, frozen=True):
    """The record is on disk."""

    id: int


class MemoryLog(Call[Logged], frozen=True, tag="memory_log"):
    """Add a record to the interactions of the agent that the caller is; they outlive the process."""

    text: Annotated[str, Meta(max_length=MAX_RECORD_CHARS)]
    kind: Name = "said"


class Interactions(Answer, frozen=True):
    """Records by id. `n_faults` of the caller's own were not in memory and were read from disk."""

    records: tuple[Interaction, ...]
    n_faults: Count


class MemoryRead(Call[Interactions], frozen=True, tag="memory_read"):
    """Read at most `limit` records of the caller's own from `first` on; without `first`, the last ones.

    Of over 4 MiB of text an answer holds fewer: go on after its last record until one is empty; without `first` it has the newest.

    With `pid` those of a process that the caller may see: the owner of the kernel reads all that there are of that agent, anybody else what that
    process itself has logged. They come from disk and are no faults of anybody.
    """

    pid: Pid | None = None
    first: InteractionId | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1


class BlockStatistics(Answer, frozen=True):
    """How many records there are to read, and the memory block of the process: `size_bytes` of at most `max_bytes`, and how its reads went."""

    n_records: Count
    n_in_memory: Count
    size_bytes: Count
    max_bytes: Count
    n_reads: Count
    n_faults: Count


class MemoryStat(Call[BlockStatistics], frozen=True, tag="memory_stat"):
    """Ask about the memory block of the caller, or of a process that it may see."""

    pid: Pid | None = None
