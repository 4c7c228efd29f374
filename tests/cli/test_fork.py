"""aios fork and replay --live-from against a kernel that runs."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios, Served, serving

from aios.abi.journal import Recorded
from aios.abi.types import Pid
from aios.cli.fork import tell_overlaps


def served_asker(programs: Path, aios: Aios) -> str:
    ran = aios("run", "--detach", "--json", programs / "asker")
    assert ran.code == 0, ran.err
    pid = str(ran.rows()[0]["pid"])
    assert aios("wait", pid).code == 0
    return pid


def test_branches_of_an_ended_program_are_compared_with_it(
    home: Path, programs: Path, aios: Aios
) -> None:
    with serving(home, is_durable=True):
        pid = served_asker(programs, aios)
        made = aios("fork", pid, "--at", "0", "--with", "Be brief.", "-n", "2", "--json")
        assert [row["at"] for row in made.rows()] == [0, 0]
        branches = [str(row["pid"]) for row in made.rows()]
        live = aios("replay", "asker", "--live-from", "2", "--json").rows()[0]
        assert live["at"] == 1
        beyond = aios("replay", "asker", "--live-from", "99", "--json").error()
        assert beyond["code"] == "not_found"
        assert "live from call 99" in str(beyond["message"])
        for branch in (*branches, str(live["pid"])):
            assert aios("wait", branch).code == 0
    assert aios("replay", pid, "--diff", str(live["pid"]), "--until", "1").code == 0
    assert aios("replay", pid, "--diff", branches[0], "--json").rows()[0]["n_equal"] == 0


BUSY = """\
from aios.sdk.blocking import connect
with connect() as client:
    print("ready", flush=True)
    while True:
        client.getpid()
"""


def test_several_branches_of_a_living_program_are_from_one_point(
    home: Path, programs: Path, aios: Aios
) -> None:
    (programs / "waiter" / "main.py").write_text(BUSY)
    with serving(home, is_durable=True):
        assert aios("run", "--detach", programs / "waiter").code == 0
        while "ready" not in aios("logs", "waiter").out:
            continue
        made = aios("fork", "waiter", "-n", "3", "--json").rows()
        assert len({row["at"] for row in made}) == 1
        for name in ("waiter", *(str(row["name"]) for row in made)):
            assert aios("kill", name).code == 0


def test_calls_that_were_in_flight_at_the_point_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def record(
        seq: int, begun: float, ended: float, *, within: int = 0, effect: str = "reversible"
    ) -> Recorded:
        return Recorded(Pid(2), seq, "tool_run", effect, "done", begun, ended, within=within)

    both = [record(1, 1.0, 3.0), record(2, 1.1, 3.1), record(3, 2.0, 2.5, within=1)]
    tell_overlaps([*both, record(4, 2.0, 2.2, effect="pure"), record(5, 4.0, 5.0)], 1)
    assert "hint: call 2 had begun before call 1 was done" in capsys.readouterr().err
    tell_overlaps([*both, record(5, 4.0, 5.0)], 3)
    assert capsys.readouterr().err == ""


def test_a_guest_is_not_forked(served: Served, aios: Aios) -> None:
    served.admit("bob")
    assert aios("fork", "bob", "--json").error()["code"] == "conflict"
