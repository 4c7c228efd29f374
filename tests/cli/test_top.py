"""`aios top`, once and live on a terminal."""

import msgspec
from tests.cli.conftest import Aios, Served, Terminals

from aios.cli.table import Snapshot


def test_once_prints_the_table_and_ends(served: Served, aios: Aios) -> None:
    served.admit("bob")
    ran = aios("top", "--once", "--sort", "name")
    assert ran.code == 0
    assert "1 process: 1 waiting" in ran.out.splitlines()[0]
    assert ran.out.splitlines()[1].startswith("local (ScriptedEngine, scripted)  0 of 8 slots")
    assert "bob" in ran.out
    assert "init" not in ran.out


def test_json_is_a_snapshot_a_line(served: Served, aios: Aios) -> None:
    served.admit("bob")
    (line,) = aios("top", "--once", "--json").out.splitlines()
    snapshot = msgspec.json.decode(line, type=Snapshot)
    assert [process.name for process in snapshot.processes] == ["bob"]
    assert snapshot.info.engines[0].n_slots == 8


def test_a_terminal_gets_a_live_table_that_q_ends(served: Served, terminal: Terminals) -> None:
    served.admit("bob")
    live = terminal("top", "--interval", "0.1")
    assert "bob" in live.read_until("q quit")
    live.type("an")
    live.read_until("q quit")
    live.type("q")
    assert live.end().code == 0


def test_an_unknown_order_is_refused(aios: Aios) -> None:
    ran = aios("top", "--sort", "beauty")
    assert ran.code == 2
    assert "ran" in ran.err
