"""aios recover against a kernel that runs; what it decides is tested in tests/kernel/test_programs.py."""

from tests.cli.conftest import Aios, Served


def test_without_questions_there_is_nothing_to_list(served: Served, aios: Aios) -> None:
    served.admit("bob")
    assert aios("recover", "ls").out == ""


def test_nothing_is_asked_about_a_process_that_runs(served: Served, aios: Aios) -> None:
    served.admit("bob")
    ran = aios("recover", "answer", "bob", "again", "--json")
    assert ran.code == 6
    assert "nothing is asked" in str(ran.error()["message"])
    assert aios("kill", "bob").code == 0
    ended = aios("recover", "answer", "bob", "again", "--json")
    assert (ended.code, ended.error()["code"]) == (6, "conflict"), "it is there, and has ended"
