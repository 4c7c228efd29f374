"""The `sim` bench brings every row; that nothing breaks is judged here, how fast it was is not."""

import pytest
from tests.bench.measuring import measured

from aios.bench.sim import BENCH

pytestmark = pytest.mark.anyio


@pytest.mark.no_cover
async def test_seeds_and_points_are_run_and_nothing_breaks() -> None:
    rows = await measured(BENCH)
    assert set(rows) == {spec.row for spec in BENCH.specs}
    assert (rows["broken"].value, rows["crash-points"].value) == (0, 100)
    assert (rows["faults"].value or 0) > 20
