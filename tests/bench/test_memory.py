"""The `memory` bench brings every row; only what is counted is judged here."""

import pytest
from tests.bench.measuring import measured

from aios.bench.memory import BENCH

pytestmark = pytest.mark.anyio


async def test_every_row_comes_and_the_counts_clear_their_bars() -> None:
    rows = await measured(BENCH)
    assert set(rows) == {spec.row for spec in BENCH.specs}
    assert all(row.value and row.value > 0 for row in rows.values())
    assert rows["faults"].ok
    assert rows["block"].ok
