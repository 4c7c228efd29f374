"""How much memory each family of processes takes with contexts. Pure.

A family is a child of init with all that it started and branches of those. What one would hold beyond `MAX_FAMILY_BYTES` is
refused to it alone; the owner has no bound. A fork counts in full, though it shares its messages, for what it was forked from may be
closed before it.
"""

from collections import Counter
from collections.abc import Mapping

import msgspec

from aios.abi.counting import count_values
from aios.abi.types import ToolSpec
from aios.abi.wire import VALUE_BYTES
from aios.errors import ResourceExhausted

MAX_FAMILY_BYTES = 256 << 20
SPARE_BYTES = 1 << 20
"""So much more is forgotten where something must be, so that the next call need not look for it, too."""
CONTEXT_BYTES = 1 << 10
"""What a context takes besides its messages and tools, about."""


class Shares:
    """What the contexts of each family take."""

    def __init__(self) -> None:
        self._n_bytes = Counter[str]()

    def n_over(self, family: str, n_bytes: int) -> int:
        """How many bytes it would hold beyond its bound if it took so much more."""
        if not family or n_bytes <= 0:
            return 0
        return max(0, self._n_bytes[family] + n_bytes - MAX_FAMILY_BYTES)

    def check_room(self, family: str, n_bytes: int) -> None:
        """See that a family, by the name of its child of init, may take so much more; empty for the owner.

        Raises:
            ResourceExhausted: It may not.
        """
        held = self._n_bytes[family]
        if self.n_over(family, n_bytes) > 0:
            raise ResourceExhausted(
                f"{family} and what it started hold {held:,} bytes in contexts, of {MAX_FAMILY_BYTES:,}; this would be {n_bytes:,} more",
                hint="close some contexts; forks count in full",
            )

    def add(self, family: str, n_bytes: int) -> None:
        """A family takes so much more; less, if it is negative."""
        self._n_bytes[family] += n_bytes
        if not self._n_bytes[family]:
            del self._n_bytes[family]

    def check_invariants(self, held: Mapping[str, int]) -> None:
        """Raise AssertionError if it is not what the contexts hold."""
        assert self._n_bytes == held, f"{dict(self._n_bytes)} is counted, {dict(held)} is held"


def tools_bytes(tools: tuple[ToolSpec, ...]) -> int:
    """What tools take in memory, roughly: their schemas may be made of empty lists."""
    if not tools:
        return 0
    text = msgspec.json.encode(tools)
    return len(text) + VALUE_BYTES * count_values(text, len(text))
