"""Many contexts with real pages: forks of a shared head whose KV rows are kept in memory and on disk.

No model computes here, but a page has the size that the default model's has, and bytes that follow from its name, so that one which
comes back altered, or is another's, is noticed. Every context has the head of all, the rules of its role and a page of its own.
First each is begun, as an engine does it: look up, take what is there, compute the rest. Then all are resumed, in another order;
most of what is their own has gone to disk by then. A page is computed twice when it had to be computed though it was before.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from time import perf_counter

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from aios.engine.llama.kvstate import PAGE_TOKENS
from aios.kernel.context.files import PageFiles
from aios.kernel.context.frames import Bytes
from aios.kernel.context.pages import PageStore

ROW_BYTES, N_LAYERS = 384, 30
"""Of the default model, for keys and for values."""
PAGE_BYTES = PAGE_TOKENS * 2 * N_LAYERS * ROW_BYTES
HEAD_TOKENS, ROLE_TOKENS, OWN_TOKENS = 768, 64, 32
N_ROLES = 20
N_ROUNDS = 15
SMALL_PAGE_BYTES = 64
"""Of pages that are only named and found."""
RAM_BYTES, DISK_BYTES = 256 << 20, 4 << 30


class Crowd(Struct, frozen=True):
    """How many contexts, and how large pages and tiers are."""

    n_contexts: int = 2000
    n_first: int = 250
    """So many are in the store against which a look-up is measured."""
    page_bytes: int = PAGE_BYTES
    ram_bytes: int = RAM_BYTES


@dataclass
class Tally:
    """What was found.

    Args:
        n_distinct: Different pages of all contexts: the least that can be computed.
        n_computed: Pages that were computed.
        n_wrong: Pages whose bytes were not those computed.
        n_from_disk: Pages that were read from disk.
        few_us: To name and find the pages of a context where there are few.
        all_us: The same where all are.
        resume_ms: To have the pages of a context in memory again, by the middle one.
    """

    n_distinct: int = 0
    n_computed: int = 0
    n_wrong: int = 0
    n_from_disk: int = 0
    few_us: float = 0.0
    all_us: float = 0.0
    resume_ms: float = 0.0


def run_contexts(folder: Path, crowd: Crowd) -> Tally:
    """Begin and resume all contexts; the files are in `folder`. Blocks for about half a minute."""
    files = PageFiles(folder, page_bytes=crowd.page_bytes, budget_bytes=DISK_BYTES)
    store = PageStore(
        fingerprint="paper",
        page_tokens=PAGE_TOKENS,
        page_bytes=crowd.page_bytes,
        budget_bytes=crowd.ram_bytes,
        files=files,
    )
    tally, contexts = Tally(), [_tokens(number) for number in range(crowd.n_contexts)]
    distinct: set[bytes] = set()
    for tokens in contexts:
        distinct.update(_take(store, tokens, tally))
    tally.n_distinct = len(distinct)
    few = _few(contexts[: crowd.n_first])
    rounds = [
        (_round_us(few, contexts[: crowd.n_first]), _round_us(store, contexts[-crowd.n_first :]))
        for _ in range(N_ROUNDS)
    ]
    tally.few_us, tally.all_us = map(min, zip(*rounds, strict=True))
    Random(7).shuffle(contexts)  # noqa: S311 - not for secrets
    lasted = []
    for tokens in contexts:
        begun_s = perf_counter()
        _take(store, tokens, tally)
        lasted.append(perf_counter() - begun_s)
    tally.n_from_disk = files.n_read
    tally.resume_ms = 1000 * sorted(lasted)[len(lasted) // 2]
    store.check_invariants()
    return tally


def _tokens(number: int) -> NDArray[np.int32]:
    """The prompt of a context: the head of all, the rules of its role, and its own."""
    role = number % N_ROLES
    parts = (
        np.arange(HEAD_TOKENS),
        1_000_000 + role * ROLE_TOKENS + np.arange(ROLE_TOKENS),
        2_000_000 + number * OWN_TOKENS + np.arange(OWN_TOKENS),
    )
    return np.concatenate(parts).astype(np.int32)


def _take(store: PageStore, tokens: NDArray[np.int32], tally: Tally) -> list[bytes]:
    """Have all pages of a context in memory, computing those that are not known; look at its own and at one of the others."""
    keys = store.keys(tokens)
    pages = store.acquire(keys)
    n_found = len(pages)
    for number in {n_found - 1, sum(keys[-1]) % max(1, n_found)}:
        if n_found and not _is_right(keys[number], pages[number]):
            tally.n_wrong += 1
    store.release(keys[:n_found])
    for number in range(n_found, len(keys)):
        tally.n_computed += 1
        key, parent = keys[number], keys[number - 1] if number else None
        store.add(key, parent, partial(_compute, key))
    return keys


def _compute(key: bytes, page: Bytes) -> None:
    page.reshape(-1, len(key))[:] = np.frombuffer(key, np.uint8)


def _is_right(key: bytes, page: Bytes) -> bool:
    return bool((page.reshape(-1, len(key)) == np.frombuffer(key, np.uint8)).all())


def _few(contexts: list[NDArray[np.int32]]) -> PageStore:
    """A store that knows the pages of these contexts only."""
    n_pages = sum(len(tokens) for tokens in contexts) // PAGE_TOKENS
    store = PageStore(
        fingerprint="paper",
        page_tokens=PAGE_TOKENS,
        page_bytes=SMALL_PAGE_BYTES,
        budget_bytes=n_pages * SMALL_PAGE_BYTES,
    )
    for tokens in contexts:
        _take(store, tokens, Tally())
    return store


def _round_us(store: PageStore, contexts: list[NDArray[np.int32]]) -> float:
    """To name and find the pages of one of these contexts. Of some rounds the quickest counts: others may run meanwhile."""
    begun_s = perf_counter()
    for tokens in contexts:
        keys = store.keys(tokens)
        assert store.n_known(keys) == len(keys)
    return 1e6 * (perf_counter() - begun_s) / len(contexts)
