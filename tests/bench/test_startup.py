"""The parts of the `startup` bench take their figures from programs that run and end."""

from pathlib import Path

import anyio
import pytest

from aios.bench.children import daemon, scratch_folder
from aios.bench.rows import Report
from aios.bench.startup import BENCH, _crowd, _ps, _run

pytestmark = pytest.mark.anyio


async def test_commands_and_programs_are_timed_against_a_running_daemon() -> None:
    report = Report(BENCH.specs)
    with anyio.fail_after(60), scratch_folder() as folder:
        async with daemon(folder, {"AIOS_ENGINE_KIND": "none"}) as served:
            await _ps(served, report, folder, 1)
            await _run(served, report, folder, 1)
            os_pid = served.child.process.pid
    rows = {row.row: row for row in report.rows}
    assert set(rows) == {"aios-ps", "first-call", "copies"}
    assert all(row.value and row.value > 0 for row in rows.values())
    assert not Path(f"/proc/{os_pid}").exists()


async def test_the_memory_of_a_crowd_is_measured_in_an_interpreter_of_its_own() -> None:
    report = Report(BENCH.specs)
    with anyio.fail_after(60), scratch_folder() as folder:
        await _crowd("guests", report, folder, n=1_000)
    (row,) = report.rows
    assert row.ok
    assert "RSS" in row.note
