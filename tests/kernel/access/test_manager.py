import pytest

from aios.abi.types import Kind, Right
from aios.errors import AccessDenied
from aios.kernel.access.manager import AccessManager
from aios.kernel.clock import SystemClock
from aios.kernel.process import Process
from aios.kernel.process_table import ProcessTable


@pytest.fixture
def table() -> ProcessTable:
    table = ProcessTable(clock=SystemClock(), max_alive=99, max_exited=9, max_log_bytes=1 << 16)
    table.add("init", kind=Kind.INIT, parent=None, rights=frozenset(Right), owner="me")
    return table


def add(table: ProcessTable, parent: Process, *rights: Right) -> Process:
    return table.add("p", kind=Kind.TASK, parent=parent, rights=frozenset(rights), owner="me")


def test_a_right_that_was_not_granted_is_denied_by_name(table: ProcessTable) -> None:
    process = add(table, next(iter(table)), Right.LOG)
    access = AccessManager(table)
    access.check(process, Right.LOG)
    with pytest.raises(AccessDenied, match=r"no right `model\.use`"):
        access.check(process, Right.MODEL)
    assert access.statistics() == {"n_checks": 2, "n_denied": 1}


def test_a_process_reaches_itself_and_its_descendants_and_nobody_else(table: ProcessTable) -> None:
    init = next(iter(table))
    parent = add(table, init, Right.SIGNAL)
    child = add(table, parent, Right.SIGNAL)
    grandchild = add(table, child, Right.SIGNAL)
    stranger = add(table, init, Right.SIGNAL)
    access = AccessManager(table)
    for target in (parent, child, grandchild):
        access.check(parent, Right.SIGNAL, target)
    for target in (init, stranger):
        with pytest.raises(AccessDenied, match=r"may not use `process\.signal`"):
            access.check(parent, Right.SIGNAL, target)
    access.check(init, Right.SIGNAL, stranger)
    with pytest.raises(AccessDenied):
        access.check(child, Right.SIGNAL, parent)
