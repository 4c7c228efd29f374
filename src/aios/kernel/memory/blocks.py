"""A bounded block of memory for the interaction records of one process, and which of them leave it. Pure.

When more than 80 % of the block is used, records leave by LRU-K (O'Neil, O'Neil and Weikum, SIGMOD 1993) with K = 2: first those
that were used only once, the longest ago first; then those whose second-last use is the longest ago. One pass over many records
therefore does not push out what is read again and again. When a record was used is remembered for a while after it has left, else
one that comes back would always be new. Every record is on disk, so leaving costs nothing.
"""

from heapq import heapify, heappop, heappush

from msgspec import Struct

FULL_SHARE = 0.8
"""From here on records leave; the rest is room for the next ones (AIOS, arXiv 2403.16971)."""
OVERHEAD_BYTES = 512
"""What a record takes in memory besides its text: its key, its uses, the objects that hold it."""
GHOST_BYTES = 2_048
"""The uses of one record that has left are remembered for each so many bytes of the block."""


class Uses(Struct, frozen=True):
    """When a record was used last and before that, in uses of the block; `before` is 0 if it was used once."""

    last: int
    before: int = 0


class Block:
    """The records of one process that are in memory.

    Args:
        max_bytes: The size of the block; `FULL_SHARE` of it is filled.
        k: 2 for LRU-K; 1 is plain LRU, to compare with.
    """

    def __init__(self, max_bytes: int, *, k: int = 2) -> None:
        assert k in {1, 2}
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self.n_reads = 0
        self.n_faults = 0
        self._k = k
        self._records: dict[int, bytes] = {}
        self._uses: dict[int, Uses] = {}
        self._once: dict[int, None] = {}
        """Those in memory that were used once (or K is 1), the longest ago first."""
        self._often: list[tuple[int, int]] = []
        """A heap of second-last use and record; what does not match `_uses` any more is skipped."""
        self._ghosts: dict[int, Uses] = {}
        self._now = 0

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, record: int) -> bool:
        return record in self._records

    def find(self, record: int) -> bytes | None:
        """Use a record: its bytes, or None, which is a fault: read it from disk and `put` it."""
        self.n_reads += 1
        found = self._records.get(record)
        if found is None:
            self.n_faults += 1
            return None
        self._use(record)
        return found

    def put(self, record: int, data: bytes) -> tuple[int, ...]:
        """Bring a record in, which is a use of it. Returns: those that left, which may be the record itself."""
        if record in self._records:
            self._use(record)
            return ()
        self._records[record] = data
        self.size_bytes += len(data) + OVERHEAD_BYTES
        ghost = self._ghosts.pop(record, None)
        if ghost is not None:
            self._uses[record] = ghost
        self._use(record)
        left = []
        while self.size_bytes > self.max_bytes * FULL_SHARE:
            left.append(self._leave())
        return tuple(left)

    def check_invariants(self) -> None:
        """Raise AssertionError if the block is over its size or lost count."""
        size_bytes = sum(len(data) + OVERHEAD_BYTES for data in self._records.values())
        assert self.size_bytes == size_bytes <= self.max_bytes
        assert self._uses.keys() == self._records.keys()
        often = {record for before, record in self._often if self._is_current(before, record)}
        assert self._once.keys() | often == self._records.keys()
        assert not self._once.keys() & often
        assert not self._ghosts.keys() & self._records.keys()
        assert len(self._ghosts) <= self.max_bytes // GHOST_BYTES

    def _use(self, record: int) -> None:
        self._now += 1
        known = self._uses.get(record)
        self._once.pop(record, None)
        uses = Uses(self._now, known.last if known is not None and self._k > 1 else 0)
        self._uses[record] = uses
        if not uses.before:
            self._once[record] = None
            return
        heappush(self._often, (uses.before, record))
        if len(self._often) > 2 * len(self._records) + 64:
            self._often = [each for each in self._often if self._is_current(*each)]
            heapify(self._often)

    def _leave(self) -> int:
        """Let the record go whose K-th last use is the longest ago."""
        if self._once:
            record = next(iter(self._once))
            del self._once[record]
        else:
            before, record = heappop(self._often)
            while not self._is_current(before, record):
                before, record = heappop(self._often)
        self.size_bytes -= len(self._records.pop(record)) + OVERHEAD_BYTES
        self._ghosts[record] = self._uses.pop(record)
        if len(self._ghosts) > self.max_bytes // GHOST_BYTES:
            del self._ghosts[next(iter(self._ghosts))]
        return record

    def _is_current(self, before: int, record: int) -> bool:
        uses = self._uses.get(record)
        return uses is not None and uses.before == before
