"""The `tools` bench brings every row, on small loads; only what is counted is judged here."""

import pytest
from tests.bench.measuring import measured

from aios.bench import tools
from aios.bench.tools_load import LoadShape

pytestmark = pytest.mark.anyio


async def test_every_row_comes_and_no_update_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    small = LoadShape(n_agents=4, n_turns=3)
    for name, value in {"SHAPE": small, "IN_TURNS": small, "TOOL_S": 0.01}.items():
        monkeypatch.setattr(tools, name, value)
    monkeypatch.setattr(tools, "N_RUNS_QUICK", 20)
    monkeypatch.setattr(tools, "N_CALLS_QUICK", 20)
    rows = await measured(tools.BENCH)
    assert set(rows) == {spec.row for spec in tools.BENCH.specs}
    assert all(row.value is not None for row in rows.values())
    assert rows["lost"].value == 0
    lost = rows["lost-unclaimed"].value
    assert lost is not None
    assert lost > 0, "or nothing could be seen"
