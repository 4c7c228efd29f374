"""Which records need not be kept any longer. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from aios.abi.types import Pid


class Held(Struct, frozen=True):
    """The records of one process."""

    pid: Pid
    last_seq: int
    last_unix_s: float
    """When its last call began."""
    size_bytes: int


class Kept(Struct, frozen=True):
    """What is to be kept."""

    alive: Mapping[Pid, int]
    """Processes that may be replayed, with the first record that they need."""
    since_unix_s: float
    """Of others, those that called something or ended since."""
    max_bytes: int
    """Of those, the latest that fit beside the living."""
    last_pid: Pid
    """Processes that came later are left alone: nobody knew of them when this was said."""
    ended: Mapping[Pid, float] = {}
    """When processes that are remembered have ended: later than their last call, and much later if their run was imported."""


def expired(held: Sequence[Held], kept: Kept) -> Iterable[tuple[Pid, int]]:
    """Processes whose records go, and up to which one. Nothing that a living process needs is among them."""
    room_bytes = kept.max_bytes
    for each in held:
        first = kept.alive.get(each.pid)
        if first is not None:
            room_bytes -= each.size_bytes
            if first > 1:
                yield each.pid, first - 1

    def last_unix_s(each: Held) -> float:
        return max(each.last_unix_s, kept.ended.get(each.pid, 0.0))

    ended = [each for each in held if each.pid not in kept.alive and each.pid <= kept.last_pid]
    for each in sorted(ended, key=last_unix_s, reverse=True):
        room_bytes -= each.size_bytes
        if room_bytes < 0 or last_unix_s(each) < kept.since_unix_s:
            yield each.pid, each.last_seq
