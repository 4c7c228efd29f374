"""How much memory each family of processes holds at the door: packets and bodies that are not whole yet, large calls in flight, answers that nobody has read.

A family is a child of init with all that it started and branches of those. What one holds beyond `MAX_HELD_BYTES` is refused to it alone; the owner has no bound.
"""

from weakref import WeakValueDictionary

from aios.abi.types import Pid
from aios.errors import ResourceExhausted
from aios.kernel.kernel import Kernel
from aios.kernel.process import INIT_PID
from aios.kernel.waitqueue import WaitQueue

MAX_HELD_BYTES = 256 << 20


class Held:
    """What one family holds of one thing."""

    def __init__(self, family: str, what: str, *, is_bounded: bool) -> None:
        self.family = family
        """The name of the child of init; empty for the owner."""
        self._what = what
        self.n_bytes = 0
        self.room = WaitQueue()
        """Woken whenever something was given back."""
        self._is_bounded = is_bounded

    @property
    def is_full(self) -> bool:
        """Whether nothing large is taken any more."""
        return self._is_bounded and self.n_bytes >= MAX_HELD_BYTES

    def check_room(self, n_bytes: int) -> None:
        """See that so much more may be held.

        Raises:
            ResourceExhausted: It may not.
        """
        if self._is_bounded and n_bytes and self.n_bytes + n_bytes > MAX_HELD_BYTES:
            raise self.refusal()

    def refusal(self) -> ResourceExhausted:
        """The error for what is too much."""
        return ResourceExhausted(
            f"{self.family} and what it started hold {self.n_bytes:,} bytes in {self._what}, of {MAX_HELD_BYTES:,}",
            hint="wait for some of the calls and read their answers; or send less at once",
            retry_after_s=1.0,
        )


class Share:
    """What one connection or request holds of it; given back at `close`, whatever happened."""

    def __init__(self, held: Held) -> None:
        self.held = held
        self.n_bytes = 0

    def add(self, n_bytes: int) -> None:
        """Hold so much more; less, if it is negative."""
        self.n_bytes += n_bytes
        self.held.n_bytes += n_bytes
        if n_bytes < 0:
            self.held.room.wake_all()

    def claim(self, n_bytes: int) -> None:
        """Hold so much in all, if there is room for it.

        Raises:
            ResourceExhausted: There is none.
        """
        more = n_bytes - self.n_bytes
        self.held.check_room(more)
        self.add(more)

    def close(self) -> None:
        """Give all of it back."""
        self.add(-self.n_bytes)


class Families:
    """What all of them hold of one thing, as long as somebody has a share in it."""

    def __init__(self, kernel: Kernel, what: str = "large calls and unread answers") -> None:
        self._kernel = kernel
        self._what = what
        self._held = WeakValueDictionary[str, Held]()

    def share_of(self, pid: Pid) -> Share:
        """A new share for a process.

        Raises:
            NotFound: There is no such process.
        """
        family = self._kernel.table.get(pid).family
        held = self._held.get(family)
        if held is None:
            held = self._held[family] = Held(family, self._what, is_bounded=pid != INIT_PID)
        return Share(held)
