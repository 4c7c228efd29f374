"""aios checkpoint and restore against a kernel that runs."""

from pathlib import Path

from tests.cli.conftest import Aios, Served, serving


def test_a_process_is_put_away_listed_restored_and_forgotten(
    home: Path, programs: Path, aios: Aios
) -> None:
    with serving(home, is_durable=True):
        ran = aios("run", "--detach", "--json", programs / "asker")
        pid = str(ran.rows()[0]["pid"])
        assert aios("wait", pid).code == 0
        assert aios("checkpoint", pid, "--name", "done").out.startswith("checkpoint ")
        assert aios("checkpoint", pid, "--name", "done", "--json").error()["code"] == "conflict"
        (row,) = aios("checkpoint", "ls", "--json").rows()
        assert (row["name"], row["process"]) == ("done", "asker")
        assert "done" in aios("checkpoint", "ls").out
        back = aios("restore", "done", "--json").rows()[0]
        assert (back["name"], back["is_in_place"]) == ("asker", True)
        assert aios("wait", str(back["pid"])).code == 0
        other = aios("restore", str(row["id"]), "--name", "second")
        assert "in a folder of its own" in other.out
        assert aios("checkpoint", "rm", "done").code == 0
        assert aios("restore", "done", "--json").error()["code"] == "not_found"


def test_a_guest_is_not_put_away(served: Served, aios: Aios) -> None:
    served.admit("bob")
    assert aios("checkpoint", "bob", "--json").error()["code"] == "conflict"
