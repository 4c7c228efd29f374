import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.memory.blocks import FULL_SHARE, OVERHEAD_BYTES, Block


@given(
    st.integers(0, 20_000),
    st.lists(st.tuples(st.booleans(), st.integers(1, 30), st.integers(0, 3000)), max_size=120),
)
def test_a_block_is_never_over_its_size_and_loses_and_doubles_nothing(
    max_bytes: int, plan: list[tuple[bool, int, int]]
) -> None:
    block, n_faults = Block(max_bytes), 0
    resident: dict[int, bytes] = {}
    for is_read, record, size in plan:
        if is_read:
            found = block.find(record)
            n_faults += found is None
            assert found == resident.get(record)
        else:
            resident.setdefault(record, bytes(size))
            for left in block.put(record, bytes(size)):
                del resident[left]
        assert len(block) == len(resident)
        assert all(record in block for record in resident)
        assert block.size_bytes <= max_bytes * FULL_SHARE
        block.check_invariants()
    assert block.n_faults == n_faults


def test_what_was_used_once_leaves_before_what_was_used_twice() -> None:
    block = Block(int(3 * (OVERHEAD_BYTES + 100) / FULL_SHARE) + 1)
    for record in (1, 2, 3):
        assert block.put(record, bytes(100)) == ()
    assert block.find(1) is not None
    assert block.put(4, bytes(100)) == (2,)
    assert block.put(5, bytes(100)) == (3,)
    assert 1 in block


def test_a_record_that_comes_back_is_not_new() -> None:
    block = Block(int(2 * (OVERHEAD_BYTES + 1000) / FULL_SHARE) + 1)
    for record in (1, 2, 3):
        block.put(record, bytes(1000))
    assert block.find(1) is None
    block.put(1, bytes(1000))  # its second use
    block.put(4, bytes(1000))
    block.put(5, bytes(1000))
    assert 1 in block


def zipf_faults(k: int, *, seed: int) -> int:
    """Faults of a block of 1 MB that reads 10,000 records of 500 bytes with Zipf-like frequencies."""
    chance, block = random.Random(seed), Block(1 << 20, k=k)  # noqa: S311 - a pattern of reads, no secret
    records = list(range(10_000))
    chance.shuffle(records)
    weights = [1 / rank for rank in range(1, len(records) + 1)]
    for record in chance.choices(records, weights, k=50_000):
        if block.find(record) is None:
            block.put(record, bytes(500))
    block.check_invariants()
    return block.n_faults


@pytest.mark.no_cover
def test_a_zipf_like_pattern_faults_less_than_with_plain_lru() -> None:
    for seed in (1, 2):
        lru_k, lru = zipf_faults(2, seed=seed), zipf_faults(1, seed=seed)
        assert lru_k < 0.95 * lru, f"{lru_k} faults against {lru}"


@pytest.mark.parametrize("n_bytes", [10, 500])
@pytest.mark.no_cover
def test_a_hundred_thousand_records_take_no_more_memory_than_the_block(n_bytes: int) -> None:
    """By what the interpreter has really allocated, not by the block's own count."""
    max_bytes = 1 << 20
    tracemalloc.start()
    try:
        begin_bytes, _ = tracemalloc.get_traced_memory()
        block = Block(max_bytes)
        for record in range(1, 100_001):
            block.put(record, bytes(n_bytes))
            if record % 3 == 0:
                block.find(record - record % 7)
        used_bytes = tracemalloc.get_traced_memory()[0] - begin_bytes
    finally:
        tracemalloc.stop()
    block.check_invariants()
    assert 0.4 * max_bytes < used_bytes <= max_bytes
