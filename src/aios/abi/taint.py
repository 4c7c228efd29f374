"""The mark on what came from outside; see docs/concepts/taint.md."""

from msgspec import Struct


class Taint(Struct, frozen=True):
    """Data from outside has reached a process. `source` is where it came from, `via` the way it took since, empty if none.

    `seq` is the call in the journal of the process that brought it; 0 was before the first.
    """

    source: str
    via: str = ""
    seq: int = 0
