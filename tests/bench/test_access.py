import pytest

from aios.bench.access import BENCH, N_POLICIES, policies_text
from aios.bench.bench import Settings
from aios.bench.rows import Report
from aios.kernel.access.policy import Policies, Source

pytestmark = pytest.mark.anyio


async def test_each_row_is_measured_and_a_known_request_is_far_cheaper() -> None:
    report = Report(BENCH.specs)
    await BENCH.measure(Settings(quick=True, say=lambda _: None), report)
    values = {row.row: row.value for row in report.rows}
    assert set(values) == {spec.row for spec in BENCH.specs}
    cached, uncached = values["cached"], values["uncached"]
    assert cached is not None
    assert uncached is not None
    assert cached * 3 < uncached


def test_there_are_as_many_policies_as_the_rows_say() -> None:
    assert len(Policies([Source("bench", policies_text(N_POLICIES))]).names) == N_POLICIES
