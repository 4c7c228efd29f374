import json
from pathlib import Path

import anyio
import pytest
from tests.kernel.conftest import UNASKED
from tests.kernel.tools.offering import idle, run_tool

from aios.abi.access import Decision, Request
from aios.abi.calls import Kill
from aios.abi.storage import Put
from aios.abi.types import Kind, Pid
from aios.abi.undo import Undo, Undone
from aios.config import Config, Home, StorageConfig
from aios.errors import AccessDenied, InvalidCall, NotFound, TooLarge
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.process import INIT_PID, Run
from aios.kernel.sandbox.view import View
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


def agent(
    kernel: Kernel, work: Path, name: str = "ann", *, ppid: Pid = INIT_PID
) -> tuple[Pid, LocalGate]:
    """A process that works in a folder."""
    work.mkdir(exist_ok=True)
    pid = kernel.spawn_task(name, idle, ppid=ppid)
    kernel.table.get(pid).view = View(work, (), (work,))
    return pid, kernel.gate(pid)


async def shell(gate: LocalGate, command: str) -> None:
    ran = json.loads((await run_tool(gate, "shell", command=command)).text)
    assert ran["status"] == 0, ran


async def undo(
    kernel: Kernel,
    pid: int,
    *,
    last: int | None = None,
    is_dry_run: bool = False,
    with_children: bool = False,
) -> Undone:
    return (await kernel.init_gate().call(Undo(Pid(pid), last, is_dry_run, with_children))).value


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


async def test_what_tools_did_to_a_workspace_and_to_files_is_taken_back(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "keep").write_text("1")
    (work / "sub" / "gone").write_text("2")
    (work / "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")).write_text("odd")
    before = tree(work)
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        pid, gate = agent(kernel, work)
        with anyio.fail_after(30):
            await shell(gate, "echo new > keep; rm -r sub; mkdir made; echo x > made/file")
            await run_tool(gate, "files", action="write", path="note", text="hello")
            await run_tool(gate, "python", code="open('keep', 'w').write('later')")
            assert tree(work) != before
            seen = await undo(kernel, pid, is_dry_run=True)
            assert (work / "keep").read_text() == "later", "a dry run changes nothing"
            done = await undo(kernel, pid)
        assert seen.paths == done.paths
        assert {(Path(each.real or each.path).name, each.what) for each in done.paths} == {
            ("keep", "restored"),
            ("gone", "remade"),
            ("file", "removed"),
            ("note", "removed"),
        }
        assert (len(done.acts), done.conflicts) == (3, ())
        assert tree(work) == before
        with pytest.raises(NotFound):
            await Files(gate).read_text("note")
        assert (await Files(kernel.init_gate()).check()).faults == ()


async def test_an_undo_is_undone_and_done_again(tmp_path: Path) -> None:
    work = tmp_path / "work"
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        pid, gate = agent(kernel, work)
        with anyio.fail_after(30):
            await shell(gate, "echo one > a")
            await undo(kernel, pid)
            assert tree(work) == {}
            assert (await undo(kernel, pid)).paths == (), "there is nothing left to undo"
            await undo(kernel, 1, last=1)
            assert tree(work) == {"a": "one\n"}
            await undo(kernel, pid)
            assert tree(work) == {}
        with pytest.raises(InvalidCall):
            await undo(kernel, 1)


async def test_what_a_process_took_back_itself_does_not_come_again_when_it_is_undone_twice(
    tmp_path: Path,
) -> None:
    work = tmp_path / "work"
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        pid, gate = agent(kernel, work)
        files = Files(gate)
        with anyio.fail_after(30):
            await files.write("draft", "one")
            edited = await files.write("kept", "one")
            await files.write("draft", "two")
            await files.delete("draft")
            await files.rollback(transaction=edited.transaction)
            await shell(gate, "echo one > a; echo two > b")
            await shell(gate, "rm a")
            done = await undo(kernel, pid)
            assert [(Path(each.path).name, each.what) for each in done.paths] == [("b", "removed")]
            assert tree(work) == {}
            again = await undo(kernel, pid)
            assert (again.acts, again.paths, tree(work)) == ((), (), {})
            assert await files.list() == []
            await undo(kernel, 1, last=1)
            assert tree(work) == {"b": "two\n"}
            await undo(kernel, pid)
            assert tree(work) == {}
        assert (await Files(kernel.init_gate()).check()).faults == ()


@pytest.mark.parametrize("by_child", [False, True])
async def test_what_a_process_or_its_child_undid_itself_does_not_come_back_when_all_is_undone(
    tmp_path: Path, by_child: bool
) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        pid, gate = agent(kernel, tmp_path / "work")
        kid, of_kid = agent(kernel, tmp_path / "work", "kid", ppid=pid)
        with anyio.fail_after(30):
            await Files(gate).write("kept", "one")
            await Files(of_kid if by_child else gate).write("/shared/a", "one")
            await gate.call(Undo(kid if by_child else pid, 1))
            done = await undo(kernel, pid, with_children=by_child)
            assert [each.path for each in done.paths] == ["/agents/ann/kept"]
            assert await Files(kernel.init_gate()).list(is_deep=True) == []
            again = await undo(kernel, pid, with_children=by_child)
            assert (again.acts, again.paths) == ((), ())
            await undo(kernel, 1, last=1)
            assert [each.path for each in await Files(gate).list(is_deep=True)] == [
                "/agents/ann/kept"
            ]


async def test_only_the_last_acts_are_taken_back_when_so_many_are_asked_for(
    tmp_path: Path,
) -> None:
    work = tmp_path / "work"
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        pid, gate = agent(kernel, work)
        with anyio.fail_after(30):
            for number in range(3):
                await shell(gate, f"echo {number} > a; echo {number} > b{number}")
            done = await undo(kernel, pid, last=2)
        assert [act.message for act in done.acts] == [
            f"shell: echo {number} > a; echo {number} > b{number}" for number in (2, 1)
        ]
        assert tree(work) == {"a": "0\n", "b0": "0\n"}


async def test_what_is_undone_is_no_longer_listed_so_the_last_act_is_the_one_before(
    tmp_path: Path,
) -> None:
    work = tmp_path / "work"
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        pid, gate = agent(kernel, work)
        with anyio.fail_after(30):
            for number in range(3):
                await shell(gate, f"echo {number} > a")
            undone = [await undo(kernel, pid, last=1) for _ in range(2)]
            assert tree(work) == {"a": "0\n"}
            assert [act.message for each in undone for act in each.acts] == [
                "shell: echo 2 > a",
                "shell: echo 1 > a",
            ]
            await undo(kernel, 1, last=1)
            assert tree(work) == {"a": "1\n"}, "the undo of the second act is undone"
            (again,) = (await undo(kernel, pid, last=1)).acts
            assert again.message == "shell: echo 1 > a"
            (first,) = (await undo(kernel, pid)).acts
            assert first.message == "shell: echo 0 > a"
            assert tree(work) == {}
            assert not (await undo(kernel, pid)).acts


async def test_what_others_have_changed_since_is_told_and_left(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name in ("edited", "clean"):
        (work / name).write_text("before")
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        pid, gate = agent(kernel, work)
        other_pid, other = agent(kernel, work, "bob")
        with anyio.fail_after(30):
            await shell(gate, "for f in edited clean new; do echo ann > $f; done")
            (work / "edited").write_text("a person was here")
            await shell(other, "echo bob > new")
            done = await undo(kernel, pid)
            assert {Path(each.what).name: each.why for each in done.conflicts} == {
                "edited": "outside has changed it since",
                "new": "/agents/bob has changed it since",
            }
            assert tree(work) == {
                "clean": "before",
                "edited": "a person was here",
                "new": "bob\n",
            }
            await undo(kernel, other_pid)
            assert (work / "new").read_text() == "ann\n"


async def test_it_survives_the_kernel_and_the_end_of_the_process(tmp_path: Path) -> None:
    work, home = tmp_path / "work", Home(tmp_path / "home")
    work.mkdir()
    (work / "a").write_text("before")
    async with open_kernel(Config(), home, engines={}, is_durable=True) as kernel:
        pid, gate = agent(kernel, work)
        with anyio.fail_after(30):
            await shell(gate, "echo after > a")
    async with open_kernel(Config(), home, engines={}, is_durable=True) as kernel:
        with anyio.fail_after(30):
            done = await undo(kernel, pid)
        assert (len(done.paths), tree(work)) == (1, {"a": "before"})


async def allow(_run: Run, _request: Request, _decision: Decision) -> None:
    """A human who says yes."""


async def test_what_cannot_be_undone_is_said(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / ".git").mkdir(parents=True)
    home = Home(tmp_path / "home")
    async with open_kernel(Config(access=UNASKED), home, engines={}, is_durable=True) as kernel:
        pid, gate = agent(kernel, work)
        with anyio.fail_after(30):
            await shell(gate, "ln -s /etc link; echo x > .git/config")
            await Files(gate).write("x", "1")
            kernel.access.on_ask = allow  # a guest is asked before it purges
            await Files(gate).purge("x", keep=0)
            told = {Path(each.what).name: each.why for each in (await undo(kernel, pid)).cannot}
    assert "ignored by storage.mount_ignore" in told[".git"]
    assert "link" in told
    assert told["file_purge"].startswith("irreversible: versions that were purged are gone")
    assert "without a tool" in told["work"]


async def test_that_a_script_is_made_again_without_its_mode_is_said(tmp_path: Path) -> None:
    work = tmp_path / "work"
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        pid, gate = agent(kernel, work)
        for name in ("run", "stay"):
            (work / name).write_text("#!/bin/sh\n")
            (work / name).chmod(0o755)
        with anyio.fail_after(30):
            await shell(gate, "rm run; echo echo >> stay")
            done = await undo(kernel, pid)
        lost = [(each.what, each.n) for each in done.cannot if "right to be run" in each.why]
        modes = [(work / name).stat().st_mode & 0o111 for name in ("run", "stay")]
        assert (lost, modes) == ([(str(work), 1)], [0, 0o111])


async def test_a_folder_that_is_too_large_is_left_out_and_said(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for number in range(5):
        (work / str(number)).write_text("before")
    config = Config(storage=StorageConfig(undo_files=4))
    async with open_kernel(config, Home(tmp_path / "home"), engines={}) as kernel:
        pid, gate = agent(kernel, work)
        with anyio.fail_after(30):
            await shell(gate, "rm -f *")
            done = await undo(kernel, pid)
    assert any("over 4 files" in each.why for each in done.cannot)
    assert tree(work) == {}


async def test_a_process_undoes_only_its_own_and_what_it_rules(tmp_path: Path) -> None:
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        pid, gate = agent(kernel, tmp_path / "work")
        _, other = agent(kernel, tmp_path / "other", "bob")
        with anyio.fail_after(30):
            await shell(gate, "echo x > a")
            for bad in (other, kernel.gate(kernel.add_process("eve", Kind.GUEST, kernel.init).pid)):
                with pytest.raises(AccessDenied):
                    await bad.call(Undo(pid))
            assert (await gate.call(Undo(pid))).value.paths
            with pytest.raises(NotFound):
                await undo(kernel, 4711)
            await kernel.signals.kill(kernel.table.find_named("eve") or kernel.init, reason="")


async def test_workspaces_are_the_owners_to_look_at_and_nobodys_to_write(tmp_path: Path) -> None:
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        pid, gate = agent(kernel, tmp_path / "work")
        owner = Files(kernel.init_gate())
        with anyio.fail_after(30):
            await shell(gate, "echo x > a")
            (act,) = (await undo(kernel, pid, is_dry_run=True)).paths
            assert await owner.read_text(act.path) == "x\n"
            with pytest.raises(AccessDenied):
                await Files(gate).read_text(act.path)
            with pytest.raises(InvalidCall):
                await owner.write(act.path, "y")


async def test_with_its_children_all_that_a_process_and_those_below_it_did_is_taken_back(
    tmp_path: Path,
) -> None:
    work, home = tmp_path / "work", Home(tmp_path / "home")
    async with open_kernel(Config(), home, engines={}, is_durable=True) as kernel:
        with anyio.fail_after(30):
            boss = kernel.spawn_task("boss", idle)
            kid, kid_gate = agent(kernel, work, "kid", ppid=boss)
            toy, toy_gate = agent(kernel, work, "toy", ppid=kid)
            _, other_gate = agent(kernel, work, "other")
            await Files(kernel.gate(boss)).write("/shared/plan", b"1")
            await shell(kid_gate, "echo kid > a")
            await Files(toy_gate).write("/shared/plan", b"2")
            await shell(toy_gate, "echo toy >> a; echo toy > b")
            await shell(other_gate, "echo other > c")
            await kernel.init_gate().call(Kill(pid=kid))
            seen = await undo(kernel, boss, with_children=True, is_dry_run=True)
            assert [act.pid for act in seen.acts] == [toy, toy, kid, boss]
            last = await undo(kernel, boss, with_children=True, last=1)
            assert ([act.pid for act in last.acts], tree(work)) == (
                [toy],
                {"a": "kid\n", "c": "other\n"},
            )
            assert (await undo(kernel, boss)).conflicts, "the plan lies under that of the toy"
    async with open_kernel(Config(), home, engines={}, is_durable=True) as kernel:
        with anyio.fail_after(30):
            done = await undo(kernel, boss, with_children=True)
            assert (done.conflicts, tree(work)) == ((), {"c": "other\n"})
            with pytest.raises(NotFound):
                await Files(kernel.init_gate()).read("/shared/plan")
            await undo(kernel, 1, last=1)
            assert tree(work) == {"a": "kid\n", "c": "other\n"}
            with pytest.raises(InvalidCall, match="all processes descend"):
                await undo(kernel, 1, last=1, with_children=True)


async def test_what_is_written_anew_after_a_purge_is_not_taken_for_undone(tmp_path: Path) -> None:
    async with open_kernel(Config(access=UNASKED), Home(tmp_path), engines={}) as kernel:
        owner = Files(kernel.init_gate())
        ann, bob, eve = (kernel.spawn_task(name, idle) for name in ("ann", "bob", "eve"))
        await Files(kernel.gate(ann)).write("/shared/x", "1")
        await undo(kernel, ann)
        await owner.purge("/shared/x", keep=0)
        await Files(kernel.gate(bob)).write("/shared/x", "2")
        await Files(kernel.gate(eve)).write("/shared/x", "3")
        assert [each.why for each in (await undo(kernel, bob)).conflicts] == [
            "/agents/eve has changed it since"
        ]


async def test_a_program_takes_back_so_many_files_in_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.storage.undo.MAX_CALL_CHANGES", 3, raising=False)
    async with open_kernel(Config(), Home(tmp_path / "home"), engines={}) as kernel:
        pid, gate = agent(kernel, tmp_path / "work")
        files = Files(gate)
        for number in range(3):
            await files.edit([Put(f"{number}/{name}", b"x") for name in "ab"])
        with pytest.raises(TooLarge, match="6 files") as refused:
            await gate.call(Undo(pid))
        assert "file_rollback" in refused.value.hint
        assert "`last`" not in refused.value.hint, "the next would take back the undo"
        assert len((await gate.call(Undo(pid, 3, is_dry_run=True))).value.paths) == 6
        assert len((await gate.call(Undo(pid, 1))).value.paths) == 2
        assert len((await undo(kernel, pid)).paths) == 4, "the owner may"
        assert await files.list(is_deep=True) == []
