"""Frames: memory for pages, in blocks that are touched once and then reused, for fresh memory costs more than the copy."""

from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

SLAB_BYTES = 64 << 20
"""Frames are allocated this much at a time, up to the budget."""


@dataclass(eq=False)
class Frames:
    """Memory for pages, allocated in slabs and never given back."""

    page_bytes: int
    n_max: int
    _slabs: list[Bytes] = field(default_factory=list)
    _free: list[int] = field(default_factory=list)
    n_allocated: int = 0

    def take(self) -> int | None:
        """A free frame; None when the budget is used up, or the system has no memory now."""
        if not self._free and self.n_allocated < self.n_max:
            with suppress(MemoryError):
                self._allocate(min(self._per_slab, self.n_max - self.n_allocated))
        return self._free.pop() if self._free else None

    def _allocate(self, n: int) -> None:
        self._slabs.append(np.zeros((n, self.page_bytes), np.uint8))
        self._free.extend(range(self.n_allocated + n - 1, self.n_allocated - 1, -1))
        self.n_allocated += n

    @property
    def n_free(self) -> int:
        """Frames that are allocated and hold no page."""
        return len(self._free)

    def give_back(self, frame: int) -> None:
        """Free a frame."""
        self._free.append(frame)

    def __getitem__(self, frame: int) -> Bytes:
        slab, row = divmod(frame, self._per_slab)
        rows: Bytes = self._slabs[slab][row]
        return rows

    @property
    def _per_slab(self) -> int:
        return max(1, SLAB_BYTES // self.page_bytes)
