"""The `syscalls` bench brings every row; how fast it was is not judged here."""

import pytest
from tests.bench.measuring import measured

from aios.bench.syscalls import BENCH

pytestmark = pytest.mark.anyio


async def test_every_kind_of_call_is_measured() -> None:
    rows = await measured(BENCH)
    assert set(rows) == {spec.row for spec in BENCH.specs}
    assert all(row.value and row.value > 0 for row in rows.values())
    spawned = rows["spawn-wait"]
    assert spawned.baseline is not None
    assert spawned.baseline > 1
