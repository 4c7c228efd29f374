"""aios fork and replay --live-from against a kernel that runs."""

from pathlib import Path

from tests.cli.conftest import Aios, Served, serving


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


def test_a_guest_is_not_forked(served: Served, aios: Aios) -> None:
    served.admit("bob")
    assert aios("fork", "bob", "--json").error()["code"] == "conflict"
