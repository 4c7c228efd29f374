"""The `budgets` bench brings every row; its counts are judged here, how fast it was is not."""

import pytest
from tests.bench.measuring import measured

from aios.bench.budgets import BENCH

pytestmark = pytest.mark.anyio


async def test_nothing_is_overspent_and_nothing_is_written_after_a_stop_or_kill() -> None:
    rows = await measured(BENCH)
    assert set(rows) == {spec.row for spec in BENCH.specs}
    assert (rows["overspend"].value, rows["effects-after"].value) == (0, 0)
