"""aios approvals against a kernel that runs; what the answers mean is tested in tests/kernel/approvals."""

import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from tests.cli.conftest import Aios, Served, Terminals
from tests.kernel.test_resume import daemon, owner
from tests.kernel.tools.offering import idle

from aios.abi.budget import Limits
from aios.abi.recovery import Restart
from aios.kernel.taint import mark
from aios.sdk.client import Client


def ask(served: Served, *choices: str, question: str = "Which colour?") -> Future[str]:
    """A process that asks something."""

    async def run() -> str:
        gate = served.kernel.gate(served.kernel.spawn_task("bob", idle))
        return (await Client(gate).approvals.ask(question, choices=choices)).text

    return served.portal.start_task_soon(run)


def wait_open(aios: Aios) -> dict[str, object]:
    end_s = time.monotonic() + 20
    while not (found := aios("approvals", "ls", "--json").rows()):
        assert time.monotonic() < end_s, "nothing was asked"
        time.sleep(0.02)  # noqa: TID251 - another thread is waited for
    return found[0]


def test_questions_are_listed_shown_answered_and_taken_back(served: Served, aios: Aios) -> None:
    assert aios("approvals", "ls").out == ""
    assert aios("approvals").out == "", "without a terminal it lists"
    answer = ask(served, "red", "blue")
    row = wait_open(aios)
    number = str(row["id"])
    assert (row["why"], row["choices"], row["state"]) == ("Which colour?", ["red", "blue"], "open")
    assert "answers: red blue" in aios("approvals", "show", number).out
    assert "Which colour?" in aios("approvals", "ls").out
    wrong = aios("approvals", "answer", number, "green", "--json")
    assert (wrong.code, wrong.error()["code"]) == (2, "invalid_call")
    said = aios("approvals", "answer", number, "blue")
    assert said.out == f"question {number} of bob is answered: blue\n"
    assert answer.result(20) == "blue"
    assert aios("approvals", "allow", number, "--json").code == 6
    assert aios("approvals", "deny", "99").code == 4
    over = aios("approvals", "ls", "--all", "--json").rows()[0]
    assert (over["state"], over["said"]) == ("used", "blue")
    assert aios("approvals", "revoke", number).code == 6


def test_that_and_where_data_came_from_outside_is_shown(served: Served, aios: Aios) -> None:
    async def run(*, is_tainted: bool) -> str:
        process = served.kernel.table.get(served.kernel.spawn_task("bob", idle))
        if is_tainted:
            mark(process, "tool web\x1b[2J", seq=1)
        return (await Client(served.kernel.gate(process.pid)).approvals.ask("Which?")).text

    for is_tainted, source in ((False, ""), (True, "tool web\\u001b[2J")):
        asked = served.portal.start_task_soon(partial(run, is_tainted=is_tainted))
        row = wait_open(aios)
        number = str(row["id"])
        assert row["taint"] == "tool web\x1b[2J" * is_tainted
        assert aios("approvals", "show", number, "--json").rows() == [row]
        shown = aios("approvals", "show", number).out
        assert (f"TAINTED: data from {source} has reached it" in shown) is is_tainted
        assert "\x1b" not in shown
        title, line = aios("approvals", "ls").out.splitlines()
        assert line[title.index("TAINT") : title.index("STATE")].strip() == source
        assert aios("approvals", "answer", number, "x").code == 0
        assert asked.result(20) == "x"


def test_on_a_terminal_each_question_is_asked(served: Served, terminal: Terminals) -> None:
    screen = terminal("approvals")
    answer = ask(served)
    screen.read_until("Which colour?")
    screen.read_until("(empty: later)")
    screen.type("a green one\n")
    screen.read_until("is answered: a green one")
    assert answer.result(20) == "a green one"


def test_a_question_hides_nothing_and_passes_for_no_other(served: Served, aios: Aios) -> None:
    ask(served, question="well?\n9  eve (4)\x1b[8m not\u202e")
    number = str(wait_open(aios)["id"])
    assert (
        "\n  well?\n    9  eve (4)\\u001b[8m not\\u202e\n" in aios("approvals", "show", number).out
    )
    assert "\\u202e" in aios("approvals", "ls").out


def test_what_may_be_answered_takes_over_no_terminal(served: Served, terminal: Terminals) -> None:
    screen = terminal("approvals")
    answer = ask(served, "yes\x1b[2J\n", "no")
    screen.read_until("yes\\u001b[2J\\n/no (empty: later)")
    screen.type("no\n")
    assert answer.result(20) == "no"


def test_what_was_typed_before_a_question_was_shown_is_no_answer(
    served: Served, terminal: Terminals
) -> None:
    first, screen = ask(served, "red", "blue"), terminal("approvals")
    screen.read_until("(empty: later)")
    second = ask(served, "yes", "no")
    screen.type("red\nyes\n")
    assert first.result(20) == "red"
    screen.read_until("yes/no (empty: later)")
    screen.type("no\n")
    assert second.result(20) == "no"


def test_that_a_budget_takes_a_number_is_said(served: Served, aios: Aios) -> None:
    async def spend() -> str:
        pid = served.kernel.spawn_task("bob", idle)
        await Client(served.kernel.init_gate()).set_budget(pid, Limits(tool_calls=1))
        client = Client(served.kernel.gate(pid))
        return [(await client.tools.run("clock")).text for _ in range(2)][-1]

    spent = served.portal.start_task_soon(spend)
    number = str(wait_open(aios)["id"])
    assert (
        "answers: once deny, or a number: how much more it may spend"
        in aios("approvals", "show", number).out
    )
    assert aios("approvals", "answer", number, "5").code == 0
    assert spent.result(20)


def test_on_a_terminal_a_budget_is_asked_for_with_a_number(
    served: Served, terminal: Terminals
) -> None:
    screen = terminal("approvals")

    async def spend() -> str:
        pid = served.kernel.spawn_task("bob", idle)
        await Client(served.kernel.init_gate()).set_budget(pid, Limits(tool_calls=0))
        return (await Client(served.kernel.gate(pid)).tools.run("clock")).text

    spent = served.portal.start_task_soon(spend)
    screen.read_until("once/deny/NUMBER (empty: later)")
    screen.type("3\n")
    assert spent.result(20)


ASKING = """\
from aios.sdk.blocking import connect
with connect() as client:
    client.exit(0, client.approvals.ask("Which colour?").text)
"""


def test_a_watcher_goes_on_and_asks_again_under_the_next_kernel(
    home: Path, programs: Path, terminal: Terminals
) -> None:
    (programs / "asker" / "main.py").write_text(ASKING)
    with daemon(home):
        with owner(home) as client:
            restart = Restart(policy="on-failure")
            pid = client.spawn(str(programs / "asker"), name="bob", restart=restart).pid
        screen = terminal("approvals")
        screen.read_until("(empty: later)")
    screen.type("red\n")
    screen.read_until("waiting until it is back)")
    with daemon(home):
        screen.read_until("(empty: later)")
        screen.type("blue\n")
        screen.read_until("is answered: blue")
        with owner(home) as client:
            assert client.wait(pid).exit.result == "blue"
