import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.disk.chunks import COARSE, FINE, ChunkSizes, Cutter, cut

SMALL = ChunkSizes(64, 512, 7)
DRAW = random.Random(1)  # noqa: S311 - repeatable on purpose
LONG = DRAW.randbytes((2 << 20) + 12_345)


@given(st.binary(max_size=5_000))
def test_the_chunks_are_the_content_and_keep_their_sizes(data: bytes) -> None:
    chunks = list(cut(data, SMALL))
    assert b"".join(chunks) == data
    assert all(64 <= len(chunk) <= 512 for chunk in chunks[:-1])
    assert all(chunks)


@pytest.mark.parametrize("sizes", [SMALL, FINE, COARSE])
def test_pieces_are_cut_as_the_whole_is(sizes: ChunkSizes) -> None:
    cutter, found, start = Cutter(sizes), [], 0
    while start < len(LONG):
        step = DRAW.randrange(1, 300_000)
        found += cutter.feed(LONG[start : start + step])
        start += step
    assert [*found, *cutter.finish()] == list(cut(LONG, sizes))


def test_an_edit_changes_the_chunks_around_it_only() -> None:
    before = set(cut(LONG, FINE))
    edited = LONG[:700_000] + b"new words" + LONG[700_004:]
    assert len(set(cut(edited, FINE)) - before) <= 2


def test_cuts_do_not_change_between_versions_of_aios() -> None:
    """Stored chunks are found again only if the same content is cut at the same places for ever."""
    lengths = [len(chunk) for chunk in cut(bytes(range(256)) * 40 + LONG[:20_000], FINE)]
    assert sum(lengths) == 30_240
    assert lengths == EXPECTED


EXPECTED = [11353, 1418, 3448, 3054, 8098, 2869]
