"""How long a call that the journal has not waits for the other tasks of its program."""

from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import apsw
import pytest
from tests.kernel.test_programs import ONCE, booted, program, work
from tests.kernel.test_replay import row
from tests.kernel.tools.offering import idle

from aios.abi.calls import Spawn
from aios.abi.recovery import Restart
from aios.abi.types import Exit, Kind, Pid
from aios.errors import DeadlineExceeded, DiskFailed
from aios.kernel import replaying
from aios.kernel.journal.records import Outcome
from aios.kernel.loader import Child, Launch
from aios.kernel.logs import LogBuffer
from aios.kernel.process import Process
from aios.kernel.recovery import failed_of
from aios.kernel.replay import Replay
from aios.kernel.sandbox.scratch import scratch_folder
from aios.sdk.client import Client

PATIENCE_S = 0.05
ANSWERING = """\
    import threading
    def answer():
        with connect() as other:
            while True:
                other.mail.reply(other.mail.receive(), "heard")
    threading.Thread(target=answer, daemon=True).start()
    while True:
        time.sleep(1)
        client.files.append("/shared/runs.txt", f"{client.repeatable.uuid()}\\n")
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_folder("rp") as folder:
        yield folder


def shop() -> Process:
    return Process(Pid(2), Pid(1), "shop", Kind.PROGRAM, "", frozenset(), LogBuffer(Pid(2), 1000))


@pytest.mark.anyio
@pytest.mark.parametrize(("lag_s", "expected_s"), [(0.0, PATIENCE_S), (0.2, 0.4), (9.0, 0.6)])
async def test_a_task_that_did_something_else_for_long_is_given_time_to_do_it_again(
    monkeypatch: pytest.MonkeyPatch, lag_s: float, expected_s: float
) -> None:
    monkeypatch.setattr(replaying, "PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr(replaying, "MAX_PATIENCE_S", 0.6)
    process = shop()
    process.replay = Replay(
        [
            row(1, b"a", begun=1, ended=1 + lag_s),
            row(2, b"a", begun=1 + lag_s / 2, ended=1 + lag_s),
            row(3, b"b", begun=1 + lag_s, ended=1 + lag_s),
        ]
    )
    process.replay.has_overlaps = True
    assert process.replay.take(b"a")
    assert process.replay.take(b"a")
    run = process.begin("tool_take", max_calls=9)
    began = anyio.current_time()
    told = list[str]()
    await replaying._wait_for_others(run, process.replay, None, lambda _, text: told.append(text))
    assert 0.95 * expected_s <= anyio.current_time() - began < expected_s + 5
    assert ["asks tool_take, which" in each for each in told] == [True] * (lag_s > 0)


def process_note(process: Process, text: str) -> None:
    process.log.write(text, stream="kernel", unix_s=1.0)


@pytest.mark.anyio
async def test_the_time_for_which_a_program_is_stopped_is_none_to_think(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replaying, "PATIENCE_S", PATIENCE_S)
    process = shop()
    replay = Replay([row(1, b"a", begun=1, ended=5), row(2, b"b", begun=2, ended=3)])
    process.replay = replay
    run = process.begin("tool_take", max_calls=9)
    process.set_stopped(True)
    with anyio.move_on_after(4 * PATIENCE_S) as stopped:
        await replaying._wait_for_others(run, replay, None, process_note)
    assert stopped.cancelled_caught
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(replaying._wait_for_others, run, replay, None, process_note)
            await anyio.sleep(4 * PATIENCE_S)
            process.set_stopped(False)
            began = anyio.current_time()
    assert anyio.current_time() - began >= 0.95 * PATIENCE_S, "it has the whole time again"


@pytest.mark.anyio
async def test_a_call_that_waits_to_be_cancelled_again_waits_in_peace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program may be slower now than it was before."""
    monkeypatch.setattr(replaying, "PATIENCE_S", PATIENCE_S)
    process = shop()
    cut_off = row(1, b"a", begun=1, ended=1)
    cut_off.record.outcome = Outcome.CANCELLED
    replay = process.replay = Replay([cut_off, row(2, b"b", begun=1, ended=1)])
    assert replay.take(b"a") == cut_off
    looks = list[float]()

    async def wait_replayed(_: Process) -> None:
        looks.append(anyio.current_time())
        await anyio.sleep_forever()

    monkeypatch.setattr(Process, "wait_replayed", wait_replayed)
    run = process.begin("mail_receive", max_calls=9)
    with anyio.move_on_after(10 * PATIENCE_S) as scope:
        await replaying._wait_for_others(run, replay, cut_off, process_note)
    assert scope.cancelled_caught
    assert 1 < len(looks) <= 11


@pytest.mark.anyio
async def test_a_program_answers_letters_again_though_another_task_of_it_sleeps(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "PATIENCE_S", PATIENCE_S)
    path = "/shared/runs.txt"

    async def is_heard(client: Client) -> bool:
        (agent,) = (each for each in await client.ps() if each.name == "agent")
        return (await client.mail.ask(agent.pid, "hear me")).body == "heard"

    async with booted(home) as (_, client):
        await client.spawn(program(home, ANSWERING), restart=ONCE, cwd=work(home))
        while not await client.files.list("/shared"):
            assert await is_heard(client)
            await anyio.sleep(0.05)
        before = await client.files.read(path)
    async with booted(home) as (_, client):
        assert await is_heard(client)
        while (after := await client.files.read(path)) == before:
            await anyio.sleep(0.05)
        assert after.startswith(before)


@pytest.mark.anyio
async def test_a_program_that_was_not_started_in_time_is_not_started_twice(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is on disk when the deadline comes."""

    async def begin_late(self: Child, launch: Launch) -> Exit:
        await anyio.sleep(1)
        return await run(self, launch)

    run = Child.run
    monkeypatch.setattr(Child, "run", begin_late)
    async with booted(home) as (kernel, client):
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        with pytest.raises(DeadlineExceeded):
            await gate.call(Spawn(program(home, "    pass\n"), deadline_s=0.5))
        ann = next(each.pid for each in await client.ps() if each.name == "ann")
        assert kernel.journal.disk is not None
        rows = await kernel.journal.disk.load(ann)
        assert [row.record.code for row in rows] == ["deadline_exceeded"]
        assert failed_of([row.record for row in rows]) == []


LIVELY = """\
    here = Path(os.environ["HERE"])
    while not here.exists():
        time.sleep(0.01)
    life = len(here.read_text())
    here.write_text("." * (life + 1))
    client.log(f"life {min(life, 1)}")
    if life == 0:
        client.mail.subscribe("news")
    first = client.mail.receive().body
    if life < 2:
        os._exit(3)
    client.exit(0, f"{first} {client.mail.statistics().topics}")
"""


@pytest.mark.anyio
async def test_what_a_program_did_not_ask_for_again_is_told_in_none_of_its_later_lives(
    home: Path,
) -> None:
    async with booted(home) as (_, client):
        restart = Restart(policy="on-failure", delay_s=0.01, on_divergence="live")
        here = work(home) / "lives"
        path, env = program(home, LIVELY), {"HERE": str(here)}
        spawned = await client.spawn(path, restart=restart, env=env, cwd=work(home))
        for body in ("one", "two"):
            await client.mail.send(spawned.pid, body)
        here.touch()
        end = (await client.wait(spawned.pid)).exit
        assert (end.status, end.result) == (0, "two ('news',)")
        records = (await client.journal.read(spawned.pid)).records
        assert [(each.call, each.outcome) for each in records] == [
            ("log", "left"), ("subscribe", "left"), ("receive", "left"),
            ("log", "done"), ("receive", "done"), ("mailbox", "done"), ("exit", "done"),
        ]  # fmt: skip
        copy = await client.journal.fork(spawned.pid, at=2, env=env)
        told = (await client.wait(copy.pid)).exit.result
        assert told == "one ('news',)", "what it did not ask for again is done"


@pytest.mark.anyio
async def test_a_disk_that_cannot_be_read_now_is_asked_again_for_what_a_program_was_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "DISK_PAUSE_S", 0.01)
    async with booted(home) as (kernel, client):
        mine = Client(kernel.gate(kernel.spawn_task("ann", idle)))
        await client.files.write("/shared/long.txt", "z" * 1_000)
        first, disk = await mine.files.read("/shared/long.txt"), kernel.journal.disk
        assert disk is not None
        await client.files.write("/shared/long.txt", "later")
        process = next(each for each in kernel.table if each.name == "ann")
        process.replay = Replay(await disk.load(process.pid))
        read, failed = disk.read_nowait, list[object]()

        def fail_twice(wanted: Callable[[apsw.Connection], object]) -> object:
            if len(failed) == 2:
                return read(wanted)
            failed.append(wanted)
            raise DiskFailed("the disk cannot be read", hint="look at it")

        monkeypatch.setattr(disk, "read_nowait", fail_twice)
        assert await mine.files.read("/shared/long.txt") == first
        assert len(failed) == 2
        assert kernel.table.get(process.pid).replay is None
