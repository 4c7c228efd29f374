"""Runs a bench as `aios bench --quick` does, for tests that look at what comes, not at how fast it was."""

import anyio

from aios.bench.bench import Bench, Settings
from aios.bench.rows import Report, Row


async def measured(bench: Bench, *, within_s: float = 60) -> dict[str, Row]:
    """The rows of a bench by name."""
    report = Report(bench.specs)
    with anyio.fail_after(within_s):
        await bench.measure(Settings(quick=True, say=lambda _: None), report)
    return {row.row: row for row in report.rows}
