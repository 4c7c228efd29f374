"""Pages: the KV rows of 32 tokens each, shared by all contexts that begin with the same tokens.

A page is named by the hash of its parent's name, its tokens and the model's fingerprint, so equal prefixes are stored once
whoever computed them, and a page is only ever found behind exactly the tokens that it was computed after. Pages live in frames
of one block of memory (touched once, then reused: fresh memory costs more than the copy) and, when that is full, in files.

An engine's thread calls `acquire`, `release` and `add`; everybody may call `statistics`. A page that is pinned, or that has
children in memory, is never evicted; of the others the one goes that is least worth keeping: used seldom and long ago.
Source: paging as in vLLM, arXiv 2309.06180; the prefix tree as in SGLang's RadixAttention, 2312.07104; tiers as in
CachedAttention, 2403.19708; eviction by GreedyDual-Size-Frequency, Cherkasova 1998.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from aios.kernel.context.files import PageFiles

Bytes = NDArray[np.uint8]
KEY_BYTES = 16
SLAB_BYTES = 64 << 20
"""Frames are allocated this much at a time, up to the budget."""


def page_keys(fingerprint: str, tokens: NDArray[np.int32], page_tokens: int) -> list[bytes]:
    """The names of all full pages of a sequence of tokens, in order. Cost: 1.5 us a page."""
    parent = blake2b(fingerprint.encode(), digest_size=KEY_BYTES).digest()
    data = np.ascontiguousarray(tokens, np.int32).tobytes()
    step = 4 * page_tokens
    keys: list[bytes] = []
    for start in range(0, len(data) - step + 1, step):
        parent = blake2b(parent + data[start : start + step], digest_size=KEY_BYTES).digest()
        keys.append(bytes(parent))
    return keys


@dataclass(frozen=True)
class PageStatistics:
    """Counters of a store; bytes are `page_bytes` times pages."""

    page_bytes: int
    n_frames: int
    n_resident: int
    n_pinned: int
    n_on_disk: int
    n_added: int
    n_hits: int
    n_misses: int
    n_evicted: int
    n_read_from_disk: int
    n_damaged: int


@dataclass(eq=False, slots=True)
class Page:
    """A page in memory."""

    key: bytes
    parent: bytes | None
    frame: int
    worth: float
    n_uses: int = 1
    n_pins: int = 0
    n_children: int = 0
    """Children in memory."""


@dataclass(eq=False)
class Frames:
    """Memory for pages, allocated in slabs and never given back."""

    page_bytes: int
    n_max: int
    _slabs: list[Bytes] = field(default_factory=list)
    _free: list[int] = field(default_factory=list)
    n_allocated: int = 0

    def take(self) -> int | None:
        """A free frame; None when the budget is used up."""
        if not self._free and self.n_allocated < self.n_max:
            n = min(self._per_slab, self.n_max - self.n_allocated)
            self._slabs.append(np.zeros((n, self.page_bytes), np.uint8))
            self._free.extend(range(self.n_allocated + n - 1, self.n_allocated - 1, -1))
            self.n_allocated += n
        return self._free.pop() if self._free else None

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


class PageStore:
    """The pages of one model; an `aios.engine.base.PageStore`.

    Args:
        fingerprint: Of the model and all that its KV rows depend on.
        page_tokens: Tokens in a page.
        page_bytes: Size of a page.
        budget_bytes: Memory for pages.
        files: The disk tier; without it evicted pages are gone.
    """

    def __init__(
        self,
        *,
        fingerprint: str,
        page_tokens: int,
        page_bytes: int,
        budget_bytes: int,
        files: PageFiles | None = None,
    ) -> None:
        self._fingerprint = fingerprint
        self._page_tokens = page_tokens
        self.page_bytes = page_bytes
        self._frames = Frames(page_bytes, budget_bytes // page_bytes)
        self._files = files
        self._pages: dict[bytes, Page] = {}
        self._heap: list[tuple[float, bytes]] = []
        """Pages that may be evicted, by worth; entries out of date stay until they come up."""
        self._age = 0.0
        self._lock = Lock()
        self._n_added = self._n_hits = self._n_misses = self._n_evicted = 0

    def keys(self, tokens: NDArray[np.int32]) -> list[bytes]:
        """The names of all full pages of a sequence, in order."""
        return page_keys(self._fingerprint, tokens, self._page_tokens)

    def acquire(self, keys: Sequence[bytes]) -> list[Bytes]:
        """Pin the longest run of known pages from the start; pages on disk are read.

        Returns: Their rows, in order; valid until `release(keys[:n])` for as many as were returned.
        """
        with self._lock:
            found: list[Bytes] = []
            for number, key in enumerate(keys):
                page = self._pages.get(key) or self._read(key, keys[number - 1] if number else None)
                if page is None:
                    self._n_misses += 1
                    break
                page.n_pins += 1
                page.n_uses += 1
                page.worth = self._age + page.n_uses
                self._n_hits += 1
                found.append(self._frames[page.frame])
            return found

    def release(self, keys: Sequence[bytes]) -> None:
        """Unpin pages that `acquire` returned."""
        with self._lock:
            for key in keys:
                page = self._pages[key]
                assert page.n_pins > 0, "a page was released twice"
                page.n_pins -= 1
                self._offer(page)

    def n_known(self, keys: Sequence[bytes]) -> int:
        """How many pages from the start are known, in memory or on disk; changes nothing."""
        with self._lock:
            for number, key in enumerate(keys):
                if key not in self._pages and not (self._files and key in self._files):
                    return number
            return len(keys)

    def add(self, key: bytes, parent: bytes | None, write: Callable[[Bytes], None]) -> bool:
        """Store a page unless it is known; `write` fills its frame.

        Returns: Whether it is in memory now: not if its parent is not, or every frame is pinned.
        """
        with self._lock:
            if key in self._pages:
                return True
            page = self._seat(key, parent)
            if page is None:
                return False
            write(self._frames[page.frame])
            self._n_added += 1
            self._offer(page)
            return True

    def statistics(self) -> PageStatistics:
        """Counters; cheap but for the pins, which are counted."""
        with self._lock:
            return PageStatistics(
                page_bytes=self.page_bytes,
                n_frames=self._frames.n_max,
                n_resident=len(self._pages),
                n_pinned=sum(page.n_pins > 0 for page in self._pages.values()),
                n_on_disk=len(self._files) if self._files else 0,
                n_added=self._n_added,
                n_hits=self._n_hits,
                n_misses=self._n_misses,
                n_evicted=self._n_evicted,
                n_read_from_disk=self._files.n_read if self._files else 0,
                n_damaged=self._files.n_damaged if self._files else 0,
            )

    def flush(self) -> None:
        """Write every page in memory to disk, so that a later store finds it."""
        if self._files is not None:
            with self._lock:
                for page in self._pages.values():
                    self._files.write(page.key, page.parent, self._frames[page.frame])

    def _seat(self, key: bytes, parent: bytes | None) -> Page | None:
        """Give a new page a frame, evicting another if need be."""
        above = self._pages.get(parent) if parent is not None else None
        if parent is not None and above is None:
            return None  # nobody could find it behind a parent that is gone
        if above is not None:
            above.n_pins += 1  # it must not be the victim
        frame = self._frames.take()
        if frame is None and self._evict():
            frame = self._frames.take()
        if above is not None:
            above.n_pins -= 1
        if frame is None:
            if above is not None:
                self._offer(above)
            return None
        page = self._pages[key] = Page(key, parent, frame, self._age + 1)
        if above is not None:
            above.n_children += 1
        return page

    def _read(self, key: bytes, parent: bytes | None) -> Page | None:
        """Bring a page back from disk."""
        if self._files is None or key not in self._files:
            return None
        page = self._seat(key, parent)
        if page is None:
            return None
        if not self._files.read(key, self._frames[page.frame]):
            self._drop(page)
            return None
        return page

    def _evict(self) -> bool:
        """Drop the page that is least worth keeping."""
        while self._heap:
            worth, key = heapq.heappop(self._heap)
            page = self._pages.get(key)
            if page is None or page.n_pins or page.n_children or page.worth != worth:
                continue
            if self._files is not None:
                self._files.write(key, page.parent, self._frames[page.frame])
            self._age = worth
            self._drop(page)
            self._n_evicted += 1
            return True
        return False

    def _drop(self, page: Page) -> None:
        del self._pages[page.key]
        self._frames.give_back(page.frame)
        above = self._pages.get(page.parent) if page.parent is not None else None
        if above is not None:
            above.n_children -= 1
            self._offer(above)

    def _offer(self, page: Page) -> None:
        """Let a page be evicted if nothing holds it."""
        if not page.n_pins and not page.n_children:
            heapq.heappush(self._heap, (page.worth, page.key))
            if len(self._heap) > 4 * len(self._pages) + 64:
                fresh = {
                    (p.worth, p.key)
                    for p in self._pages.values()
                    if not p.n_pins and not p.n_children
                }
                self._heap = sorted(fresh)

    def check_invariants(self) -> None:
        """Raise AssertionError if a page is lost, doubled, or could be evicted while it is needed."""
        frames = [page.frame for page in self._pages.values()]
        assert len(frames) == len(set(frames)), "two pages share a frame"
        assert len(frames) + self._frames.n_free == self._frames.n_allocated, "a frame is lost"
        children: dict[bytes, int] = {}
        for page in self._pages.values():
            if page.parent is not None:
                assert page.parent in self._pages, "a page has lost its parent"
                children[page.parent] = children.get(page.parent, 0) + 1
        offered = set(self._heap)
        for page in self._pages.values():
            assert page.n_pins >= 0
            assert page.n_children == children.get(page.key, 0), "children are counted wrong"
            if not page.n_pins and not page.n_children:
                assert (page.worth, page.key) in offered, "a page can never be evicted"
