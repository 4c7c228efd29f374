"""What happened last, numbered, for those who watch: calls that ended, and what became of processes. Bounded.

A watcher remembers the number that it has read up to. What was dropped before it came is counted and told, and nobody
who is slow makes the kernel wait.
"""

from collections import deque
from collections.abc import Iterator

from msgspec import Struct

from aios.abi.types import Pid
from aios.kernel.journal.records import Record
from aios.kernel.waitqueue import WaitQueue


class ProcessEvent(Struct, frozen=True):
    """Something that became of a process."""

    pid: Pid
    what: str
    unix_s: float
    detail: str = ""


Item = Record | ProcessEvent


class EventRing:
    """The last `max_events` of them."""

    def __init__(self, max_events: int) -> None:
        self._items: deque[Item] = deque(maxlen=max_events)
        self._n_put = 0
        self.base = 0
        """Events of kernels before this one have numbers up to here."""
        self._changed = WaitQueue()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @property
    def last(self) -> int:
        """The number of the latest; they count from `base` + 1."""
        return self.base + self._n_put

    @property
    def n_dropped(self) -> int:
        """How many are no longer here."""
        return self._n_put - len(self._items)

    def put(self, item: Item) -> None:
        """Add one and wake who waits."""
        self._items.append(item)
        self._n_put += 1
        self._changed.wake_all()

    def read(self, after: int, limit: int) -> tuple[list[tuple[int, Item]], int]:
        """Up to `limit` behind a number, each with its own. Also: how many of this kernel's between were dropped."""
        after, gone = max(after, self.base), self.base + self.n_dropped
        first = max(after, gone)
        places = range(first - gone, min(first - gone + limit, len(self._items)))
        # By place, for who follows reads at the end, which `islice` would come to through all that is before it.
        return [(gone + place + 1, self._items[place]) for place in places], first - after

    async def wait_changed(self) -> None:
        """Wait until there is a new one."""
        await self._changed.wait()
