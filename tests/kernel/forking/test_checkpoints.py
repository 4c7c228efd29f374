"""Processes that are put away and brought back, on a kernel with a journal and a scripted engine."""

from pathlib import Path

import anyio.from_thread
import pytest
from tests.kernel.forking.test_forks import ended, waiting
from tests.kernel.test_programs import ONCE, booted, home, program

from aios.abi.budget import Limits
from aios.abi.checkpoints import Checkpoint, CheckpointList, Restored
from aios.abi.spawn import Spawn
from aios.abi.taint import Taint
from aios.abi.types import Kind, Pid
from aios.errors import AccessDenied, Conflict, NotFound
from aios.kernel.forking import checkpoints, forks
from aios.kernel.kernel import Kernel
from aios.kernel.leftovers import code_hash
from aios.kernel.taint import mark
from aios.sdk.client import Client

__all__ = ["home"]
pytestmark = pytest.mark.anyio

KEEPER = """\
    stamp = client.repeatable.uuid()
    context = client.contexts.open(system="Be brief.")
    context.chat("hello")
    client.files.write("a.txt", b"then")
    client.memory.log("then")
    first = client.mail.receive().body
    client.files.write("a.txt", b"later")
    client.files.write("b.txt", b"later")
    client.memory.log("later")
    said = len(context.messages())
    names = sorted(each.path.rsplit("/")[-1] for each in client.files.list("."))
    log = [each.text for each in client.memory.read(limit=9).records]
    if first == "loop":
        client.mail.receive()
    client.exit(0, f"{stamp} {first} {said} {names} {log}")
"""


async def left_of(kernel: Kernel, pid: int) -> list[object]:
    """What is in the tables of a checkpoint."""
    db, _, _ = kernel.storage.parts
    disk = kernel.journal.disk
    assert disk is not None
    await disk.flush()
    home, whose = f"/checkpoints/{pid}", f"#{pid}"
    queries = (
        ("SELECT path FROM versions WHERE path > ? || '/' AND path < ? || '0'", (home, home)),
        ("SELECT root FROM usage WHERE root = ?", (home,)),
        ("SELECT name FROM memory_interactions WHERE name = ?", (whose,)),
        ("SELECT pid FROM journal_records WHERE pid = ?", (pid,)),
        ("SELECT receiver FROM letters WHERE receiver = ?", (pid,)),
        ("SELECT pid FROM topics WHERE pid = ?", (pid,)),
    )
    return await db.read(lambda c: [row for query in queries for row in c.execute(*query)])


async def test_a_process_comes_back_as_it_was_also_under_the_next_kernel(home: Path) -> None:
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, KEEPER), restart=ONCE)).pid
        await waiting(kernel, source)
        made = await client.checkpoints.save(source, name="before")
        with pytest.raises(Conflict, match="there is a checkpoint"):
            await client.checkpoints.save(source, name="before")
        assert (made.process, made.n_files, made.n_letters) == ("agent", 1, 0)
        beside = await client.checkpoints.restore("before")
        assert (beside.name, beside.is_in_place) == ("agent-2", False)
        for pid in (source, beside.pid):
            await client.mail.send(pid, "go")
        was = await ended(client, source)
        assert await ended(client, beside.pid) == was
        assert await client.files.read("/agents/agent/a.txt") == b"later"
    async with booted(home) as (kernel, client):
        (found,) = await client.checkpoints.list_all()
        assert found == made
        back = await client.checkpoints.restore(made.id)
        assert (back.name, back.is_in_place, back.at) == ("agent", True, made.at)
        assert back.pid > made.id, "no process gets the number of a checkpoint"
        await waiting(kernel, back.pid)
        assert [each.path for each in await client.files.list("/agents/agent")] == [
            "/agents/agent/a.txt"
        ]
        assert await client.files.read("/agents/agent/a.txt") == b"then"
        await client.mail.send(back.pid, "go")
        assert await ended(client, back.pid) == was
        await client.checkpoints.remove("before")
        assert await left_of(kernel, made.id) == []
        assert (await client.files.check()).faults == ()
        with pytest.raises(NotFound):
            await client.checkpoints.restore("before")


async def test_a_process_puts_itself_away_and_is_told_so_when_it_comes_back(home: Path) -> None:
    code = """\
    made = client.checkpoints.save(name="mine")
    client.exit(0, f"{made.id} {client.mail.receive().body}")
"""
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, code))).pid
        await waiting(kernel, source)
        await client.kill(source)
        for body in ("one", "two"):
            back = await client.checkpoints.restore("mine")
            await client.mail.send(back.pid, body)
            (made,) = await client.checkpoints.list_all()
            assert await ended(client, back.pid) == f"{made.id} {body}"


async def test_letters_of_then_come_back_and_budgets_are_not_filled_again(home: Path) -> None:
    code = """\
    client.chat("hello", max_tokens=1)
    client.mail.receive(topic="go")
"""
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, code), budget=Limits(calls=3))).pid
        await waiting(kernel, source)
        await client.mail.send(source, "unread")
        made = await client.checkpoints.save(source)
        assert made.n_letters == 1
        await Client(kernel.gate(source)).chat("hello", max_tokens=1)
        backs = [await client.checkpoints.restore(made.id) for _ in range(2)]
        for back in backs:
            await waiting(kernel, back.pid)
            (letter,) = (await Client(kernel.gate(back.pid)).mail.take()).letters
            assert (letter.body, letter.to) == ("unread", back.pid)
        assert [kernel.budgets.info(back.pid).left.calls for back in backs] == [1, 1]
        await Client(kernel.gate(backs[0].pid)).chat("hello", max_tokens=1)
        assert kernel.budgets.info(backs[1].pid).left.calls == 0


async def test_other_code_and_other_processes_are_refused(home: Path) -> None:
    async with booted(home) as (kernel, client):
        path = program(home, KEEPER)
        source = (await client.spawn(path)).pid
        await waiting(kernel, source)
        made = await client.checkpoints.save(source)
        other = (await client.spawn(path)).pid
        await waiting(kernel, other)
        theirs = Client(kernel.gate(other)).checkpoints
        assert await theirs.list_all() == ()
        with pytest.raises(NotFound):  # as if there were none
            await theirs.restore(made.id)
        with pytest.raises(NotFound):
            await theirs.remove(made.id)
        with pytest.raises(AccessDenied):
            await theirs.save(source)
        program(home, KEEPER.replace("hello", "goodbye"))
        with pytest.raises(Conflict, match="has changed since"):
            await client.checkpoints.restore(made.id)
        back = await client.checkpoints.restore(made.id, may_differ=True)
        assert "asks chat where it asked chat" in (await client.wait(back.pid)).exit.reason
        assert kernel.table.get(Pid(source)).is_alive


async def test_who_lists_the_name_of_a_checkpoint_has_the_mark_of_who_chose_it(home: Path) -> None:
    async with booted(home) as (kernel, _):
        parent = kernel.add_process("parent", Kind.TASK, kernel.init)
        calls = kernel.gate(parent.pid)
        spawned = await calls.call(Spawn(program=str(program(home, KEEPER))))
        child = spawned.value.pid
        await waiting(kernel, child)
        await calls.call(Checkpoint(pid=child, name="mine"))
        await calls.call(CheckpointList())
        assert parent.taint is None
        mark(kernel.table.get(child), "tool web")
        await kernel.gate(child).call(Checkpoint(name="pay-bob"))
        await calls.call(CheckpointList())
        assert parent.taint is not None
        assert parent.taint == Taint("tool web", "checkpoint pay-bob", parent.taint.seq)


async def test_of_two_restores_at_once_one_is_in_place(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, KEEPER), restart=ONCE)).pid
        await waiting(kernel, source)
        made = await client.checkpoints.save(source)
        await client.kill(source)
        backs = list[Restored]()

        async def restore() -> None:
            backs.append(await client.checkpoints.restore(made.id))

        def overtaken(folder: str) -> bytes:
            patch.undo()
            anyio.from_thread.run(restore)
            return code_hash(folder)

        with monkeypatch.context() as patch:
            patch.setattr(forks, "code_hash", overtaken)
            with pytest.raises(Conflict, match="somebody named agent was started meanwhile"):
                await restore()
        (back,) = backs
        assert (back.name, back.is_in_place) == ("agent", True)
        assert [each.name for each in kernel.table if each.is_alive] == ["init", "agent"]
        beside = await client.checkpoints.restore(made.id)
        assert (beside.name, beside.is_in_place) == ("agent-2", False)


async def test_nothing_is_restored_from_a_checkpoint_that_is_removed_meanwhile(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, KEEPER))).pid
        await waiting(kernel, source)
        made = await client.checkpoints.save(source)
        await client.kill(source)

        def removed(folder: str) -> bytes:
            anyio.from_thread.run(client.checkpoints.remove, made.id)
            return code_hash(folder)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, "code_hash", removed)
            with pytest.raises(NotFound, match="was removed meanwhile"):
                await client.checkpoints.restore(made.id)
        assert [each.name for each in kernel.table if each.is_alive] == ["init"]
        assert await client.files.read("/agents/agent/a.txt") == b"then"
        assert len(await client.files.versions("/agents/agent/a.txt")) == 1
        assert await left_of(kernel, made.id) == []


async def test_a_branch_comes_back_beside_its_group_and_outlives_that(home: Path) -> None:
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, KEEPER))).pid
        await waiting(kernel, source)
        group = await client.branches.start(1, pid=source)
        branch = group.branches[0].pid
        await waiting(kernel, branch)
        made = await client.checkpoints.save(branch)
        await client.kill(branch)
        back = await client.checkpoints.restore(made.id)
        assert (back.name, back.is_in_place) == ("agent-branch-1-restored", False)
        await waiting(kernel, back.pid)
        await client.branches.discard(group.group)
        assert await client.files.read(f"/agents/{back.name}/a.txt") == b"then"
        await client.mail.send(back.pid, "go")
        assert "['a.txt', 'b.txt'] ['then', 'later']" in await ended(client, back.pid)


async def test_a_checkpoint_whose_caller_gives_up_behind_its_write_is_there(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, KEEPER))).pid
        await waiting(kernel, source)
        pinned = list[str]()

        def given_up(_: str, name: str, __: object) -> None:
            anyio.from_thread.run_sync(scope.cancel)
            pinned.append(name)

        two = [("model", (b"a",)), ("model", (b"b",))]
        monkeypatch.setattr(kernel.checkpoints, "_pages_of", lambda _: two)
        monkeypatch.setattr(kernel.contexts, "pin", given_up)
        with anyio.CancelScope() as scope:
            await client.checkpoints.save(source, name="mine")
        (made,) = await client.checkpoints.list_all()
        assert pinned == [f"checkpoint:{made.id}:{number}" for number in range(2)]
        assert (await client.checkpoints.restore("mine")).name == "agent-2"


async def test_code_that_changed_before_the_checkpoint_is_not_replayed_silently(
    home: Path,
) -> None:
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, KEEPER), restart=ONCE)).pid
        await waiting(kernel, source)
        program(home, KEEPER.replace("hello", "goodbye"))
        made = await client.checkpoints.save(source)
        with pytest.raises(Conflict, match="has changed since the process of checkpoint"):
            await client.checkpoints.restore(made.id)
        program(home, KEEPER)
        assert (await client.checkpoints.restore(made.id)).name == "agent-2"


async def test_a_number_is_an_id_before_it_is_a_name(home: Path) -> None:
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, KEEPER))).pid
        await waiting(kernel, source)
        misnamed = await client.checkpoints.save(source, name=str(source + 2))
        meant = await client.checkpoints.save(source)
        assert misnamed.name == str(meant.id)
        await client.checkpoints.remove(meant.id)
        assert await client.checkpoints.list_all() == (misnamed,)
        await client.checkpoints.remove(misnamed.name)
        assert await client.checkpoints.list_all() == ()
