"""aios ctx against a kernel that runs."""

import pytest
from tests.cli.conftest import Aios, Served

from aios.abi.contexts import ContextOpen, WindowPolicy
from aios.abi.types import Message, Pid, Role, ToolCall


def opened(served: Served, *messages: Message, pid: int = 1) -> str:
    call = ContextOpen(messages=messages, window=WindowPolicy.PAGE_TO_MEMORY)
    result = served.portal.call(served.kernel.gate(Pid(pid)).call, call)
    return str(result.value.id)


def talk(n_turns: int) -> list[Message]:
    return [
        Message(role, f"{role.value} {i} " + "word " * 20)
        for i in range(n_turns)
        for role in (Role.USER, Role.ASSISTANT)
    ]


def test_contexts_are_listed_with_whose_they_are(served: Served, aios: Aios) -> None:
    pid = served.admit("bob")
    asked = Message(Role.ASSISTANT, tool_calls=(ToolCall("a", "clock", "{}"),))
    context = opened(served, Message(Role.USER, "time?"), asked, pid=pid)
    [row] = aios("ctx", "ls", "--json").rows()
    assert (row["id"], row["pid"], row["n_messages"]) == (int(context), pid, 2)
    table = aios("ctx", "ls").out
    assert "bob" in table
    assert "page-to-memory" in table
    assert "1 tool call open" in table


def test_what_is_shown_cannot_move_the_cursor(served: Served, aios: Aios) -> None:
    asked = Message(Role.ASSISTANT, tool_calls=(ToolCall("a", "clock\x1b[2J", "{}"),))
    result = Message(Role.TOOL, "noon\x1b[2J", tool_call_id="a")
    context = opened(served, Message(Role.USER, "time?"), asked, result)
    shown = aios("ctx", "show", context)
    assert shown.out.splitlines()[0] == "user: time?"
    assert "-> clock[2J {} (a)" in shown.out
    assert "\x1b" not in shown.out
    assert [row["role"] for row in aios("ctx", "show", context, "--json").rows()] == [
        "user", "assistant", "tool",
    ]  # fmt: skip


def test_a_context_is_forked_compacted_and_brought_back(served: Served, aios: Aios) -> None:
    context = opened(served, *talk(8))
    branch = aios("ctx", "fork", context, "--json").rows()[0]
    assert branch["n_messages"] == 16
    branch_id = str(branch["id"])
    done = aios("ctx", "compact", branch_id, "--tokens", "100")
    assert done.out.startswith("page-to-memory: ")
    assert done.out.rstrip().endswith("pointer 1")
    assert aios("ctx", "show", branch_id, "--pointer", "1").out.startswith("user: user 0")
    assert aios("ctx", "undo", branch_id).out == "16 messages; 0 more to undo\n"
    assert aios("ctx", "undo", branch_id).code == 6
    short = aios("ctx", "compact", branch_id, "--policy", "drop-oldest", "--tokens", "5000")
    assert "short enough" in short.out
    compacted = aios("ctx", "compact", branch_id, "--tokens", "100", "--json").rows()[0]
    assert compacted["pointer"] == 2
    assert aios("ctx", "undo", branch_id, "--json").rows()[0]["n_messages"] == 16
    assert aios("ctx", "fork", context).out.endswith(": 16 messages\n")


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("context", ["-1", "three", "9" * 30])
def test_what_is_no_context_is_refused(aios: Aios, context: str) -> None:
    for verb in ("show", "fork", "compact", "undo", "rm"):
        assert aios("ctx", verb, "--", context).code == 2, verb
    for option in ("--tokens", "--pointer"):
        verb = "compact" if option == "--tokens" else "show"
        assert aios("ctx", verb, "1", option, context).code == 2, option
    assert aios("ctx", "show", "99").code == 4
    assert aios("ctx", "show", "0").code == 4
    assert aios("ctx", "show", "1", "--pointer", "0").code == 2


def test_the_last_digits_name_a_context_if_no_other_ends_so(served: Served, aios: Aios) -> None:
    served.kernel.context_table.number_after(1_795_801_119_000)
    first, second = opened(served, Message(Role.USER, "one")), opened(served, *talk(1))
    assert (first, second) == ("1795801119001", "1795801119002")
    assert aios("ctx", "show", "1").out == "user: one\n"
    assert aios("ctx", "show", "001").out == "user: one\n"
    assert aios("ctx", "fork", "2", "--json").rows()[0]["n_messages"] == 2
    served.kernel.context_table.number_after(1_795_801_119_010)
    opened(served, *talk(1))
    twice = aios("ctx", "rm", "1", "--json")
    assert (twice.code, twice.error()["code"]) == (2, "invalid_call")
    assert "1795801119001, 1795801119011" in str(twice.error()["message"])
    assert aios("ctx", "rm", "01", "--json").rows()[0]["context"] == int(first)


def test_a_whole_number_comes_before_one_that_ends_so(served: Served, aios: Aios) -> None:
    short = opened(served, Message(Role.USER, "short"))
    served.kernel.context_table.number_after(10 + int(short) - 1)
    assert opened(served, Message(Role.USER, "long")) == f"1{short}"
    assert aios("ctx", "show", short).out == "user: short\n"


def test_snapshots_are_made_listed_restored_and_removed(served: Served, aios: Aios) -> None:
    context = opened(served, *talk(2))
    assert aios("ctx", "snapshot", context, "seas").out.startswith("seas: 4 messages, ")
    assert aios("ctx", "snapshot", context, "seas").code == 0, "the same text under the same name"
    assert aios("ctx", "snapshot", opened(served, *talk(3)), "seas").code == 6
    again = aios("ctx", "snapshot", context, "seas", "--replace", "--json").rows()[0]
    assert again["owner"] == "owner"
    assert "seas" in aios("ctx", "ls", "--snapshots").out
    assert [row["name"] for row in aios("ctx", "ls", "--snapshots", "--json").rows()] == ["seas"]
    restored = aios("ctx", "restore", "seas", "--json").rows()[0]
    assert restored["n_messages"] == 4
    assert "4 messages" in aios("ctx", "restore", "seas", "--text").out
    assert aios("ctx", "rm", "--snapshot", "seas", "--json").rows()[0]["done"]
    assert aios("ctx", "restore", "seas").code == 4
    assert aios("ctx", "rm", str(restored["id"])).code == 0
    assert aios("ctx", "rm", str(restored["id"])).code == 4
    assert aios("ctx", "rm").code == 2
