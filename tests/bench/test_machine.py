"""The machine at the head of every output."""

import subprocess
import sys
from time import perf_counter

import pytest

from aios import __version__
from aios.bench.machine import OthersMeter, machine_row, others_share


def test_the_machine_row_names_cores_processor_python_and_versions() -> None:
    row = machine_row()
    assert (row.bench, row.unit, row.ok) == ("machine", "cores", True)
    assert row.value is not None
    assert row.value >= 1
    for part in ("GiB", "Python 3.", f"aios {__version__}", "anyio ", "load average"):
        assert part in row.note


@pytest.mark.parametrize(
    ("busy_s", "own_s", "share"),
    [(4.0, 4.0, 0.0), (4.0, 3.0, 0.25), (4.0, 0.0, 1.0), (3.9, 4.0, 0.0), (4.1, 0.0, 1.0)],
)
def test_our_own_work_is_not_that_of_others(busy_s: float, own_s: float, share: float) -> None:
    assert others_share(busy_s=busy_s, own_s=own_s, room_s=4.0) == share


def test_the_work_of_a_child_that_still_runs_is_others() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        meter, begun_s = OthersMeter(), perf_counter()
        try:
            while meter.share() == 0.0 and perf_counter() - begun_s < 10:
                sum(range(1000))
            assert meter.share() > 0.0
        finally:
            child.kill()
