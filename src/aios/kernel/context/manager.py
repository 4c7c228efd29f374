"""The context manager: owns the page stores, one for each model that pages can be cut for.

Engines page prefixes in and out by themselves, through the store that they are given; snapshots pin what they will need.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from msgspec.structs import asdict

from aios.abi.pages import Pages, PageStoreInfo, PageStores
from aios.abi.types import PagesHeld, Pid
from aios.config import ContextConfig
from aios.kernel.context.pins import PINS, Pins, pin_path
from aios.kernel.process import Run

if TYPE_CHECKING:
    from aios.engine.base import OpenPages
    from aios.engine.base import PageStore as PageStoreContract
    from aios.kernel.context.page import PageStatistics
    from aios.kernel.context.pages import PageStore

UNUSED_S = 14 * 86_400.0
"""After so long without its model the pages of a store go from the disk; the model may run no more."""


class ContextManager:
    """Opens page stores and keeps account of them.

    Args:
        config: Budgets of the tiers.
        folder: Where the disk tier is.
        is_wanted: Whether somebody still comes back to what an earlier kernel pinned under this name.
    """

    def __init__(
        self,
        config: ContextConfig,
        folder: Path,
        is_wanted: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._config = config
        self._folder = folder
        self._is_wanted = is_wanted
        self._stores: Mapping[str, PageStore] = {}
        """Replaced, never changed: others look through it while an engine is loaded."""
        self._opening = Lock()

    def open_pages(
        self, *, fingerprint: str, page_tokens: int, page_bytes: int
    ) -> "PageStoreContract":
        """The store for pages of a model; the same one for the same fingerprint. Called by the engines' threads."""
        with self._opening:
            return self._opened(fingerprint, page_tokens, page_bytes)

    def _opened(self, fingerprint: str, page_tokens: int, page_bytes: int) -> "PageStoreContract":
        # numpy comes with the `local` extra: only engines that page need it
        from aios.kernel.context.files import PageFiles  # noqa: PLC0415
        from aios.kernel.context.pages import PageStore  # noqa: PLC0415

        name = f"{fingerprint}/{page_tokens}/{page_bytes}"
        store = self._stores.get(name)
        if store is None:
            files = None
            if self._config.disk_bytes:
                files = PageFiles(
                    self._folder_of(name),
                    page_bytes=page_bytes,
                    budget_bytes=self._config.disk_bytes,
                )
            store = PageStore(
                fingerprint=fingerprint,
                page_tokens=page_tokens,
                page_bytes=page_bytes,
                budget_bytes=self._config.ram_bytes,
                files=files,
            )
            store.keep_pins(self._is_wanted)
            self._stores = {**self._stores, name: store}
            if files is not None:
                self._remove_unused(self._folder_of(name))
        return store

    def _remove_unused(self, opened: Path) -> None:
        """Note when a folder of pages was opened last, which is now, and empty those that were not for long."""
        # numpy, as above
        from aios.kernel.context.files import remove_unused  # noqa: PLC0415

        with suppress(OSError):
            opened.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.utime(opened)
            before_unix_s = opened.stat().st_mtime - UNUSED_S
            in_use = {self._folder_of(each) for each in self._stores}
            for folder in self._folder.iterdir():
                if folder in in_use or folder.stat().st_mtime >= before_unix_s:
                    continue
                pins = Pins(folder / PINS)
                for name in pins.names():
                    if not self._is_wanted(name):
                        pins.drop(name)
                remove_unused(folder, pins, before_unix_s=before_unix_s)

    @property
    def find_opener(self) -> "OpenPages | None":
        """What engines open their store with; None when paging is switched off."""
        return self.open_pages if self._config.ram_bytes else None

    def find_room_tokens(self, fingerprint: str) -> int | None:
        """How many tokens of a model can be kept outside its engine's slots; None if it has no pages."""
        n_bytes = self._config.ram_bytes + self._config.disk_bytes
        for name in self._stores:
            whose, page_tokens, page_bytes = name.rsplit("/", 2)
            if whose == fingerprint:
                return n_bytes // int(page_bytes) * int(page_tokens)
        return None

    def pin(self, fingerprint: str, name: str, keys: Sequence[bytes]) -> int:
        """Keep pages of a model on disk until `unpin(name)`, whatever ends meanwhile; waits for the disk.

        What the name pinned before, of any model, is let go. What the disk does not take is not kept: it would hold memory
        that nobody could ever free.

        Returns: How many from the start will be there; none if nothing is paged for that model.
        """
        n_kept = 0
        for each, store in tuple(self._stores.items()):
            n_pinned = 0
            if keys and each.rsplit("/", 2)[0] == fingerprint:
                n_pinned = store.pin(name, keys, synced=True)
                if 0 < n_pinned < len(keys):
                    n_pinned = store.pin(name, keys[:n_pinned], synced=True)
            if not n_pinned:
                store.unpin(name)
            n_kept = max(n_kept, n_pinned)
        self._unpin_closed(name)
        return n_kept

    def unpin(self, name: str) -> None:
        """Let go what a name pins, of any model, also of one that does not run here now; waits for the disk."""
        for store in tuple(self._stores.values()):
            store.unpin(name)
        self._unpin_closed(name)

    def _unpin_closed(self, name: str) -> None:
        """Let go what a name pins of models that do not run here now."""
        opened = {self._folder_of(each) for each in self._stores}
        for folder in self._folder.glob(f"*/{PINS}"):
            if folder.parent not in opened:
                with suppress(OSError):
                    pin_path(folder, name).unlink(missing_ok=True)

    def find_store(self, fingerprint: str) -> "PageStore | None":
        """The store of a model; None if nothing is paged for it."""
        for name, store in self._stores.items():
            if name.rsplit("/", 2)[0] == fingerprint:
                return store
        return None

    def flush(self) -> None:
        """Write all pages to disk, so that the next kernel finds them, and note that they were in use until now."""
        for name, store in self._stores.items():
            store.flush_all()
            with suppress(OSError):
                os.utime(self._folder_of(name))

    async def pages(self, _: Run, __: Pages) -> PageStores:
        """What the stores hold."""
        return PageStores(tuple(self._info(name, store) for name, store in self._stores.items()))

    def held_pages(self, pages: Mapping[Pid, Sequence[bytes]]) -> dict[Pid, PagesHeld]:
        """Where the pages of processes are, and how many each shares with others. Cost: 0.3 us a page."""
        if not self._stores:
            return {}
        counts = Counter(key for keys in pages.values() for key in set(keys))
        return {pid: self._held(keys, counts) for pid, keys in pages.items() if keys}

    def _folder_of(self, name: str) -> Path:
        """Where the files of a store are."""
        return self._folder / blake2b(name.encode(), digest_size=8).hexdigest()

    def _held(self, keys: Sequence[bytes], counts: Mapping[bytes, int]) -> PagesHeld:
        """Only an unbroken run from the start is of use, in whichever store it is."""
        n_known, store = max(
            ((store.n_known(keys), store) for store in self._stores.values()),
            key=lambda found: found[0],
        )
        n_in_memory = min(n_known, store.n_resident(keys))
        n_shared = sum(counts[key] > 1 for key in keys)
        return PagesHeld(len(keys), n_in_memory, n_known - n_in_memory, n_shared)

    def _info(self, name: str, store: "PageStore") -> PageStoreInfo:
        numbers = asdict(store.statistics())
        fingerprint, page_tokens, _ = name.rsplit("/", 2)
        return PageStoreInfo(
            fingerprint=fingerprint,
            page_tokens=int(page_tokens),
            budget_bytes=self._config.ram_bytes,
            disk_budget_bytes=self._config.disk_bytes,
            **numbers,
        )

    def statistics(self) -> "dict[str, PageStatistics]":
        """Counters of each store, by fingerprint."""
        return {name: store.statistics() for name, store in self._stores.items()}
