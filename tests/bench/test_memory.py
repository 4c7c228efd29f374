"""The `memory` bench brings every row; only what is counted is judged here."""

import pytest
from tests.bench.measuring import measured

from aios.bench import crashes, memory
from aios.bench.memory import BENCH

pytestmark = pytest.mark.anyio


COUNTED = ("faults", "block", "private", "kill-9", "power-loss")


@pytest.mark.no_cover
async def test_every_row_comes_and_the_counts_clear_their_bars(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        memory, "N_NOTES", 25_000
    )  # a fiftieth of them; tests of blocks fill theirs
    monkeypatch.setattr(crashes, "N_KILLS_QUICK", 1)
    rows = await measured(BENCH, within_s=180)
    assert set(rows) == {spec.row for spec in BENCH.specs}
    assert all(row.value is not None for row in rows.values())
    assert [rows[name].note for name in COUNTED if not rows[name].ok] == []
