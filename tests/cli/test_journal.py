"""aios journal, inspect and events against a kernel that runs."""

import anyio
import msgspec
import pytest
from tests.cli.conftest import Aios, Served, Start

from aios.abi.types import Pid
from aios.sdk.client import Client


def calls(served: Served, pid: int, n: int) -> None:
    """Let a process make so many cheap calls."""

    async def ask() -> None:
        client = Client(served.kernel.gate(Pid(pid)))
        for _ in range(n):
            await client.getpid()

    served.portal.call(ask)


def test_the_owner_sees_what_a_process_asked(served: Served, aios: Aios) -> None:
    pid = served.admit("bob")
    calls(served, pid, 3)
    rows = aios("journal", "bob", "--json").rows()
    assert [(row["seq"], row["call"], row["outcome"]) for row in rows] == [
        (1, "getpid", "done"),
        (2, "getpid", "done"),
        (3, "getpid", "done"),
    ]
    assert aios("journal", "bob", "-n", "1").out.split()[0] == "3"


def test_follow_shows_calls_that_end_in_another_order_than_they_began(
    served: Served, start: Start
) -> None:
    pid = Pid(served.admit("bob"))

    async def ask() -> None:
        bob = Client(served.kernel.gate(pid))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bob.mail.receive)
            while not served.kernel.journal.records(pid):
                await anyio.lowlevel.checkpoint()
            await asked.wait()
            await bob.getpid()
            await Client(served.kernel.init_gate()).mail.send(pid, "hello")

    async def see() -> None:
        asked.set()

    asked = anyio.Event()
    asking = served.portal.start_task_soon(ask)
    following = start("journal", "-f", "bob", "--json")
    rows = [msgspec.json.decode(following.line())]
    served.portal.call(see)
    rows += [msgspec.json.decode(following.line()) for _ in range(2)]
    asking.result(60)
    assert [(row["seq"], row["outcome"]) for row in rows] == [(1, "open"), (2, "done"), (1, "done")]


def test_follow_ends_with_its_process_and_at_once_for_one_that_has_ended(
    served: Served, aios: Aios, start: Start
) -> None:
    calls(served, served.admit("bob"), 1)
    following = start("journal", "-f", "bob")
    assert "getpid" in following.line()
    assert aios("kill", "bob").code == 0
    assert following.end().code == 0
    again = aios("journal", "-f", "bob")
    assert (again.code, "getpid" in again.out) == (0, True)


def test_inspect_shows_a_process_with_its_last_calls(served: Served, aios: Aios) -> None:
    pid = served.admit("bob")
    calls(served, pid, 5)
    shown = aios("inspect", "bob", "-n", "2").out
    assert f"{pid} bob (guest)" in shown
    assert "5, 0 of them faults" in shown
    assert shown.count("getpid") == 2
    row = aios("inspect", "bob", "--json").rows()[0]
    assert isinstance(row["process"], dict)
    assert row["process"]["pid"] == pid


def test_events_are_those_of_everybody_or_of_one(served: Served, aios: Aios) -> None:
    ann, bob = served.admit("ann"), served.admit("bob")
    calls(served, ann, 1)
    calls(served, bob, 2)
    mine = [row for row in aios("events", "bob", "--json").rows() if row["what"] == "getpid"]
    assert [row["pid"] for row in mine] == [bob, bob]
    assert "getpid" in aios("events").out


@pytest.mark.parametrize("verb", ["journal", "inspect", "events"])
def test_nobody_of_that_name_is_not_found(served: Served, aios: Aios, verb: str) -> None:
    served.admit("bob")
    assert aios(verb, "nobody").code == 4
