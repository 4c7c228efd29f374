"""Branches that are begun together, held in, and ended together, on a kernel with a journal and a scripted engine."""

from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import apsw
import pytest
from tests.kernel.forking.test_forks import ended, waiting
from tests.kernel.mail.test_post import idle
from tests.kernel.test_programs import ONCE, booted, home, program

from aios.abi.branches import BranchEnd, BranchJoin
from aios.abi.budget import Limits
from aios.abi.recovery import Restart
from aios.abi.taint import Taint
from aios.abi.types import Exit, Pid
from aios.errors import (
    AccessDenied,
    AiosError,
    BudgetExceeded,
    Conflict,
    DiskFailed,
    NotFound,
    ProcessGone,
)
from aios.kernel.kernel import Kernel
from aios.kernel.process import Process
from aios.kernel.taint import mark
from aios.sdk.client import Client
from aios.sdk.memory import Memory

__all__ = ["home"]
pytestmark = pytest.mark.anyio

ITSELF = """\
    client.files.write("plan.txt", b"plan")
    client.files.write("same.txt", b"same")
    client.memory.log("began")
    context = client.contexts.open(system="Be brief.")
    context.chat("hello")
    fork = client.branches.start(3)
    if fork.index:
        client.files.write("plan.txt", f"plan {fork.index}".encode())
        client.files.write(f"only-{fork.index}.txt", b"mine")
        client.memory.log(f"tried {fork.index}")
        client.memory.remember(f"number {fork.index} of the seven seas")
        client.mail.send(1, f"{fork.index} is ready")
        client.mail.receive()
        client.branches.commit(f"{fork.index} after {len(context.messages())}")
    end = client.branches.join(fork.group)
    names = sorted(each.path.rsplit("/")[-1] for each in client.files.list("."))
    log = [each.text for each in client.memory.read(limit=9).records]
    notes = [hit.note.text for hit in client.memory.recall("seas").hits]
    client.exit(0, f"{end.result}|{names}|{client.files.read('plan.txt').decode()}|{log}|{notes}")
"""


async def test_a_process_branches_itself_and_the_first_commit_wins(home: Path) -> None:
    async with booted(home) as (kernel, client):
        source = await client.spawn(program(home, ITSELF))
        ready = [await client.mail.receive() for _ in range(3)]
        (group,) = await client.branches.list_all()
        assert (group.state, group.source) == ("open", source.pid)
        two = group.branches[1].pid
        await client.mail.send(two, "go")
        assert await ended(client, source.pid) == (
            "2 after 3|['only-2.txt', 'plan.txt', 'same.txt']|plan 2|['began', 'tried 2']|['number 2 of the seven seas']"
        )
        assert {each.body for each in ready} == {"1 is ready", "2 is ready", "3 is ready"}
        assert (await client.wait(two)).exit.status == 0
        (group,) = await client.branches.list_all()
        assert (group.state, group.winner) == ("committed", two)
        losers = {each.pid for each in group.branches} - {two}
        await nothing_is_left(kernel, client, losers)


async def nothing_is_left(kernel: Kernel, client: Client, losers: set[Pid]) -> None:
    """No file, version, note, record, letter, context or journal record of branches is there."""
    for pid in losers:
        assert not kernel.table.get(pid).is_alive
    db, _, _ = kernel.storage.parts
    disk = kernel.journal.disk
    assert disk is not None
    await disk.flush()
    for query in (
        "SELECT path FROM versions WHERE path GLOB '/agents/*-branch-*'",
        "SELECT root FROM usage WHERE root GLOB '/agents/*-branch-*'",
        "SELECT name FROM memory_interactions WHERE name GLOB '*-branch-*'",
        "SELECT text FROM memory_notes n JOIN memory_spaces s ON s.id = n.space WHERE s.name GLOB '*-branch-*'",
        "SELECT receiver FROM letters WHERE receiver IN (SELECT value FROM json_each(?1))",
        "SELECT pid, seq FROM journal_records WHERE pid IN (SELECT value FROM json_each(?1))",
    ):
        assert await db.read(partial(asked, query, str(sorted(losers)))) == []
    assert not [each for each in await client.contexts.list_all() if each.pid in losers]
    assert (await client.files.check()).faults == ()


def asked(query: str, pids: str, connection: apsw.Connection) -> list[object]:
    return list(connection.execute(query, (pids,) if "?1" in query else ()))


HELD = """\
    client.files.write("draft.txt", b"draft")
    while True:
        client.files.write("draft.txt", client.mail.receive().body.encode())
"""


async def started(kernel: Kernel, client: Client, home: Path, n: int) -> tuple[Pid, list[Pid], int]:
    """A process that waits, and branches of it that wait."""
    source = (await client.spawn(program(home, HELD))).pid
    await waiting(kernel, source)
    fork = await client.branches.start(n, pid=source)
    pids = [each.pid for each in fork.branches]
    for pid in pids:
        await waiting(kernel, pid)
    return source, pids, fork.group


async def test_what_a_branch_does_stays_in_it_until_it_is_committed(home: Path) -> None:
    async with booted(home) as (kernel, client):
        _, (one, two), group = await started(kernel, client, home, 2)
        mine = Client(kernel.gate(one))
        await mine.files.write("draft.txt", b"better")
        assert await client.files.read("/agents/agent/draft.txt") == b"draft"
        for act in (
            mine.files.write("/shared/seen.txt", b"by all"),
            mine.files.share("draft.txt", "/agents/other"),
            mine.files.purge("draft.txt", keep=1),
            mine.memory.remember("for all", scope="group"),
            mine.mail.send(two, "psst"),
            mine.mail.publish("news", "to all"),
            mine.tools.run("spawn_agent", {"task": "x"}),
        ):
            with pytest.raises(AccessDenied, match="branch"):
                await act
        end = await client.branches.commit(pid=one)
        assert (end.winner, end.n_changed, end.discarded) == (one, 1, (two,))
        assert await client.files.read("/agents/agent/draft.txt") == b"better"
        assert (await client.branches.join(group)) == end
        with pytest.raises(Conflict, match=f"branch {one} was committed first"):
            await client.branches.commit(pid=two)
        await nothing_is_left(kernel, client, {two})


KEEPING = """\
    client.memory.remember("before")
    client.memory.log("before")
    while True:
        client.mail.receive()
"""


async def test_the_memory_of_a_child_is_that_of_its_branch_and_not_of_a_namesakes(
    home: Path,
) -> None:
    async with booted(home) as (kernel, client):
        boss = kernel.spawn_task("boss", idle)
        namesake = Client(kernel.gate(kernel.spawn_task("agent", idle)))
        await namesake.memory.remember("of the namesake")
        await namesake.memory.log("of the namesake")
        await client.kill((await namesake.getpid()).pid)
        source = (await Client(kernel.gate(boss)).spawn(program(home, KEEPING))).pid
        await waiting(kernel, source)
        mine = Client(kernel.gate(source)).memory
        (fork,) = (await client.branches.start(1, pid=source)).branches
        await waiting(kernel, fork.pid)
        branch = Client(kernel.gate(fork.pid)).memory
        assert await kept(branch) == (["before"], ["before"])
        await branch.remember("behind")
        await branch.log("behind")
        assert await kept(mine) == (["before"], ["before"])
        await client.branches.commit(pid=fork.pid)
        assert await kept(mine) == (["before", "behind"], ["before", "behind"])
        whose = {note.text: note.agent async for note in client.memory.notes(scopes=["agent"])}
        assert whose == {
            "of the namesake": "agent",
            "before": "boss/agent",
            "behind": "boss/agent",
        }
        await nothing_is_left(kernel, client, set())


async def test_what_a_branch_starts_reads_no_note_of_its_source(home: Path) -> None:
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, KEEPING))).pid
        await waiting(kernel, source)
        (fork,) = (await client.branches.start(1, pid=source)).branches
        await waiting(kernel, fork.pid)
        branch = Client(kernel.gate(fork.pid))
        kid = Client(kernel.gate((await branch.spawn(program(home, HELD), name="kid")).pid))
        assert await kept(branch.memory) == (["before"], ["before"])
        assert await kept(kid.memory) == ([], [])
        assert (await kid.memory.recall("before")).hits == ()
        note = (await branch.memory.recall("before")).hits[0].note.id
        with pytest.raises(NotFound):
            await kid.memory.get(note)


async def kept(memory: Memory) -> tuple[list[str], list[str]]:
    """The notes of an agent, and its records."""
    notes = [note.text async for note in memory.notes(scopes=["agent"])]
    return notes, [each.text for each in (await memory.read(limit=9)).records]


async def test_who_joins_a_group_has_the_mark_of_its_winner(home: Path) -> None:
    async with booted(home) as (kernel, client):
        source, (one, _), group = await started(kernel, client, home, 2)
        mark(kernel.table.get(one), "tool web")
        await client.branches.commit("pay bob", pid=one)
        assert kernel.table.get(source).taint is None
        await kernel.gate(source).call(BranchJoin(group=group))
        taint = kernel.table.get(source).taint
        assert taint is not None
        assert taint == Taint("tool web", f"branch group {group}", taint.seq)


async def test_a_change_outside_since_the_fork_is_a_conflict_and_merges_nothing(home: Path) -> None:
    async with booted(home) as (kernel, client):
        source, (one, two), group = await started(kernel, client, home, 2)
        await Client(kernel.gate(one)).files.write("draft.txt", b"of the branch")
        await Client(kernel.gate(one)).files.write("new.txt", b"of the branch")
        await Client(kernel.gate(two)).files.write("new.txt", b"of the other branch")
        await client.files.write("/agents/agent/draft.txt", b"of the owner")
        with pytest.raises(Conflict, match=r"changed draft\.txt, and so did others"):
            await client.branches.commit(pid=one)
        assert [each.path for each in await client.files.list("/agents/agent")] == [
            "/agents/agent/draft.txt"
        ]
        assert not any(kernel.table.get(pid).is_stopped for pid in (source, one, two)), "all go on"
        end = await client.branches.commit(pid=two)
        assert end.n_changed == 1, "what only others changed stays as they have it"
        assert await client.files.read("/agents/agent/draft.txt") == b"of the owner"
        assert await client.files.read("/agents/agent/new.txt") == b"of the other branch"
        with pytest.raises(Conflict):
            await client.branches.discard(group)


async def test_branches_of_a_branch_go_with_it_and_discard_cuts_running_calls_off(
    home: Path,
) -> None:
    async with booted(home) as (kernel, client):
        source, (one, two), group = await started(kernel, client, home, 2)
        inner = await client.branches.start(2, pid=one)
        for each in inner.branches:
            await waiting(kernel, each.pid)
        await Client(kernel.gate(inner.branches[0].pid)).files.write("deep.txt", b"deep")
        await client.branches.commit(pid=inner.branches[0].pid)
        assert await client.files.read("/agents/agent-branch-1/deep.txt") == b"deep"
        again = await client.branches.start(3, pid=one)
        async with anyio.create_task_group() as tasks:

            async def talk() -> None:
                mine = Client(kernel.gate(two))
                with suppress(ProcessGone):
                    while True:
                        await mine.chat("hello")
                        await mine.files.append("said.txt", b"hello")

            tasks.start_soon(talk)
            while "chat" not in {run.name for run in kernel.table.get(two).runs.values()}:
                await anyio.sleep(0.01)
            end = await client.branches.discard(group)
        assert end.winner is None
        assert set(end.discarded) == {one, two, *(each.pid for each in again.branches)}
        await nothing_is_left(
            kernel,
            client,
            {one, two, *(each.pid for each in (*inner.branches, *again.branches))}
            - {inner.branches[0].pid},
        )
        assert kernel.table.get(source).is_alive


async def test_together_branches_spend_what_their_source_has_left_and_nothing_more(
    home: Path,
) -> None:
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, HELD), budget=Limits(calls=7))).pid
        await waiting(kernel, source)
        fork = await client.branches.start(3, pid=source)
        outer = fork.branches[0].pid
        inner = await client.branches.start(2, pid=outer)
        pids = [each.pid for each in (*fork.branches, *inner.branches)]
        for pid in pids:
            await waiting(kernel, pid)
        lefts = [kernel.budgets.info(pid).left.calls for pid in pids]
        assert lefts == [2, 2, 2, 1, 1], "equal shares, and shares of shares"
        async with anyio.create_task_group() as tasks:
            for pid in (source, *pids):
                await client.set_budget(pid, kernel.budgets.info(pid).limits, on_breach="fail")
                for _ in range(9):
                    tasks.start_soon(chat, Client(kernel.gate(pid)))
        assert kernel.budgets.info(source).spent.calls == 7
        assert all(kernel.budgets.info(pid).spent.calls <= 2 for pid in pids)
        await client.branches.discard(fork.group)
        assert kernel.budgets.info(source).spent.calls == 7, "what is spent is spent"


async def chat(client: Client) -> None:
    with suppress(BudgetExceeded):
        await client.chat("hello", max_tokens=1)


async def test_a_branch_that_is_let_go_on_in_a_commit_waits_until_that_has_failed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it did behind the merge would be acknowledged, and lost."""
    async with booted(home) as (kernel, client):
        _, (one, two), group = await started(kernel, client, home, 2)
        mine = Client(kernel.gate(one))
        await client.stop(one)

        async def fail(*_: object) -> BranchEnd:
            await client.cont(one)
            with anyio.move_on_after(0.1):
                await mine.files.write("late.txt", b"late")
            assert not await mine_of(one, "late.txt")
            raise Conflict("it does not fit", hint="")

        async def mine_of(pid: Pid, name: str) -> bool:
            confines = kernel.table.get(pid).confines
            assert confines is not None
            path = confines.home
            return any(each.path.endswith(name) for each in await client.files.list(path))

        with monkeypatch.context() as patch:
            patch.setattr(kernel.branches, "_decide", fail)
            with pytest.raises(Conflict, match="does not fit"):
                await client.branches.commit(pid=two)
        await mine.files.write("late.txt", b"late")
        assert await mine_of(one, "late.txt")
        await client.branches.discard(group)


async def test_two_commits_at_once_have_one_winner(home: Path) -> None:
    async with booted(home) as (kernel, client):
        _, pids, group = await started(kernel, client, home, 4)
        ends = list[object]()

        async def commit(pid: Pid) -> None:
            try:
                await Client(kernel.gate(pid)).files.write("draft.txt", f"{pid}".encode())
                ends.append(await Client(kernel.gate(pid)).branches.commit(f"{pid}"))
            except AiosError as error:
                ends.append(error)

        async with anyio.create_task_group() as tasks:
            for pid in pids:
                tasks.start_soon(commit, pid)
        (won,) = [each for each in ends if isinstance(each, BranchEnd)]
        assert await client.branches.join(group) == won
        assert await client.files.read("/agents/agent/draft.txt") == won.result.encode()
        assert (await client.wait(Pid(int(won.result)))).exit.result == won.result
        await nothing_is_left(kernel, client, set(won.discarded))


async def test_groups_and_their_walls_are_there_under_the_next_kernel(home: Path) -> None:
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, HELD), restart=ONCE)).pid
        await waiting(kernel, source)
        fork = await client.branches.start(2, pid=source)
        for each in fork.branches:
            await waiting(kernel, each.pid)
    async with booted(home) as (kernel, client):
        one, two = [each.pid for each in fork.branches]
        await waiting(kernel, one)
        with pytest.raises(AccessDenied, match="is a branch"):
            await Client(kernel.gate(one)).files.write("/shared/x.txt", b"x")
        await Client(kernel.gate(one)).files.write("draft.txt", b"later")
        end = await client.branches.commit("well", pid=one)
        assert await client.files.read("/agents/agent/draft.txt") == b"later"
    async with booted(home) as (kernel, client):
        assert await client.branches.join(fork.group) == end
        assert not kernel.table.get(two).is_alive
        later = await client.branches.start(1, pid=source)
        assert later.group == fork.group + 1


@pytest.mark.parametrize("is_decided", [False, True])
async def test_a_kernel_that_dies_in_a_commit_has_merged_all_or_nothing(
    home: Path, *, is_decided: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, HELD), restart=ONCE)).pid
        await waiting(kernel, source)
        fork = await client.branches.start(2, pid=source)
        one, two = [each.pid for each in fork.branches]
        for number, pid in enumerate((one, two), 1):
            await waiting(kernel, pid)
            await client.mail.send(pid, f"{pid}")
            while await client.files.read(f"/agents/agent-branch-{number}/draft.txt") == b"draft":
                await anyio.sleep(0.01)
        await Client(kernel.gate(two)).mail.send(1, "from the loser")
        monkeypatch.setattr(
            kernel.branches, "_bury" if is_decided else "_decide", partial(died, kernel)
        )
        with pytest.raises(DiskFailed, match="died"):
            await client.branches.commit("won", pid=one)
    monkeypatch.undo()
    async with booted(home) as (kernel, client):
        (group,) = await client.branches.list_all()
        content = await client.files.read("/agents/agent/draft.txt")
        if is_decided:
            assert (group.state, group.winner, content) == ("committed", one, f"{one}".encode())
            assert (await client.wait(one)).exit == Exit(0, "committed", "won")
            await nothing_is_left(kernel, client, {two})
            assert not (await client.mail.take()).letters, "nor what it wrote to others"
        else:
            assert (group.state, content) == ("open", b"draft")
            await waiting(kernel, one)
            assert not kernel.table.get(one).is_stopped
            assert (await client.branches.commit(pid=one)).n_changed == 1


async def died(kernel: Kernel, *_: object) -> None:
    kernel.is_stopping = True  # from here on no process is written down as ended or let go on
    raise DiskFailed("the kernel died")


SLEEPER = """\
    until = client.repeatable.now() + 0.7
    client.timers.sleep_until(until)
    client.files.write("woke.txt", b"yes")
    client.exit(0, "awake")
"""


async def test_a_process_that_sleeps_is_branched_and_put_away_asleep(home: Path) -> None:
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, SLEEPER))).pid
        process = kernel.table.get(source)
        while not any(run.name == "sleep_until" for run in process.runs.values()):
            await anyio.sleep(0.01)
        fork = await client.branches.start(1, pid=source)
        made = await client.checkpoints.save(source)
        assert await ended(client, source) == "awake"
        assert await ended(client, fork.branches[0].pid) == "awake"
        assert (await client.branches.join(fork.group)).winner is None
        end = await client.branches.commit(pid=fork.branches[0].pid)
        assert end.n_changed == 1, "it wrote the same as its source, which is no conflict"
        back = await client.checkpoints.restore(made.id)
        assert await ended(client, back.pid) == "awake", "a moment that is over is answered at once"


LEAVING = """\
    client.mail.receive()
    client.exit(0)
    time.sleep(60)
"""


async def leaving(kernel: Kernel, client: Client, home: Path) -> tuple[Process, int]:
    """A branch that always starts again and has just asked to exit, and its group."""
    always = Restart("always", delay_s=0.01)
    source = (await client.spawn(program(home, LEAVING), restart=always)).pid
    await waiting(kernel, source)
    fork = await client.branches.start(1, pid=source)
    branch = kernel.table.get(fork.branches[0].pid)
    await client.mail.send(branch.pid, "go")
    while branch.exiting is None:
        await anyio.sleep(0.001)
    return branch, fork.group


async def test_a_branch_that_exits_and_would_start_again_ends_with_its_group(home: Path) -> None:
    async with booted(home) as (kernel, client):
        branch, group = await leaving(kernel, client, home)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.branches.discard, group)
            with anyio.fail_after(30):  # around the call it would end nothing: that is shielded
                await branch.wait_ended()


async def test_a_branch_that_starts_again_while_its_group_ends_is_held(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted(home) as (kernel, client):
        branch, group = await leaving(kernel, client, home)

        async def fails_late(*_: object) -> None:
            while branch.exiting is not None or branch.os_pid is None:
                await anyio.sleep(0.01)
            assert branch.is_stopped
            raise DiskFailed("not now")

        monkeypatch.setattr(kernel.branches, "_decide", fails_late)
        with pytest.raises(DiskFailed, match="not now"):
            await client.branches.discard(group)
        monkeypatch.undo()
        await waiting(kernel, branch.pid)
        await client.branches.discard(group)
        assert not branch.is_alive
