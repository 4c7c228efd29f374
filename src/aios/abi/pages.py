"""System calls about KV pages: what the stores hold."""

from msgspec import Struct

from aios.abi.call import Answer, Call
from aios.abi.types import Count


class PageStoreInfo(Struct, frozen=True):
    """The page store of one model. Bytes are `page_bytes` times pages; the counters grow since the kernel began."""

    fingerprint: str
    """The model, its quantisation and how its cells are kept."""
    page_tokens: Count
    page_bytes: Count
    budget_bytes: Count
    """What pages in memory may take."""
    disk_budget_bytes: Count
    n_frames: Count
    """Pages that the budget has room for; their memory is taken as they are filled."""
    n_resident: Count
    """Pages in memory."""
    n_in_use: Count
    """Of these, those that somebody reads or fills now."""
    n_pinned: Count
    """Pages, in memory or on disk, that no budget removes."""
    n_pins: Count
    """Those who pinned them: suspended generations and snapshots."""
    n_expected: Count
    """Pages of agents that are expected back soon; they are evicted last."""
    n_on_disk: Count
    n_added: Count
    n_hits: Count
    n_misses: Count
    n_evicted: Count
    n_read_from_disk: Count
    n_fetched: Count
    """Of these, those that were read before an agent was expected back."""
    n_paged_out: Count
    """Pages that were written to disk before their memory was needed."""
    n_damaged: Count
    """Pages on disk that were not what was written; they are computed again."""
    n_failed_writes: Count


class PageStores(Answer, frozen=True):
    """Every page store of the kernel."""

    stores: tuple[PageStoreInfo, ...]


class Pages(Call[PageStores], frozen=True):
    """Ask what the page stores hold. Without an engine that pages there are none."""
