"""The machine at the head of every output."""

from aios import __version__
from aios.bench.machine import machine_row


def test_the_machine_row_names_cores_processor_python_and_versions() -> None:
    row = machine_row()
    assert (row.bench, row.unit, row.ok) == ("machine", "cores", True)
    assert row.value is not None
    assert row.value >= 1
    for part in ("GiB", "Python 3.", f"aios {__version__}", "anyio ", "load average"):
        assert part in row.note
