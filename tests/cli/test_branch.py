"""aios branch against a kernel that runs."""

from pathlib import Path

from tests.cli.conftest import Aios, Served, serving


def test_branches_are_started_listed_committed_and_discarded(
    home: Path, programs: Path, aios: Aios
) -> None:
    with serving(home, is_durable=True):
        ran = aios("run", "--detach", "--json", programs / "asker")
        pid = str(ran.rows()[0]["pid"])
        assert aios("wait", pid).code == 0
        made = aios("branch", "start", pid, "-n", "2")
        assert made.out.splitlines()[0] == "group 1"
        joined = aios("branch", "join", "1")
        assert "none is committed yet" in joined.out
        assert "asker-branch-2" in joined.out
        assert "open" in aios("branch", "ls").out
        done = aios("branch", "commit", "asker-branch-2", "--json").rows()[0]
        assert isinstance(done["winner"], int)
        assert len(aios("branch", "ls", "--json").rows()) == 0
        (row,) = aios("branch", "ls", "--all", "--json").rows()
        assert (row["state"], row["winner"]) == ("committed", done["winner"])
        assert aios("branch", "join", "1").out.startswith(f"committed {done['winner']}")
        assert aios("branch", "discard", "1", "--json").error()["code"] == "conflict"
        two = aios("branch", "start", pid, "--with", "Be brief.", "--json").rows()[0]
        gone = aios("branch", "discard", str(two["group"]))
        assert gone.out.startswith("discarded")


def test_what_is_no_branch_is_not_committed(served: Served, aios: Aios) -> None:
    served.admit("bob")
    assert aios("branch", "commit", "bob", "--json").error()["code"] == "not_found"
