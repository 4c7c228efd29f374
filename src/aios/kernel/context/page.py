"""A page in memory, and what a store of pages counts. Pure."""

from dataclasses import dataclass

from msgspec import Struct


class PageStatistics(Struct, frozen=True):
    """Counters of a store; bytes are `page_bytes` times pages. `n_pinned` counts those in memory or on disk."""

    page_bytes: int
    n_frames: int
    n_resident: int
    n_in_use: int
    n_pinned: int
    n_pins: int
    n_expected: int
    n_on_disk: int
    n_added: int
    n_hits: int
    n_misses: int
    n_evicted: int
    n_read_from_disk: int
    n_fetched: int
    n_paged_out: int
    n_damaged: int
    n_failed_writes: int


@dataclass(eq=False, slots=True)
class Page:
    """A page in memory; `depth` pages stand before it."""

    key: bytes
    parent: bytes | None
    frame: int
    depth: int
    worth: float = 0.0
    n_uses: int = 0
    n_readers: int = 0
    """Those who need its frame to stay as it is."""
    n_children: int = 0
    """Children in memory."""
    is_linked: bool = False
    """Counted among its parent's children; not if the parent was on disk only when it came."""
    is_filled: bool = True
    """False while it is read from disk, and then one reader is doing it."""
