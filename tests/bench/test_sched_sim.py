"""The `sched-sim` bench: every row comes, and the bars that its policies promise are cleared."""

from pathlib import Path

import pytest
from tests.bench.measuring import measured
from tests.bench.pages import printed_by

from aios.bench import sched_sim
from aios.bench.sched_sim import BENCH, FIGURES, REPLAYED, bench_of, policies_of, table
from aios.bench.sched_traces import make_workload
from aios.errors import InvalidCall, NotFound
from aios.kernel.scheduler.policies import POLICIES
from aios.kernel.scheduler.trace import encode_trace

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "choosing-a-policy.md"

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.no_cover,
]  # traced, the simulator takes three times as long


@pytest.fixture(autouse=True)
def _fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast the simulator is depends on the machine and is not judged here."""
    monkeypatch.setattr(sched_sim, "N_MANY", 500)


async def test_every_row_comes_and_those_without_a_clock_clear_their_bars() -> None:
    rows = await measured(BENCH)
    assert list(rows) == [spec.row for spec in BENCH.specs]
    missed = {name for name, row in rows.items() if not row.ok}
    assert missed <= {"speed"}, "the one row that depends on the machine"
    assert rows["flood-fair"].ratio is not None
    assert rows["flood-fair"].ratio < 0.1


async def test_one_policy_is_measured_against_fifo() -> None:
    rows = await measured(bench_of("edf"))
    assert {name.rpartition("-")[2] for name in rows} == {"edf", "read", "admission", "speed"}
    assert rows["deadlines-edf"].baseline
    assert rows["deadlines-edf"].ratio is not None
    assert rows["deadlines-edf"].ratio < 0.5


async def test_a_recorded_trace_is_replayed(tmp_path: Path) -> None:
    trace = tmp_path / "crowd.jsonl"
    trace.write_bytes(encode_trace(make_workload("tools")[:20]))
    rows = await measured(bench_of("all", trace))
    assert set(rows) == {f"{name}-{policy}" for name in REPLAYED for policy in POLICIES}
    assert rows["makespan-fifo"].ratio == 1.0


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="lottery"):
        policies_of("lottery")
    trace = tmp_path / "crowd.jsonl"
    trace.write_text("nonsense\n")
    with pytest.raises(InvalidCall, match="line 1"):
        bench_of("all", trace)


def test_the_table_has_a_line_for_each_figure_and_a_column_for_each_policy() -> None:
    heading, _, *lines = table(["heavy-tail"]).splitlines()
    assert heading.count("|") == len(POLICIES) + 2
    assert [FIGURES["heavy-tail"].about in line for line in lines] == [True]


def test_the_page_on_choosing_a_policy_has_the_figures_of_the_simulator() -> None:
    made = printed_by("aios.bench.sched_sim")
    assert made in PAGE.read_text(encoding="utf-8"), "see its command to make the table again"
