"""The `paper` bench brings every row, and those that are counts clear their bars."""

import pytest
from tests.bench.measuring import measured

from aios.bench import paper
from aios.bench.paper import BENCH, DEFAULT, SIZES
from aios.kernel.scheduler.policies import POLICIES

pytestmark = pytest.mark.anyio


@pytest.mark.no_cover
async def test_every_row_comes_and_the_counts_clear_their_bars(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paper, "N_ABLATION", 60)
    monkeypatch.setattr(paper, "N_AGENTS", 1_000)  # how long one takes is not judged here
    rows = await measured(BENCH, within_s=120)
    assert set(rows) == {spec.row for spec in BENCH.specs}
    counted = {
        f"sim-makespan-{DEFAULT}",
        "pages",
        "pages-wrong",
        *(f"sim-agent-{n}" for n in SIZES),
    }
    assert {name for name in counted if not rows[name].ok} == set()
    assert "500 of them only" in rows["agent-10000"].note
    without = rows["sim-makespan-memory"].ratio
    assert without is not None
    assert without > 1.2
    assert {name.rpartition("-")[2] for name in rows if name.startswith("sim-wait-")} == {
        "memory",
        "refused",
        *POLICIES,
    }
