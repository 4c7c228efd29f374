"""Programs that are forked in their past, on a kernel with a journal and a scripted engine."""

from pathlib import Path

import anyio
import pytest
from tests.kernel.mail.test_post import idle
from tests.kernel.test_programs import ONCE, booted, home, program, work

from aios.abi.budget import Limits
from aios.abi.calls import Chat, GetPid
from aios.abi.contexts import ContextOpen
from aios.abi.fork import Fork
from aios.abi.recovery import Restart
from aios.abi.tools import EffectName, Traits
from aios.abi.types import JsonObject, Message, Pid, Role
from aios.errors import AccessDenied, AiosError, Conflict, NotFound, ResourceExhausted
from aios.kernel.context import shares
from aios.kernel.gate import LocalGate
from aios.kernel.journal.retention import Kept
from aios.kernel.kernel import Kernel
from aios.kernel.tools.builtin.making import make
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job
from aios.sdk.client import Client

__all__ = ["home"]
HELLO = (Message(Role.USER, "hello"),)
pytestmark = pytest.mark.anyio

WRITING = """\
    stamp = client.repeatable.uuid()
    context = client.contexts.open(system="Be brief.")
    context.chat("hello")
    client.files.write("first.txt", str(stamp).encode())
    client.files.write("second.txt", b"second")
    context.chat("and now")
    said = [message.text() for message in context.messages()]
    names = sorted(each.path.rsplit("/")[-1] for each in client.files.list("."))
    mine = client.files.read("first.txt").decode()
    client.exit(0, f"{stamp} {mine} {len(said)} {names} {os.environ.get('COLOR')}")
"""
N_FIRST = 4
"""Calls up to and with the first file: uuid, open, chat, write."""


async def ended(client: Client, pid: int) -> str:
    end = (await client.wait(pid)).exit
    assert end.status == 0, end.reason
    return end.result


async def waiting(kernel: Kernel, pid: int) -> None:
    process = kernel.table.get(Pid(pid))
    while not any(run.name == "receive" and run.is_parked for run in process.runs.values()):
        await anyio.sleep(0.01)


async def test_a_branch_has_journal_contexts_and_files_up_to_its_point_and_goes_on_by_itself(
    home: Path,
) -> None:
    async with booted(home) as (_kernel, client):
        source = await client.spawn(program(home, WRITING), env={"COLOR": "red"})
        was = await ended(client, source.pid)
        branch = await client.journal.fork(source.pid, at=N_FIRST)
        assert (branch.at, branch.name) == (N_FIRST, "agent-fork")
        now = await ended(client, branch.pid)
        assert now == was.replace("red", "None"), (
            "what was told is told again; no environment is kept"
        )
        page = (await client.journal.read(branch.pid)).records
        old = (await client.journal.read(source.pid)).records
        assert [each.ended_unix_s for each in page[:N_FIRST]] == [
            each.ended_unix_s for each in old[:N_FIRST]
        ]
        assert page[N_FIRST].begun_unix_s > old[-1].begun_unix_s, "behind it, it was live"
        versions = await client.files.versions("/agents/agent-fork/first.txt")
        assert len(versions) == 1, "the file came with the branch, and was not written again"
        assert len(await client.files.versions("/agents/agent/second.txt")) == 1


async def test_a_branch_leaves_a_living_process_and_its_contexts_alone(home: Path) -> None:
    source_code = WRITING.replace(
        "    said =",
        '    client.mail.receive() if client.getpid().name == "agent" else 0\n    said =',
    )
    async with booted(home) as (kernel, client):
        source = await client.spawn(program(home, source_code))
        await waiting(kernel, source.pid)
        branches = [await client.journal.fork(source.pid, at=N_FIRST) for _ in range(2)]
        results = [await ended(client, each.pid) for each in branches]
        assert kernel.table.get(source.pid).is_alive
        (context,) = [c for c in await client.contexts.list_all() if c.pid == source.pid]
        assert context.n_messages == 5
        await client.mail.send(source.pid, "go on")
        assert {*results, await ended(client, source.pid)} == {results[0]}


async def test_an_instruction_ends_each_chat_behind_the_point_and_is_not_kept(home: Path) -> None:
    async with booted(home) as (kernel, client):
        source = await client.spawn(program(home, WRITING))
        was = await ended(client, source.pid)
        branch = await client.journal.fork(source.pid, at=N_FIRST, instruction="Speak French.")
        told = kernel.table.get(branch.pid).log.read(0)[0][0].text
        whence = f"is a fork of agent ({source.pid}), live behind call {N_FIRST}"
        assert told == f'{whence}; each chat behind it ends with "Speak French."'
        assert await ended(client, branch.pid) == was, "its context has what its program said"
        old, new = [
            [
                r.answer
                for r in (await client.journal.read(pid, is_full=True)).records
                if r.call == "chat"
            ]
            for pid in (source.pid, branch.pid)
        ]
        assert old[0] == new[0]
        assert prompt_tokens(new[1]) > prompt_tokens(old[1])


def prompt_tokens(answer: JsonObject) -> int:
    usage = answer["usage"]
    assert isinstance(usage, dict)
    found = usage["prompt_tokens"]
    assert isinstance(found, int)
    return found


WITH_TOOLS = """\
    tools = (ToolSpec("look", "x" * 70_000),)
    context = client.contexts.open(system="Be brief.", tools=tools)
    client.files.write("first.txt", str(len(context.messages())).encode())
    client.exit(0, client.files.read("first.txt").decode())
"""


async def test_a_branch_of_a_program_that_gave_too_many_tools_to_keep_is_told_again(
    home: Path,
) -> None:
    code = WITH_TOOLS.replace("    tools", "    from aios.abi.types import ToolSpec\n    tools", 1)
    async with booted(home) as (_kernel, client):
        source = await client.spawn(program(home, code))
        assert await ended(client, source.pid) == "1"
        branch = await client.journal.fork(source.pid, at=3)
        assert await ended(client, branch.pid) == "1"


async def test_a_branch_whose_journal_cannot_be_read_ends_and_the_kernel_does_not(
    home: Path,
) -> None:
    async with booted(home) as (kernel, client):
        source = await client.spawn(program(home, WRITING))
        await ended(client, source.pid)
        forget = "UPDATE journal_records SET effect = 'none that is known'"
        assert kernel.db is not None
        await kernel.db.write(lambda c: c.execute(forget).get)
        branch = await client.journal.fork(source.pid, at=N_FIRST)
        end = (await client.wait(branch.pid)).exit
        assert end.status == 126
        assert "kernel_bug" in end.reason
        assert (await client.getpid()).pid == 1


async def test_a_branch_that_asks_otherwise_diverges_and_says_so(home: Path) -> None:
    async with booted(home) as (_kernel, client):
        source = await client.spawn(program(home, WRITING))
        await ended(client, source.pid)
        program(home, WRITING.replace('"hello"', '"goodbye"'))
        branch = await client.journal.fork(source.pid, at=N_FIRST)
        end = (await client.wait(branch.pid)).exit
        assert end.status == 1
        assert "asks chat where it asked chat before (call 3" in end.reason


LATER = """\
    with Path("lives").open("a") as lives:
        lives.write(".")
    if Path("lives").stat().st_size == 1:
        for _ in range(5):
            client.files.append("/shared/first.txt", ".")
        sys.exit(0)
    for _ in range(2):
        client.files.append("/shared/runs.txt", client.mail.receive().body)
"""


async def test_a_branch_of_a_later_life_that_has_asked_nothing_yet_is_not_begun_twice(
    home: Path,
) -> None:
    async with booted(home) as (kernel, client):
        source = await client.spawn(
            program(home, LATER), restart=Restart("always", delay_s=0.01), cwd=work(home)
        )
        await waiting(kernel, source.pid)
        branch = await client.journal.fork(source.pid)
        await waiting(kernel, branch.pid)
        await client.mail.send(branch.pid, "x")
        while len(await client.files.list("/shared")) < 2:
            await anyio.sleep(0.01)
        await waiting(kernel, branch.pid)
        first, *_ = (await client.journal.read(branch.pid)).records
        assert first.seq == 6, "its calls are numbered on"
        n_calls = kernel.table.get(branch.pid).n_journalled
    async with booted(home) as (kernel, client):
        await waiting(kernel, branch.pid)
        assert kernel.table.get(branch.pid).n_journalled >= n_calls
        assert await client.files.read("/shared/runs.txt") == b"x", "the letter was not lost"
        await client.mail.send(branch.pid, "y")
        while await client.files.read("/shared/runs.txt") != b"xy":
            await anyio.sleep(0.01)


async def test_a_branch_goes_on_under_the_next_kernel_as_one_that_crashed(home: Path) -> None:
    code = WRITING.replace("    said =", "    client.mail.receive()\n    said =")
    async with booted(home) as (kernel, client):
        source = await client.spawn(program(home, code), restart=ONCE)
        await waiting(kernel, source.pid)
        branch = await client.journal.fork(source.pid, at=N_FIRST, budget=Limits(children=3))
        await waiting(kernel, branch.pid)
    async with booted(home) as (kernel, client):
        assert kernel.budgets.info(branch.pid).limits.children == 3
        for pid in (source.pid, branch.pid):
            await client.mail.send(pid, "go on")
        assert await ended(client, source.pid) == await ended(client, branch.pid)
        later = await client.journal.fork(source.pid, at=0)
        await client.mail.send(later.pid, "go on")
        assert await ended(client, later.pid) != "", (
            "an ended one of the kernel before can be forked"
        )


async def refused(kernel: Kernel, pid: int, call: Fork, error: type[AiosError]) -> None:
    n_before = len(kernel.table)
    with pytest.raises(error):
        await LocalGate(kernel, kernel.table.get(Pid(pid))).call(call)
    assert len(kernel.table) == n_before, "nothing is left of it"


async def test_what_cannot_be_forked_is_refused_and_leaves_nothing(home: Path) -> None:
    async with booted(home) as (kernel, client):
        source = await client.spawn(program(home, WRITING))
        await ended(client, source.pid)
        guest = (await client.admit("guest")).pid
        await kernel.gate(guest).call(GetPid())
        await refused(kernel, 1, Fork(pid=source.pid, at=99), NotFound)
        await refused(kernel, 1, Fork(pid=guest), Conflict)
        await refused(kernel, 1, Fork(pid=Pid(1)), Conflict)
        await refused(kernel, guest, Fork(pid=source.pid), AccessDenied)


async def test_forks_of_forks_that_all_pay_for_one_another_are_bounded(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who forks, ends the source and forks the fork would make what each call reserves longer, without end."""
    monkeypatch.setattr("aios.kernel.spending.MAX_PAYERS", 2)
    async with booted(home) as (kernel, client):
        source = await client.spawn(program(home, WRITING))
        await ended(client, source.pid)
        first = await client.journal.fork(source.pid)
        await refused(kernel, 1, Fork(pid=first.pid), ResourceExhausted)
        await client.journal.fork(first.pid, budget=Limits(calls=9))
        await client.journal.fork(source.pid)


ACTING = """\
    from aios.errors import OutcomeUnknown
    client.files.write("a.txt", b"a")
    try:
        said = client.tools.run("post").text
    except OutcomeUnknown:
        said = "unknown"
    client.exit(0, said)
"""


@pytest.mark.parametrize(
    ("effect", "n_runs", "said"),
    [("pure", 3, "posted"), ("reversible", 1, "unknown"), ("irreversible", 1, "unknown")],
)
async def test_a_call_that_the_source_is_in_the_middle_of_is_not_made_by_its_branch(
    home: Path, effect: EffectName, n_runs: int, said: str
) -> None:
    began, go, runs = anyio.Event(), anyio.Event(), list[Pid]()

    async def post(job: Job) -> Outcome:
        runs.append(job.run.process.pid)
        began.set()
        await go.wait()
        return Outcome("posted")

    async with booted(home) as (kernel, client):
        tool = make("post", "Post it.", post, parameters={}, traits=Traits(effect=effect))
        kernel.tools.install([tool])
        source = await client.spawn(program(home, ACTING))
        await began.wait()
        fork = await client.journal.fork(source.pid)
        made = await client.checkpoints.save(source.pid)
        back = await client.checkpoints.restore(made.id)
        go.set()
        assert await ended(client, source.pid) == "posted"
        assert await ended(client, fork.pid) == said
        assert await ended(client, back.pid) == said
        assert len(runs) == n_runs


async def test_who_has_ended_is_forked_as_long_as_its_journal_is_there(home: Path) -> None:
    async with booted(home) as (kernel, client):
        source = await client.spawn(program(home, WRITING))
        await ended(client, source.pid)
        disk, n_before = kernel.journal.disk, len(kernel.table)
        assert disk is not None
        await disk.sweep(Kept({}, float("inf"), 0, kernel.table.last_pid))
        with pytest.raises(NotFound, match="its journal is gone"):
            await client.journal.fork(source.pid)
        with pytest.raises(NotFound, match="its journal is gone"):
            await client.checkpoints.save(source.pid)
        assert len(kernel.table) == n_before, "nothing is left of it"


async def test_who_ends_and_is_forgotten_while_it_is_forked_is_not_forked_from_the_beginning(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted(home) as (kernel, client):
        source = await client.spawn(program(home, MAILING))
        disk, write_down = kernel.journal.disk, kernel.programs.write_down
        assert disk is not None

        async def late(*args: object) -> object:
            await client.kill(source.pid)
            await disk.sweep(Kept({}, float("inf"), 0, kernel.table.last_pid))
            return await write_down(*args)  # type: ignore[arg-type]  # as they came

        monkeypatch.setattr(kernel.programs, "write_down", late)
        with pytest.raises(NotFound, match="its journal is gone"):
            await client.journal.fork(source.pid)
        assert not [row for row in await client.ps() if row.name == "program-fork"]


async def test_no_branch_is_called_like_an_agent_that_has_left_notes(home: Path) -> None:
    async with booted(home) as (kernel, client):
        namesake = kernel.spawn_task("agent-fork", idle)
        await Client(kernel.gate(namesake)).memory.remember("of the namesake")
        await client.kill(namesake)
        source = await client.spawn(program(home, "    client.mail.receive()\n"))
        await waiting(kernel, source.pid)
        fork = await client.journal.fork(source.pid)
        assert fork.name == "agent-fork-2"
        assert [n async for n in Client(kernel.gate(fork.pid)).memory.notes()] == []


MAILING = """\
    client.memory.log("began")
    client.mail.subscribe("news")
    first = client.mail.receive().body
    client.memory.log("got " + first)
    second = client.mail.receive().body
    client.memory.log("got " + second)
    client.mail.receive(topic="news")
    rest = [each.body for each in client.mail.take().letters]
    log = [each.text for each in client.memory.read(limit=9).records]
    client.exit(0, " ".join([first, second, *rest, *log]))
"""


async def test_a_branch_has_mail_topics_and_short_term_memory_of_then_or_of_now(home: Path) -> None:
    async with booted(home) as (_kernel, client):
        source = await client.spawn(program(home, MAILING))
        for body in ("one", "two", "three"):
            await client.mail.send(source.pid, body)
        first = await third_receive(client, source.pid)
        now = await client.journal.fork(source.pid)
        then = await client.journal.fork(source.pid, at=first)
        await client.mail.send(source.pid, "late")
        for pid in (now.pid, then.pid):
            await third_receive(client, pid)
        assert (await client.mail.publish("news", "")).n_delivered == 3
        told = "one two three began got one got two"
        assert await ended(client, now.pid) == await ended(client, then.pid) == told
        assert await ended(client, source.pid) == told.replace("three", "three late")


async def third_receive(client: Client, pid: int) -> int:
    """Wait until a process has taken two letters. Returns: its first call that took one."""
    while True:
        records = (await client.journal.read(pid)).records
        taken = [each.seq for each in records if each.call == "receive" and each.outcome == "done"]
        if len(taken) == 2:
            return taken[0]
        await anyio.sleep(0.01)


async def test_branches_of_a_process_spend_from_what_it_has_left_also_under_the_next_kernel(
    home: Path,
) -> None:
    code = """\
    client.chat("hello", max_tokens=1)
    client.mail.receive()
"""
    async with booted(home) as (kernel, client):
        source = await client.spawn(program(home, code), restart=ONCE, budget=Limits(calls=3))
        await waiting(kernel, source.pid)
        branches = [await client.journal.fork(source.pid) for _ in range(2)]
        for pid in (branches[0].pid, source.pid):
            await waiting(kernel, pid)
            await kernel.gate(Pid(pid)).call(Chat(messages=HELLO))
        assert [kernel.budgets.info(each.pid).left.calls for each in branches] == [0, 0]
        own = await client.journal.fork(source.pid, budget=Limits(calls=7))
        assert kernel.budgets.info(own.pid).left.calls == 7, (
            "a budget of its own is the owner's gift"
        )
    async with booted(home) as (kernel, client):
        assert kernel.budgets.info(branches[1].pid).left.calls == 0
        assert kernel.budgets.info(own.pid).left.calls == 7


async def test_branches_are_of_the_family_of_their_source_also_under_the_next_kernel(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "MAX_FAMILY_BYTES", 30_000)
    large = ContextOpen(messages=(Message(Role.USER, "x" * 12_000),))
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, "    client.mail.receive()"), restart=ONCE)).pid
        await waiting(kernel, source)
        made = [each.pid for each in (await client.branches.start(2, pid=source)).branches]
        made.append((await client.journal.fork(source)).pid)
        for pid in made:
            await waiting(kernel, pid)
    async with booted(home) as (kernel, _):
        for pid in (source, *made):
            await waiting(kernel, pid)
        one, two, fork = made
        await kernel.gate(source).call(large)
        await kernel.gate(one).call(large)
        with pytest.raises(ResourceExhausted, match="agent and what it started hold 2"):
            await kernel.gate(two).call(large)
        await kernel.gate(fork).call(large)
        kernel.check_invariants()
