from pathlib import Path
from time import perf_counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aios.kernel.context.files import PageFiles
from aios.kernel.context.pages import Bytes, PageStore, page_keys

PAGE_TOKENS = 4
PAGE_BYTES = 64


def keys_of(*tokens: int) -> list[bytes]:
    return page_keys("model", np.array(tokens, np.int32), PAGE_TOKENS)


def content(key: bytes) -> bytes:
    return (key * 4)[:PAGE_BYTES]


def store_of(n_frames: int, files: PageFiles | None = None) -> PageStore:
    return PageStore(
        fingerprint="model",
        page_tokens=PAGE_TOKENS,
        page_bytes=PAGE_BYTES,
        budget_bytes=n_frames * PAGE_BYTES,
        files=files,
    )


def add(store: PageStore, keys: list[bytes]) -> int:
    """Store a chain of pages. Returns: how many are in memory."""

    def write(key: bytes) -> bool:
        def fill(frame: Bytes) -> None:
            frame[:] = np.frombuffer(content(key), np.uint8)

        return store.add(key, keys[keys.index(key) - 1] if keys.index(key) else None, fill)

    n_stored = 0
    for key in keys:
        if not write(key):
            break
        n_stored += 1
    return n_stored


@given(st.lists(st.integers(0, 3), max_size=24), st.lists(st.integers(0, 3), max_size=24))
def test_two_sequences_share_exactly_the_pages_of_their_common_beginning(
    first: list[int], second: list[int]
) -> None:
    n_common = 0
    while n_common < min(len(first), len(second)) and first[n_common] == second[n_common]:
        n_common += 1
    ours, theirs = keys_of(*first), keys_of(*second)
    n_shared = sum(a == b for a, b in zip(ours, theirs, strict=False))
    assert n_shared == n_common // PAGE_TOKENS
    assert len(ours) == len(first) // PAGE_TOKENS


def test_another_model_has_other_pages() -> None:
    tokens = np.arange(8, dtype=np.int32)
    assert not set(page_keys("a", tokens, 4)) & set(page_keys("b", tokens, 4))


def test_the_longest_known_run_is_found_and_pinned() -> None:
    store = store_of(10)
    keys = keys_of(*range(16))
    add(store, keys[:3])
    found = store.acquire(keys)
    assert [page.tobytes() for page in found] == [content(key) for key in keys[:3]]
    assert store.statistics().n_pinned == 3
    store.release(keys[:3])
    assert store.statistics().n_pinned == 0
    assert store.n_known(keys) == 3


def test_a_pinned_page_and_its_ancestors_are_never_evicted() -> None:
    store = store_of(4)
    mine = keys_of(*range(8))
    add(store, mine)
    (_, page) = store.acquire(mine)
    for start in range(100, 2000, 100):
        add(store, keys_of(*range(start, start + 8)))
        store.check_invariants()
    assert page.tobytes() == content(mine[1])
    store.release(mine)


def test_a_store_whose_frames_are_all_pinned_refuses_and_recovers() -> None:
    store = store_of(2)
    mine, other = keys_of(*range(8)), keys_of(*range(50, 54))
    add(store, mine)
    store.acquire(mine)
    assert add(store, other) == 0
    store.release(mine)
    assert add(store, other) == 1
    store.check_invariants()


def test_what_is_used_often_outlives_what_is_used_once() -> None:
    store = store_of(4)
    head = keys_of(1, 1, 1, 1)
    add(store, head)
    for number in range(30):
        store.release(head[: len(store.acquire(head))])
        add(store, keys_of(*[number + 10] * 4))
    assert store.n_known(head) == 1


def test_an_evicted_page_comes_back_from_disk(tmp_path: Path) -> None:
    files = PageFiles(tmp_path, page_bytes=PAGE_BYTES, budget_bytes=1 << 20)
    store = store_of(2, files)
    chains = [keys_of(*range(start, start + 8)) for start in (0, 100, 200)]
    for chain in chains:
        add(store, chain)
    assert store.statistics().n_evicted == 4
    for chain in chains:
        found = store.acquire(chain)
        assert [page.tobytes() for page in found] == [content(key) for key in chain]
        store.release(chain)
        store.check_invariants()


def test_flushed_pages_are_found_by_a_later_store(tmp_path: Path) -> None:
    keys = keys_of(*range(8))
    first = store_of(4, PageFiles(tmp_path, page_bytes=PAGE_BYTES, budget_bytes=1 << 20))
    add(first, keys)
    first.flush()
    later = store_of(4, PageFiles(tmp_path, page_bytes=PAGE_BYTES, budget_bytes=1 << 20))
    assert later.n_known(keys) == 2
    assert [page.tobytes() for page in later.acquire(keys)] == [content(key) for key in keys]


def test_a_damaged_file_costs_its_page_and_no_more(tmp_path: Path) -> None:
    keys = keys_of(*range(12))
    first = store_of(4, PageFiles(tmp_path, page_bytes=PAGE_BYTES, budget_bytes=1 << 20))
    add(first, keys)
    first.flush()
    (path,) = tmp_path.glob(f"*/{keys[1].hex()}.page")
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    later = store_of(4, PageFiles(tmp_path, page_bytes=PAGE_BYTES, budget_bytes=1 << 20))
    assert len(later.acquire(keys)) == 1
    later.check_invariants()


def test_looking_up_a_long_prompt_is_quick() -> None:
    tokens = np.arange(4000, dtype=np.int32)
    store = PageStore(fingerprint="model", page_tokens=32, page_bytes=64, budget_bytes=64 * 200)
    best_s = 1.0
    for _ in range(5):
        start = perf_counter()
        store.acquire(store.keys(tokens))
        best_s = min(best_s, perf_counter() - start)
    assert best_s < 0.001, "the bar is 1 ms for 4,000 tokens"


class AnyUseOfAStore(RuleBasedStateMachine):
    """Whatever is stored, found, pinned and released, pages keep their content and nothing leaks."""

    def __init__(self) -> None:
        super().__init__()
        self.store = store_of(5)
        self.pinned: list[tuple[list[bytes], list[Bytes]]] = []

    @rule(tokens=st.lists(st.integers(0, 2), min_size=4, max_size=20))
    def add(self, tokens: list[int]) -> None:
        add(self.store, keys_of(*tokens))

    @rule(tokens=st.lists(st.integers(0, 2), min_size=4, max_size=20))
    def acquire(self, tokens: list[int]) -> None:
        keys = keys_of(*tokens)
        n_known = self.store.n_known(keys)
        found = self.store.acquire(keys)
        assert len(found) == n_known
        self.pinned.append((keys[: len(found)], found))

    @rule(number=st.integers(0, 10))
    def release(self, number: int) -> None:
        if self.pinned:
            keys, _ = self.pinned.pop(number % len(self.pinned))
            self.store.release(keys)

    @invariant()
    def check(self) -> None:
        self.store.check_invariants()
        for keys, found in self.pinned:
            for key, page in zip(keys, found, strict=True):
                assert page.tobytes() == content(key), "a pinned page was overwritten"


AnyUseOfAStore.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyUseOfAStore = AnyUseOfAStore.TestCase
