"""The `chat-overhead` bench brings every row; how fast it was is not judged here."""

import pytest
from tests.bench.measuring import measured

from aios.bench.chat_overhead import BENCH

pytestmark = pytest.mark.anyio


async def test_every_way_in_is_measured_beside_the_engine_alone() -> None:
    rows = await measured(BENCH)
    assert set(rows) == {spec.row for spec in BENCH.specs}
    for row in rows.values():
        assert row.value is not None
        assert row.baseline is not None
        assert row.value > 0
        assert 0 < row.baseline < 10
        assert "of which the engine" in row.note
