"""The context manager: owns the page stores, one for each model that pages can be cut for.

For now it is mechanism only: engines page prefixes in and out by themselves, through the store that they are given.
"""

from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from aios.config import ContextConfig

if TYPE_CHECKING:
    from aios.engine.base import OpenPages
    from aios.engine.base import PageStore as PageStoreContract
    from aios.kernel.context.pages import PageStatistics, PageStore


class ContextManager:
    """Opens page stores and keeps account of them.

    Args:
        config: Budgets of the tiers.
        folder: Where the disk tier is.
    """

    def __init__(self, config: ContextConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._stores: dict[str, PageStore] = {}

    def open_pages(
        self, *, fingerprint: str, page_tokens: int, page_bytes: int
    ) -> "PageStoreContract":
        """The store for pages of a model; the same one for the same fingerprint."""
        # numpy comes with the `local` extra: only engines that page need it
        from aios.kernel.context.files import PageFiles  # noqa: PLC0415
        from aios.kernel.context.pages import PageStore  # noqa: PLC0415

        name = f"{fingerprint}/{page_tokens}/{page_bytes}"
        store = self._stores.get(name)
        if store is None:
            files = None
            if self._config.disk_bytes:
                digest = blake2b(name.encode(), digest_size=8).hexdigest()
                files = PageFiles(
                    self._folder / digest,
                    page_bytes=page_bytes,
                    budget_bytes=self._config.disk_bytes,
                )
            store = self._stores[name] = PageStore(
                fingerprint=fingerprint,
                page_tokens=page_tokens,
                page_bytes=page_bytes,
                budget_bytes=self._config.ram_bytes,
                files=files,
            )
        return store

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

    def flush(self) -> None:
        """Write all pages to disk, so that the next kernel finds them."""
        for store in self._stores.values():
            store.flush_all()

    def statistics(self) -> "dict[str, PageStatistics]":
        """Counters of each store, by fingerprint."""
        return {name: store.statistics() for name, store in self._stores.items()}
