"""Programs that are started again, under one kernel after another in this very interpreter."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from aios.abi.calls import ExitSelf
from aios.abi.recovery import AnswerQuestion, OnDivergence, Restart, RestartPolicy
from aios.abi.tools import Traits
from aios.abi.types import Exit, Pid
from aios.config import Config, EngineConfig, Home, ServerConfig
from aios.configload import Loaded
from aios.engine.scripted import ScriptedEngine
from aios.errors import Conflict, ProcessGone
from aios.kernel.gate import LocalGate
from aios.kernel.journal import tables
from aios.kernel.journal.records import Effect, Record
from aios.kernel.journal.records import Outcome as Outcomes
from aios.kernel.journal.tables import Row
from aios.kernel.kernel import Kernel
from aios.kernel.replay import Replay
from aios.kernel.sandbox.scratch import scratch_folder
from aios.kernel.tools.builtin.making import make
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job
from aios.sdk.client import Client
from aios.sdk.requests import build
from aios.server.daemon import open_server

pytestmark = pytest.mark.anyio

ONCE = Restart(policy="on-failure", delay_s=0.01)


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_folder("p") as folder:
        yield folder


@asynccontextmanager
async def booted(home: Path, *, is_durable: bool = True) -> AsyncIterator[tuple[Kernel, Client]]:
    config = Config(engine=EngineConfig(kind="scripted"), server=ServerConfig(port=0))
    loaded = Loaded(config, Home(home), home / "config.toml")
    engines = {"local": ScriptedEngine()}
    with anyio.fail_after(60):
        opened = open_server(loaded, http=False, engines=engines, is_durable=is_durable)
        async with opened as kernel:
            yield kernel, Client(kernel.init_gate())
            kernel.check_invariants()


def work(home: Path) -> Path:
    """A folder that programs may change: that of the kernel itself is given to none."""
    folder = home / "work"
    folder.mkdir(exist_ok=True)
    return folder


def program(home: Path, source: str) -> str:
    folder = home / "agent"
    folder.mkdir(exist_ok=True)
    (folder / "agent.toml").write_text('name = "agent"\n')
    head = "import os, sys, time\nfrom pathlib import Path\nfrom aios.sdk.blocking import connect\n"
    (folder / "main.py").write_text(f"{head}with connect() as client:\n{source}")
    return str(folder)


COUNTING = """\
    here = Path(os.environ["HERE"])
    stamp = client.repeatable.uuid()
    client.files.append("/shared/runs.txt", f"{stamp}\\n")
    context = client.contexts.open(system="Be brief.")
    context.chat("hello")
    if not here.exists():
        here.touch()
        os._exit(3)
    client.exit(0, f"{stamp} {len(context.messages())}")
"""


async def test_a_program_that_crashed_goes_on_where_it_was(home: Path) -> None:
    async with booted(home) as (kernel, client):
        path = program(home, COUNTING)
        spawned = await client.spawn(
            path, restart=ONCE, cwd=work(home), env={"HERE": str(work(home) / "here")}
        )
        end = (await client.wait(spawned.pid)).exit
        stamp, n_messages = end.result.split()
        assert (await client.files.read("/shared/runs.txt")).decode().split() == [stamp]
        assert int(n_messages) == 3, "its context came back: system, question, answer"
        told = [line.text for line in kernel.table.get(spawned.pid).log.read(0)[0]]
        assert any("starts again with its journal" in line for line in told)
        assert not any("next kernel" in line for line in told)


async def test_without_a_journal_on_disk_a_program_that_crashed_begins_anew_and_it_is_said(
    home: Path,
) -> None:
    async with booted(home, is_durable=False) as (kernel, client):
        path = program(home, COUNTING)
        spawned = await client.spawn(
            path, restart=ONCE, cwd=work(home), env={"HERE": str(work(home) / "here")}
        )
        assert (await client.wait(spawned.pid)).exit.status == 0
        assert len((await client.files.read("/shared/runs.txt")).split()) == 2
        told = [line.text for line in kernel.table.get(spawned.pid).log.read(0)[0]]
        assert any("starts again from the beginning" in line for line in told)
        assert ["the next kernel does not bring it back" in line for line in told].count(True) == 1
        with pytest.raises(Conflict, match="no journal on disk") as refused:
            await client.journal.fork(spawned.pid)
        assert "journal.is_on" in refused.value.hint


TERMINATED = """\
    import signal
    if sys.argv[1:] == ["cleans-up"]:
        signal.signal(signal.SIGTERM, lambda *_: client.exit(5, "cleaned up") or sys.exit(5))
    client.log("ready")
    time.sleep(60)
"""


@pytest.mark.parametrize(("args", "status"), [((), 143), (("cleans-up",), 5)])
async def test_term_ends_a_program_which_may_clean_up_and_is_not_started_again(
    home: Path, args: tuple[str, ...], status: int
) -> None:
    async with booted(home) as (kernel, client):
        restart = Restart(policy="always", delay_s=0.01)
        spawned = await client.spawn(program(home, TERMINATED), *args, restart=restart)
        log = kernel.table.get(spawned.pid).log
        while not any(line.text == "ready" for line in log.read(0)[0]):
            await log.wait_changed()
        assert await client.signal(spawned.pid, "TERM") == (spawned.pid,)
        assert (await client.wait(spawned.pid)).exit.status == status


async def test_term_ends_a_program_that_waits_to_be_started_again(home: Path) -> None:
    async with booted(home) as (kernel, client):
        restart = Restart(policy="always", delay_s=3600)
        spawned = await client.spawn(program(home, "    pass\n"), restart=restart)
        process = kernel.table.get(spawned.pid)
        while not any("starts again" in line.text for line in process.log.read(0)[0]):
            await process.log.wait_changed()
        await anyio.wait_all_tasks_blocked()
        assert process.info(0.0).activity == "starts again soon"
        await client.signal(spawned.pid, "TERM")
        assert (await client.wait(spawned.pid)).exit.status == 143


async def test_orphans_are_inits_also_under_the_next_kernel(home: Path) -> None:
    async with booted(home) as (kernel, client):
        parent = (await client.admit("parent")).pid
        orphan, _ = kernel.admit("orphan", parent=kernel.table.get(parent))
        await kernel.gate(parent).call(ExitSelf())
        assert (await client.wait(parent)).exit.status == 0
        events = (await client.journal.events(after=0, is_waiting=False)).events
        told = [(each.pid, each.what) for each in events if each.record is None]
        assert told == [(parent, "exited"), (orphan.pid, "adopted")]
    async with booted(home) as (kernel, client):
        assert kernel.table.get(orphan.pid).ppid == 1
        assert orphan.pid in kernel.init.children


async def test_a_parent_hears_also_of_children_that_ended_with_their_kernel(home: Path) -> None:
    async with booted(home) as (kernel, client):
        parent = (await client.admit("parent")).pid
        await Client(kernel.gate(parent)).mail.subscribe("child.exit")
        child, _ = kernel.admit("child", parent=kernel.table.get(parent))
        await client.kill(child.pid)
        lost = kernel.spawn_task("lost", lambda _: anyio.sleep_forever(), ppid=parent)
    async with booted(home) as (kernel, _):
        letters = (await Client(kernel.gate(parent)).mail.take()).letters
        assert [each.sender for each in letters] == [child.pid, lost]
    async with booted(home) as (kernel, _):
        assert (await Client(kernel.gate(parent)).mail.take()).letters == ()


async def test_without_a_policy_a_crash_is_the_end(home: Path) -> None:
    async with booted(home) as (_, client):
        spawned = await client.spawn(program(home, "    os._exit(3)\n"))
        assert (await client.wait(spawned.pid)).exit.status == 3


WAITING = """\
    stamp = client.repeatable.uuid()
    client.files.append("/shared/runs.txt", f"{stamp}\\n")
    client.log("waits")
    client.exit(0, f"{stamp} {client.mail.receive().body}")
"""


async def wait_for_calls(kernel: Kernel, pid: Pid, name: str) -> None:
    while not any(run.name == name for run in kernel.table.get(pid).runs.values()):
        await anyio.sleep(0.01)


async def test_a_clean_end_of_the_kernel_loses_no_program_no_mail_and_no_pid(home: Path) -> None:
    async with booted(home) as (kernel, client):
        path = program(home, WAITING)
        spawned = await client.spawn(path, restart=ONCE, name="waiter")
        lost = await client.spawn(path, name="lost")
        await wait_for_calls(kernel, spawned.pid, "receive")
        guest = await client.admit("visitor")
        await client.mail.send(guest.pid, "kept")
    async with booted(home) as (kernel, client):
        rows = {each.pid: each for each in await client.ps(include_ended=True)}
        assert rows[spawned.pid].name == "waiter"
        ended = rows[lost.pid].exit
        assert ended is not None
        assert (ended.status, ended.reason) == (137, "ended with its kernel")
        assert kernel.authenticate(guest.token) == guest.pid, "tokens of guests stay good"
        letter = await Client(kernel.gate(guest.pid)).mail.receive()
        assert letter.body == "kept"
        await client.mail.send(spawned.pid, "go on")
        end = (await client.wait(spawned.pid)).exit
        stamp, word, *_ = end.result.split()
        assert word == "go"
        assert (await client.files.read("/shared/runs.txt")).decode().split().count(stamp) == 1
        assert (await client.admit("next")).pid > guest.pid


async def test_other_code_is_not_replayed_before_the_owner_has_said_so(home: Path) -> None:
    async with booted(home) as (kernel, client):
        spawned = await client.spawn(program(home, WAITING), restart=ONCE)
        await wait_for_calls(kernel, spawned.pid, "receive")
    program(home, '    client.exit(0, "other code")\n')
    async with booted(home) as (kernel, client):
        blocking = kernel.programs
        found = [body.question for body in blocking._bodies.values() if body.question]
        assert [(each.pid, each.choices) for each in found] == [
            (spawned.pid, ("replay", "fresh", "end"))
        ]
        with pytest.raises(Conflict, match="no answer"):
            await decide(client, spawned.pid, "done")
        await decide(client, spawned.pid, "fresh")
        assert (await client.wait(spawned.pid)).exit.result == "other code"


CRASHING = """\
    client.files.append("/shared/runs.txt", "x")
    client.mail.receive()
    os._exit(3)
"""
MENDED = """\
    client.files.append("/shared/runs.txt", "x")
    client.exit(0, f"mended, {client.mail.receive().body}")
"""


async def asked(kernel: Kernel, pid: Pid) -> None:
    """Return once the owner is asked about a program."""
    while kernel.programs._bodies[pid].question is None:
        await anyio.sleep(0.01)


@pytest.mark.parametrize(
    ("choice", "end", "n_runs"),
    [
        ("replay", Exit(0, "", "mended, crash"), 1),
        ("fresh", Exit(0, "", "mended, go"), 2),
        ("end", Exit(1, "its owner ended it after it crashed"), 1),
    ],
)
async def test_a_program_that_crashed_with_code_that_has_changed_since_waits_for_its_owner(
    home: Path, choice: str, end: Exit, n_runs: int
) -> None:
    async with booted(home) as (kernel, client):
        spawned = await client.spawn(program(home, CRASHING), restart=ONCE)
        await wait_for_calls(kernel, spawned.pid, "receive")
        program(home, MENDED)
        await client.mail.send(spawned.pid, "crash")
        await asked(kernel, spawned.pid)
        process = kernel.table.get(spawned.pid)
        while process.info(0.0).activity != "waits for its owner: aios recover":
            await anyio.sleep(0.01)
    async with booted(home) as (kernel, client):  # nothing is decided by the end of the kernel
        await asked(kernel, spawned.pid)
        await client.mail.send(spawned.pid, "go")
        await decide(client, spawned.pid, choice)
        found = (await client.wait(spawned.pid)).exit
        if choice == "end":
            end = Exit(1, "its owner ended it after the kernel did")
        assert found == end
        assert await client.files.read("/shared/runs.txt") == b"x" * n_runs


async def test_the_same_is_asked_and_answered_within_one_kernel(home: Path) -> None:
    async with booted(home) as (kernel, client):
        spawned = await client.spawn(program(home, CRASHING), restart=ONCE)
        await wait_for_calls(kernel, spawned.pid, "receive")
        program(home, MENDED)
        await client.mail.send(spawned.pid, "crash")
        await asked(kernel, spawned.pid)
        await client.mail.send(spawned.pid, "go")
        await decide(client, spawned.pid, "fresh")
        assert (await client.wait(spawned.pid)).exit.result == "mended, go"
        assert await client.files.read("/shared/runs.txt") == b"xx"


async def test_a_life_from_the_beginning_takes_new_code_and_nobody_is_asked(home: Path) -> None:
    restart = Restart(policy="always", delay_s=0.01)
    async with booted(home) as (kernel, client):
        spawned = await client.spawn(program(home, "    client.mail.receive()\n"), restart=restart)
        await wait_for_calls(kernel, spawned.pid, "receive")
        program(home, '    client.log("new")\n    client.mail.receive()\n')
        await client.mail.send(spawned.pid, "end")
        log = kernel.table.get(spawned.pid).log
        while not any(line.text == "new" for line in log.read(0)[0]):
            await log.wait_changed()
    async with booted(home) as (kernel, client):
        await wait_for_calls(kernel, spawned.pid, "receive")
        assert kernel.programs._bodies[spawned.pid].question is None
        await client.kill(spawned.pid)


async def decide(client: Client, pid: Pid, choice: str) -> None:
    await client.gate.call(build(AnswerQuestion, pid=pid, choice=choice))


DIVERGING = """\
    here = Path(os.environ["HERE"])
    client.log(f"run {here.exists()}")
    client.files.append("/shared/runs.txt", "x")
    if not here.exists():
        here.touch()
        os._exit(3)
    client.exit(0, "done")
"""


@pytest.mark.parametrize(
    ("policy", "status", "n_runs"), [("stop", 1, 1), ("live", 0, 2), ("fresh", 0, 2)]
)
async def test_a_program_that_asks_otherwise_diverges(
    home: Path, policy: OnDivergence, status: int, n_runs: int
) -> None:
    async with booted(home) as (kernel, client):
        restart = Restart(policy="on-failure", delay_s=0.01, on_divergence=policy)
        env = {"HERE": str(work(home) / "here")}
        spawned = await client.spawn(
            program(home, DIVERGING), restart=restart, env=env, cwd=work(home)
        )
        end = (await client.wait(spawned.pid)).exit
        assert end.status == status, end
        assert await client.files.read("/shared/runs.txt") == b"x" * n_runs
        log = kernel.table.get(spawned.pid).log.read(0)[0]
        (said,) = (line.text for line in log if "on_divergence" in line.text)
        assert f"on_divergence is `{policy}`; take times, random numbers" in said
        if policy == "stop":
            assert "run False" in end.reason
            assert "run True" in end.reason


LEADING = """\
    here = Path(os.environ["HERE"])
    client.log(f"run {here.exists()}")
    child = client.spawn(os.environ["CHILD"], name=f"child-{here.exists()}")
    if not here.exists():
        here.touch()
        os._exit(3)
    client.exit(0, str(child.pid))
"""


@pytest.mark.parametrize("policy", ["on-failure", "always"])
async def test_a_program_that_begins_anew_has_no_children_of_its_life_before(
    home: Path, policy: RestartPolicy
) -> None:
    child = work(home) / "child"
    child.mkdir()
    (child / "agent.toml").write_text('name = "child"\n')
    (child / "main.py").write_text("import time\ntime.sleep(600)\n")
    async with booted(home) as (kernel, client):
        restart = Restart(policy=policy, delay_s=0.01, on_divergence="fresh")
        env = {"HERE": str(work(home) / "here"), "CHILD": str(child)}
        spawned = await client.spawn(
            program(home, LEADING), restart=restart, env=env, cwd=work(home)
        )
        if policy == "on-failure":
            end = (await client.wait(spawned.pid)).exit
            assert end.status == 0, end
        else:
            while len([p for p in kernel.table if p.name.startswith("child-")]) < 3:
                await anyio.sleep(0.01)
        first, *later = [p for p in kernel.table if p.name.startswith("child-")]
        assert first.exit is not None
        assert first.exit.reason == f"process {spawned.pid} began anew"
        assert [p.is_alive for p in later][-1:] == [True], "what its last life started runs on"


async def test_no_secret_outlives_the_process_that_needed_it(home: Path) -> None:
    async with booted(home) as (kernel, client):
        env = {"API_KEY": "s3cret-value"}
        spawned = await client.spawn(program(home, "    client.exit(0)\n"), restart=ONCE, env=env)
        await client.wait(spawned.pid)
        await client.files.write("/shared/after.txt", "x")
        rows = await kernel.db.read(lambda c: list(c.execute("SELECT row FROM residents")))
        assert not any(b"s3cret" in row[0] for row in rows)
        found = await kernel.db.read(lambda c: tables.load(c, Pid(1)))
        assert not any(b"s3cret" in row.intent + row.answer for row in found)
    assert os.environ.get("API_KEY") is None


WRITING = """\
    try:
        client.files.write("/shared/reports/q1", b"x")
        client.exit(0, "written")
    except AccessDenied as error:
        client.exit(0, error.message)
"""


async def test_a_program_has_what_was_granted_to_it_until_its_code_changes(home: Path) -> None:
    (home / "policies").mkdir()
    (home / "policies" / "mine.cedar").write_text(
        '@decide("ask") permit(principal in Kind::"program", action == Action::"file.write", resource);'
    )
    wish = "file.write Path::/shared/reports"

    async def result_of(client: Client) -> str:
        spawned = await client.spawn(path, cwd=work(home))
        return (await client.wait(spawned.pid)).exit.result

    async with booted(home) as (kernel, client):
        path = program(home, WRITING)
        code = Path(path) / "main.py"
        code.write_text(f"from aios.errors import AccessDenied\n{code.read_text()}")
        (Path(path) / "agent.toml").write_text(f'name = "agent"\nrights = ["{wish}"]\n')
        assert "lets a human decide" in await result_of(client)
        kernel.grants.grant(Path(path).resolve(), (wish,), 1.0)
        assert await result_of(client) == "written"
        (Path(path) / "extra.py").write_text("")
        assert "lets a human decide" in await result_of(client)
        (agent,) = [p for p in kernel.table if p.program][-1:]
        told = [line.text for line in agent.log.read(0)[0]]
        assert any(f"asks for `{wish}`, which is not granted" in line for line in told)


CUT_OFF = """\
    from aios.errors import OutcomeUnknown
    here = Path(os.environ["HERE"])
    here.write_text(here.read_text() + "." if here.exists() else ".")
    try:
        client.tools.run("post")
    except OutcomeUnknown:
        client.files.append("log.txt", "nobody knows\\n")
    if len(here.read_text()) < 4:
        os._exit(3)
    client.exit(0, client.files.read("log.txt").decode())
"""


async def test_who_was_told_that_nobody_knows_is_told_so_in_each_of_its_lives(home: Path) -> None:
    async def post(job: Job) -> Outcome:
        assert job.run.process.os_pid is not None
        os.kill(job.run.process.os_pid, signal.SIGKILL)
        await anyio.sleep_forever()
        raise AssertionError

    async with booted(home) as (kernel, client):
        traits = Traits(effect="compensable")
        kernel.tools.install([make("post", "Post it.", post, parameters={}, traits=traits)])
        env = {"HERE": str(work(home) / "here")}
        spawned = await client.spawn(program(home, CUT_OFF), restart=ONCE, cwd=work(home), env=env)
        end = (await client.wait(spawned.pid)).exit
        assert (end.status, end.result) == (0, "nobody knows\n")


async def test_who_is_killed_while_it_is_held_in_a_replay_does_nothing_more(home: Path) -> None:
    async with booted(home) as (kernel, client):

        async def idle(_: LocalGate) -> None:
            await anyio.sleep_forever()

        pid, told = kernel.spawn_task("idle", idle), list[str]()
        record = Record(pid, 1, "getpid", b"", Effect.PURE, 0.0, outcome=Outcomes.DONE)
        process = kernel.table.get(pid)
        process.replay = Replay([Row(record)])
        await client.stop(pid)

        async def write() -> None:
            try:
                await Client(kernel.gate(pid)).files.write("/shared/late.txt", b"late")
            except ProcessGone as error:
                told.append(error.code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await anyio.wait_all_tasks_blocked()
            await client.kill(pid)
        assert told == ["process_gone"]
        assert not await client.files.list("/shared")
