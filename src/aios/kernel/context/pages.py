"""Pages: the KV rows of 32 tokens each, shared by all contexts that begin with the same tokens.

A page is named by the hash of its parent's name, its tokens and the model's fingerprint, so equal prefixes are stored once
whoever computed them, and a page is only ever found behind exactly the tokens that it was computed after. The last page of a
sequence may be filled in part, a *tail*, and its name says how many tokens it has: the next turn of a conversation goes on
from the very token where the last one ended. A tail that nobody pins is kept in memory only, goes early, and goes with its last pin.
Pages live in frames of memory and, when that is full, in files.

Any thread may call; nobody reads or writes a file with the lock held. A page that is in use, or that has children in memory,
is never evicted; a pinned one only after it was written to disk. Of the others the one goes that is least worth keeping: used
seldom, long ago, and quick to compute again; and before all that somebody is expected back for soon.
Source: paging as in vLLM, arXiv 2309.06180; the prefix tree as in SGLang's RadixAttention, 2312.07104; tiers as in
CachedAttention, 2403.19708; eviction by GreedyDual-Size-Frequency, Cherkasova 1998.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, Lock

import numpy as np
from numpy.typing import NDArray

from aios.kernel.context.files import PageFiles
from aios.kernel.context.frames import Bytes, Frames
from aios.kernel.context.keys import is_tail, page_keys, root_key, tail_key
from aios.kernel.context.page import Page, PageStatistics
from aios.kernel.context.pins import Pins

DEPTH_OF_DOUBLE_COST = 3_300
"""Tokens of context at which computing a token takes twice as long as at none: 314 tokens/s at the start, 280 at 400."""
MAX_REFUSALS = 8
"""Pinned pages that the disk did not take, before a search for a frame gives up."""
MAX_EXPECTED_SHARE = 0.5
"""Of all frames. If all pages were expected, none would be preferred."""

Rank = tuple[bool, float]
"""By which pages are evicted, the lowest first: whether it is expected, and its worth."""


class PageStore:
    """The pages of one model; an `aios.engine.base.PageStore`.

    Args:
        fingerprint: Of the model and all that its KV rows depend on.
        page_tokens: Tokens in a page, at most 255.
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
        self._pins = Pins() if files is None else files.pins
        self._expected = Pins()
        self._pages: dict[bytes, Page] = {}
        self._heap: list[tuple[Rank, bytes]] = []
        """Pages that may be evicted, by rank; entries out of date stay until they come up."""
        self._age = 0.0
        self._changed = Condition()
        """Guards all of this; told when a page was read from disk."""
        self._writing = Lock()
        """Held while a pin is written down; `_changed` may be taken with it, never the other way round."""
        self._n_added = self._n_hits = self._n_misses = self._n_evicted = 0
        self._n_fetched = self._n_paged_out = 0

    # --- finding and storing -------------------------------------------------------------------------------------

    def keys(self, tokens: NDArray[np.int32], *, tail: bool = False) -> list[bytes]:
        """The names of all full pages of a sequence, in order, and of its tail if asked for."""
        return page_keys(self._fingerprint, tokens, self._page_tokens, tail=tail)

    def n_known(self, keys: Sequence[bytes]) -> int:
        """How many pages from the start are known, in memory or on disk; changes nothing."""
        with self._changed:
            return next((n for n, key in enumerate(keys) if not self._is_known(key)), len(keys))

    def longest(self, tokens: NDArray[np.int32]) -> tuple[list[bytes], int]:
        """The names of the longest beginning that is known, which may end in a tail, and its tokens; changes nothing.

        Cost: 1.5 us a page, and as much for each length that a tail may have.
        """
        keys = self.keys(tokens)
        n_known = self.n_known(keys)
        found, start = keys[:n_known], n_known * self._page_tokens
        parent = found[-1] if found else root_key(self._fingerprint)
        rest = np.ascontiguousarray(tokens[start : start + self._page_tokens - 1], np.int32)
        data = rest.tobytes()
        for n_tokens in range(len(rest), 0, -1):
            tail = tail_key(parent, data[: 4 * n_tokens])
            if self.n_known([tail]):
                return [*found, tail], start + n_tokens
        return found, start

    def n_resident(self, keys: Sequence[bytes]) -> int:
        """How many pages from the start are in memory; changes nothing."""
        with self._changed:
            return next((n for n, key in enumerate(keys) if key not in self._pages), len(keys))

    def acquire(self, keys: Sequence[bytes]) -> list[Bytes]:
        """The rows of the longest run of known pages from the start; pages on disk are read, at 0.8 ms each.

        Returns: Their rows, in order; valid until `release(keys[:n])` for as many as were returned.
        """
        found: list[Bytes] = []
        parent = None
        for key in keys:
            page = self._use(key, parent)
            if page is None:
                break
            found.append(self._frames[page.frame])
            parent = key
        return found

    def release(self, keys: Sequence[bytes]) -> None:
        """Say that the rows which `acquire` returned are no longer needed."""
        with self._changed:
            for key in keys:
                page = self._pages[key]
                assert page.n_readers > 0, "a page was released twice"
                page.n_readers -= 1
                self._offer(page)

    def add(self, key: bytes, parent: bytes | None, write: Callable[[Bytes], None]) -> bool:
        """Store a page unless it is known; `write` fills its frame.

        Returns: Whether it is in memory now: not if its parent is unknown, or every frame is needed.
        """
        with self._changed:
            if key not in self._pages:
                page = self._seat(key, parent)
                if page is not None:
                    write(self._frames[page.frame])
                    self._note_use(page)
                    self._n_added += 1
                    self._offer(page)
            return key in self._pages

    # --- pins ----------------------------------------------------------------------------------------------------

    def pin(self, name: str, keys: Sequence[bytes], *, synced: bool = False) -> int:
        """Keep pages, in memory or on disk, until `unpin(name)`; what the name pinned before is let go.

        A page may be pinned before it is there. With `synced` the pages and the pin itself are on disk when this returns,
        and both survive the kernel.

        Returns: How many pages from the start are there; with `synced`, how many survive.
        """
        with self._changed:
            self._dismiss(self._pins.put(name, keys))
        if not synced:
            return self.n_known(keys)
        n_synced = self.flush(keys)
        with self._writing:
            if not self._pins.write(name):
                return 0
            with self._changed:
                return n_synced if self._pins.settle(name) else 0

    def unpin(self, name: str) -> None:
        """Let go what a name pins; unknown is nothing."""
        with self._changed:
            self._dismiss(self._pins.drop(name))

    def keep_pins(self, is_wanted: Callable[[str], bool]) -> None:
        """Let go the pins that an earlier kernel wrote down and that nobody wants any more."""
        with self._changed:
            for name in self._pins.names():
                if not is_wanted(name):
                    self._dismiss(self._pins.drop(name))

    def flush(self, keys: Sequence[bytes]) -> int:
        """Write pages to disk and sync them. Returns: how many from the start survive the kernel, and a crash."""
        if self._files is None:
            return 0
        n_written = next((n for n, key in enumerate(keys) if not self._write_out(key)), len(keys))
        return self._files.sync(keys[:n_written])

    def flush_all(self) -> int:
        """Write every page in memory to disk, heads first, so that a later store finds them. Returns: how many are there."""
        if self._files is None:
            return 0
        with self._changed:
            pages = sorted(self._pages.values(), key=lambda page: page.depth)
            keys = [page.key for page in pages if self._is_worth_a_file(page.key)]
        return sum(self._write_out(key) for key in keys)

    # --- what is known of the future -----------------------------------------------------------------------------

    @property
    def pressure(self) -> tuple[int, int]:
        """How many pages were evicted since it began, and how many frames there are."""
        return self._n_evicted, self._frames.n_max

    def expect(self, name: str, keys: Sequence[bytes]) -> bool:
        """Evict these pages after all that nobody is expected for, until the name expects others; what it expected is not.

        Returns: False if so many are expected already that these are treated as any others.
        """
        with self._changed:
            freed = self._expected.drop(name)
            has_room = self._expected.n_keys + len(keys) <= MAX_EXPECTED_SHARE * self._frames.n_max
            if has_room and keys:
                self._expected.put(name, keys)
            for key in (*freed, *(keys if has_room else ())):
                page = self._pages.get(key)
                if page is not None:
                    self._offer(page)
            return has_room

    def fetch(self, keys: Sequence[bytes]) -> int:
        """Read what is on disk of a chain into memory; waits for the disk. Returns: how many pages that were."""
        n_before = self.n_resident(keys)
        taken = keys[: len(self.acquire(keys))] if n_before < self.n_known(keys) else ()
        self.release(taken)
        n_fetched = max(0, len(taken) - n_before)
        with self._changed:
            self._n_fetched += n_fetched
        return n_fetched

    def page_out(self, keys: Sequence[bytes]) -> int:
        """Write what is in memory only to disk, so that evicting it will take no time. Returns: how many pages that were."""
        missing = [
            key
            for key in keys
            if self._files is not None and key not in self._files and self._is_worth_a_file(key)
        ]
        n_written = sum(self._write_out(key) for key in missing)
        with self._changed:
            self._n_paged_out += n_written
        return n_written

    # --- eviction ------------------------------------------------------------------------------------------------

    def _use(self, key: bytes, parent: bytes | None) -> Page | None:
        """A page that stays in memory until it is released; None if it is not known or there is no frame for it."""
        with self._changed:
            page = self._find_filled(key)
            if page is None and self._files is not None and key in self._files:
                page = self._seat(key, parent)
                if page is not None:
                    return self._read(page, self._files)
                page = self._find_filled(key)  # another thread may have brought it meanwhile
            if page is None:
                self._n_misses += 1
                return None
            page.n_readers += 1
            self._note_use(page)
            self._n_hits += 1
            return page

    def _read(self, page: Page, files: PageFiles) -> Page | None:
        """Fill a new page from disk, for one reader."""
        page.n_readers, page.is_filled = 1, False
        with self._unlocked():
            is_read = files.read(page.key, self._frames[page.frame])
        self._changed.notify_all()
        if not is_read:
            self._drop(page)
            self._n_misses += 1
            return None
        page.is_filled = True
        self._note_use(page)
        self._n_hits += 1
        return page

    def _seat(self, key: bytes, parent: bytes | None) -> Page | None:
        """Give a new page a frame, evicting another if need be; None if it is there by then, or there is no frame."""
        above = self._find_filled(parent) if parent is not None else None
        if parent is not None and not self._is_known(parent):
            return None  # nobody could find it behind a parent that is gone
        if above is not None:
            above.n_readers += 1  # it must not be the victim
        frame = self._take_frame()
        if above is not None:
            above.n_readers -= 1
        if frame is not None and key not in self._pages:
            page = self._pages[key] = Page(key, parent, frame, above.depth + 1 if above else 0)
            if above is not None:
                page.is_linked = True
                above.n_children += 1
            return page
        if frame is not None:
            self._frames.give_back(frame)
        if above is not None:
            self._offer(above)
        return None

    def _find_filled(self, key: bytes) -> Page | None:
        """A page in memory, once it is filled if another thread is reading it."""
        while (page := self._pages.get(key)) is not None and not page.is_filled:
            self._changed.wait()
        return page

    def _take_frame(self) -> int | None:
        """A free frame; the page that is least worth keeping leaves for it."""
        refused: list[Page] = []
        frame = self._frames.take()
        while frame is None and len(refused) < MAX_REFUSALS:
            victim = self._find_victim()
            if victim is None:
                break
            if self._evict(victim):
                frame = self._frames.take()
            else:
                refused.append(victim)
        for page in refused:
            if self._pages.get(page.key) is page:
                self._offer(page)
        return frame

    def _find_victim(self) -> Page | None:
        while self._heap:
            rank, key = heapq.heappop(self._heap)
            page = self._pages.get(key)
            if page is None or page.n_readers + page.n_children:
                continue
            if self._rank(page) == rank:
                return page
        return None

    def _evict(self, page: Page) -> bool:
        """Take a page out of memory, by way of the disk if there is one. Returns: False if it has to stay."""
        is_on_disk = self._is_worth_a_file(page.key) and self._write(page)
        if page.n_readers or page.n_children:
            return False  # somebody came for it while it was written
        if page.key in self._pins and not is_on_disk:
            return False
        self._age = max(self._age, page.worth)
        self._drop(page)
        self._n_evicted += 1
        return True

    def _write(self, page: Page) -> bool:
        """Have a page on disk. Returns: whether it is."""
        if self._files is None:
            return False
        if page.key in self._files:
            return True
        page.n_readers += 1
        with self._unlocked():
            is_written = self._files.write(page.key, page.parent, self._frames[page.frame])
        page.n_readers -= 1
        if is_written and not self._is_worth_a_file(page.key):  # it was let go meanwhile
            self._files.remove(page.key)
            return False
        return is_written

    def _write_out(self, key: bytes) -> bool:
        """Have a page on disk that may be in memory. Returns: whether it is."""
        with self._changed:
            page = self._find_filled(key)
            if page is None:
                return self._files is not None and key in self._files
            is_written = self._write(page)
            self._offer(page)
            return is_written

    def _drop(self, page: Page) -> None:
        del self._pages[page.key]
        self._frames.give_back(page.frame)
        if page.is_linked and page.parent is not None:
            above = self._pages[page.parent]
            above.n_children -= 1
            self._offer(above)

    def _dismiss(self, freed: Sequence[bytes]) -> None:
        """Drop tails that nobody pins any more: a sequence that went on has no use for where it was."""
        for key in freed:
            if is_tail(key):
                page = self._pages.get(key)
                if page is not None and not page.n_readers:
                    self._drop(page)
                if self._files is not None and key in self._files:
                    self._files.remove(key)

    def _offer(self, page: Page) -> None:
        """Let a page be evicted if nothing holds it."""
        if page.n_readers or page.n_children:
            return
        heapq.heappush(self._heap, (self._rank(page), page.key))
        if len(self._heap) > 4 * len(self._pages) + 64:
            idle = [page for page in self._pages.values() if not page.n_readers + page.n_children]
            self._heap = sorted((self._rank(page), page.key) for page in idle)

    def _rank(self, page: Page) -> Rank:
        return (page.key in self._expected, page.worth)

    def _note_use(self, page: Page) -> None:
        """Raise the worth of a page: the age at which it was used last, and its uses times what it costs to compute.

        A tail is worth its tokens, and no more for being used: who used it has gone on from there.
        """
        cost = 1 + page.depth * self._page_tokens / DEPTH_OF_DOUBLE_COST
        if is_tail(page.key):
            page.worth = self._age + cost * page.key[-1] / self._page_tokens
            return
        page.n_uses += 1
        page.worth = self._age + page.n_uses * cost

    def _is_known(self, key: bytes) -> bool:
        return key in self._pages or (self._files is not None and key in self._files)

    def _is_worth_a_file(self, key: bytes) -> bool:
        return not is_tail(key) or key in self._pins

    @contextmanager
    def _unlocked(self) -> Iterator[None]:
        """Let others in while this thread waits for the disk; the page that it works on has a reader meanwhile."""
        self._changed.release()
        try:
            yield
        finally:
            self._changed.acquire()

    # --- what it holds -------------------------------------------------------------------------------------------

    def statistics(self) -> PageStatistics:
        """Counters; cheap but for the pages in use and pinned, which are counted."""
        files = self._files
        with self._changed:
            return PageStatistics(
                page_bytes=self.page_bytes,
                n_frames=self._frames.n_max,
                n_resident=len(self._pages),
                n_in_use=sum(page.n_readers > 0 for page in self._pages.values()),
                n_pinned=self._pins.n_keys,
                n_pins=len(self._pins),
                n_expected=self._expected.n_keys,
                n_on_disk=0 if files is None else len(files),
                n_added=self._n_added,
                n_hits=self._n_hits,
                n_misses=self._n_misses,
                n_evicted=self._n_evicted,
                n_read_from_disk=0 if files is None else files.n_read,
                n_fetched=self._n_fetched,
                n_paged_out=self._n_paged_out,
                n_damaged=0 if files is None else files.n_damaged,
                n_failed_writes=0 if files is None else files.n_failed_writes,
            )

    def check_invariants(self) -> None:
        """Raise AssertionError if a page is lost, doubled, or could be evicted while it is needed."""
        frames = [page.frame for page in self._pages.values()]
        assert len(frames) == len(set(frames)), "two pages share a frame"
        assert len(frames) + self._frames.n_free == self._frames.n_allocated, "a frame is lost"
        children: dict[bytes, int] = {}
        for page in self._pages.values():
            if page.parent is not None and page.is_linked:
                assert page.parent in self._pages, "a page has lost its parent"
                children[page.parent] = children.get(page.parent, 0) + 1
        offered = set(self._heap)
        for page in self._pages.values():
            assert page.n_readers >= 0
            assert page.n_children == children.get(page.key, 0), "children are counted wrong"
            is_idle = not page.n_readers and not page.n_children
            if is_idle:
                assert (self._rank(page), page.key) in offered, "a page can never be evicted"
        self._pins.check_invariants()
        self._expected.check_invariants()
        assert self._expected.n_keys <= MAX_EXPECTED_SHARE * self._frames.n_max
