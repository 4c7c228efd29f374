"""aios budget, and aios run --budget, against a kernel that runs."""

from pathlib import Path

from tests.cli.conftest import Aios, Served

from aios.abi.types import Pid
from aios.sdk.client import Client


def test_limits_are_set_shown_and_lifted(served: Served, aios: Aios) -> None:
    served.admit("bob")
    (about,) = aios("budget", "bob", "calls=3", "completion_tokens=1000", "--json").rows()
    assert about["limits"] == {"calls": 3, "completion_tokens": 1000}
    assert about["on_breach"] == "pause"
    table = [line.split() for line in aios("budget", "bob").out.splitlines()]
    assert ["calls", "3", "0", "0", "3"] in table
    (about,) = aios("budget", "bob", "calls=none", "--on-breach", "fail", "--json").rows()
    assert (about["limits"], about["on_breach"]) == ({"completion_tokens": 1000}, "fail")
    (about,) = aios("budget", "bob", "completion_tokens=+5", "tool_calls=+2", "--json").rows()
    assert about["limits"] == {"completion_tokens": 1005, "tool_calls": 2}
    (about,) = aios("budget", "bob", "written_bytes=1.5MB", "--json").rows()
    (about,) = aios("budget", "bob", "written_bytes=+2KiB", "--json").rows()
    assert about["limits"] == {
        "completion_tokens": 1005,
        "tool_calls": 2,
        "written_bytes": 1_502_048,
    }


def test_a_new_limit_alone_lets_nobody_go_on_which_is_said(served: Served, aios: Aios) -> None:
    pid = served.admit("bob")
    assert "hint" not in aios("budget", "bob", "calls=3").err
    assert aios("stop", "bob").code == 0
    assert aios("budget", "bob").err == ""
    said = aios("budget", "bob", "calls=3").err
    assert said == f"hint: still stopped: bob ({pid}); `aios cont {pid}`\n"
    assert aios("budget", "bob", "calls=4", "--cont").err == ""


def test_so_many_more_without_a_limit_is_more_than_is_spent(served: Served, aios: Aios) -> None:
    pid = served.admit("bob")
    client = Client(served.kernel.gate(Pid(pid)))
    for _ in range(3):
        served.portal.call(client.tools.run, "clock")
    table = [line.split() for line in aios("budget", "bob", "tool_calls=+2").out.splitlines()]
    assert ["tool_calls", "5", "3", "0", "2"] in table


def test_what_is_no_limit_is_refused_with_those_that_are(served: Served, aios: Aios) -> None:
    served.admit("bob")
    for word in (
        "calls",
        "calls=many",
        "money=3",
        "calls=-1",
        "calls=2k",
        "calls=99999999999999999999",
        "written_bytes=2Mb",
    ):
        ran = aios("budget", "bob", word)
        assert ran.code == 2
        assert "completion_tokens" in ran.err
    assert aios("budget", "nobody").code == 4
    assert aios("budget", "1", "calls=3").code == 5


def test_a_program_runs_under_the_budget_of_the_command_line(
    served: Served, aios: Aios, programs: Path
) -> None:
    assert aios("run", "--budget", "calls=7", "--name", "poor", programs / "status", "0").code == 0
    (about,) = aios("budget", "poor", "--json").rows()
    assert about["limits"] == {"calls": 7}
    assert served.kernel.table.n_alive == 1
