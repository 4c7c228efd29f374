"""aios undo against a kernel that runs."""

import msgspec
from tests.cli.conftest import Aios, Served
from tests.kernel.tools.offering import idle

from aios.abi.calls import ExitSelf
from aios.abi.types import Pid
from aios.abi.undo import Undone
from aios.sdk.files import Files


def test_what_a_process_did_is_taken_back_and_what_others_did_is_left(
    served: Served, aios: Aios
) -> None:
    pid = served.admit("bob")
    bob = Files(served.kernel.gate(Pid(pid)))
    served.portal.call(bob.write, "note", "one")
    served.portal.call(bob.write, "/shared/list", "by bob")
    dry = aios("undo", "bob", "--dry-run")
    assert "2 files to be brought back, 0 left" in dry.out
    assert aios("fs", "cat", "/agents/bob/note").out == "one"
    served.portal.call(Files(served.kernel.init_gate()).write, "/shared/list", "by the owner")
    done = aios("undo", str(pid), "--json")
    assert done.code == 6
    said = msgspec.json.decode(done.out, type=Undone)
    assert [each.what for each in said.paths] == ["removed"]
    assert [each.what for each in said.conflicts] == ["/shared/list"]
    assert aios("fs", "cat", "/shared/list").out == "by the owner"
    assert aios("undo", "1", "--last", "1").code == 0
    assert aios("fs", "cat", "/agents/bob/note").out == "one"


def test_with_tree_what_its_children_did_is_taken_back_too(served: Served, aios: Aios) -> None:
    kernel = served.kernel
    boss = served.portal.call(kernel.spawn_task, "boss", idle)
    kid = served.portal.call(lambda: kernel.spawn_task("kid", idle, ppid=boss))
    served.portal.call(Files(kernel.gate(kid)).write, "/shared/list", "by the kid")
    assert "0 files brought back" in aios("undo", "boss").out
    done = aios("undo", "boss", "--tree")
    assert f"process {kid}: a call about files" in done.out
    assert done.out.endswith("1 file brought back, 0 left\n")
    assert aios("undo", "1", "--tree", "--last", "1").code == 2


def test_an_end_is_nothing_that_could_not_be_undone(served: Served, aios: Aios) -> None:
    bob = served.kernel.gate(Pid(served.admit("bob")))
    served.portal.call(Files(bob).write, "note", "one")
    served.portal.call(bob.call, ExitSelf())
    done = aios("undo", "bob")
    assert "(1 file)" in done.out
    assert "cannot" not in done.out
    assert done.out.endswith("1 file brought back, 0 left\n")


def test_who_is_not_there_cannot_be_undone(served: Served, aios: Aios) -> None:
    assert served.kernel is not None
    assert aios("undo", "4711").code == 4
    assert aios("undo", "nobody").code == 4
    assert aios("undo", "1").code == 2
