"""Timers under one kernel after another, on a calendar that the test sets."""

import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import anyio
import msgspec
import pytest
from tests.kernel.test_resume import daemon, owner

from aios.abi.recovery import Restart
from aios.abi.spawn import Spawn
from aios.abi.timers import TimerAdd, TimerInfo, TimerList, TimerRemove, TimerRun
from aios.abi.types import Pid
from aios.config import Config, EngineConfig, Home, KernelConfig, ServerConfig
from aios.configload import Loaded
from aios.engine.scripted import ScriptedEngine
from aios.errors import (
    AccessDenied,
    Conflict,
    InvalidCall,
    NotFound,
    ResourceExhausted,
    Unsupported,
)
from aios.kernel.clock import Clock
from aios.kernel.journal import tables as journal
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.loader import Child
from aios.kernel.process import Process
from aios.kernel.sandbox.launch import Launcher
from aios.kernel.sandbox.scratch import scratch_folder
from aios.kernel.timers import tables
from aios.kernel.timers.timers import Timers
from aios.sdk.client import Client
from aios.server.daemon import open_server

pytestmark = pytest.mark.anyio


@dataclass
class Calendar:
    """A calendar that is set by hand; durations are real."""

    unix: float = 1_767_225_600.0  # 2026-01-01 00:00 UTC

    def now_s(self) -> float:
        return time.monotonic()

    def unix_s(self) -> float:
        return self.unix


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_folder("t") as folder:
        yield folder


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aios.kernel.timers.timers.LOOK_S", 0.01)
    monkeypatch.setattr("aios.kernel.timers.timers.PAUSE_S", 0.01)


@asynccontextmanager
async def booted(
    home: Path, clock: Calendar, limits: KernelConfig = KernelConfig()
) -> AsyncIterator[tuple[Kernel, Client]]:
    config = Config(
        engine=EngineConfig(kind="scripted"), server=ServerConfig(port=0), kernel=limits
    )
    loaded = Loaded(config, Home(home), home / "config.toml")
    engines = {"local": ScriptedEngine()}
    opened = open_server(loaded, http=False, engines=engines, is_durable=True, clock=clock)
    with anyio.fail_after(60):
        async with opened as kernel:
            yield kernel, Client(kernel.init_gate())
            kernel.check_invariants()


def program(home: Path, source: str = "") -> Spawn:
    folder = home / "agent"
    folder.mkdir(exist_ok=True)
    (folder / "agent.toml").write_text('name = "agent"\n')
    (folder / "main.py").write_text(source)
    work = home / "work"
    work.mkdir(exist_ok=True)
    return Spawn(program=str(folder), cwd=str(work))


async def agents(client: Client, n: int) -> list[int]:
    """The pids of the program's processes, once there are so many and all have ended."""
    while True:
        rows = [row for row in await client.ps(include_ended=True) if row.name.startswith("agent")]
        if len(rows) >= n and all(row.exit is not None for row in rows):
            assert len(rows) == n
            return [row.pid for row in rows]
        await anyio.sleep(0.01)


async def only(client: Client) -> TimerInfo:
    (timer,) = await client.timers.list()
    return timer


async def test_a_program_is_started_when_its_time_has_come_and_the_timer_is_gone(
    home: Path,
) -> None:
    clock = Calendar()
    async with booted(home, clock) as (_, client):
        timer = await client.timers.add(program(home), at_unix_s=clock.unix + 60)
        await anyio.sleep(0.05)
        assert await agents(client, 0) == []
        clock.unix += 60
        await agents(client, 1)
        while await client.timers.list():
            await anyio.sleep(0.01)
        with pytest.raises(NotFound):
            await client.timers.remove(timer.id)


async def test_a_timer_that_brings_a_bug_to_light_is_looked_at_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_looks = 0

    def fails(*_: object) -> None:
        nonlocal n_looks
        n_looks += 1
        raise ValueError("a bug")

    clock = Calendar()
    async with booted(home, clock) as (_, client):
        with monkeypatch.context() as patch:
            patch.setattr(Timers, "_step", fails)
            await client.timers.add(program(home), at_unix_s=clock.unix + 60)
            while n_looks < 3:
                await anyio.sleep(0.01)
        clock.unix += 60
        await agents(client, 1)


async def test_a_line_of_cron_starts_it_again_and_again_also_under_the_next_kernel(
    home: Path,
) -> None:
    clock = Calendar()
    async with booted(home, clock) as (_, client):
        timer = await client.timers.add(program(home), cron="*/10 * * * *")
        assert timer.next_unix_s == clock.unix + 600
        clock.unix += 600
        (first,) = await agents(client, 1)
        while (await only(client)).last_pid != first:
            await anyio.sleep(0.01)
    clock.unix += 3600  # six runs are missed; one is made for all
    async with booted(home, clock) as (_, client):
        await agents(client, 2)
        while (found := await only(client)).n_runs < 2:
            await anyio.sleep(0.01)
        assert (found.id, found.n_runs, found.n_missed) == (timer.id, 2, 5)
        assert found.next_unix_s == clock.unix + 600
        await client.timers.remove(timer.id)
    async with booted(home, clock) as (_, client):
        assert await client.timers.list() == ()
        assert (await client.timers.add(program(home), cron="* * * * *")).id > timer.id


@pytest.mark.parametrize("is_removed_first", [False, True])
async def test_a_timer_that_is_removed_while_it_starts_a_run_tells_of_it_or_makes_none(
    home: Path, *, is_removed_first: bool
) -> None:
    clock, release = Calendar(), threading.Event()
    removed: list[TimerInfo] = []
    async with booted(home, clock) as (kernel, client):
        timer = await client.timers.add(program(home), cron="*/10 * * * *")

        async def remove() -> None:
            removed.append(await client.timers.remove(timer.id))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kernel.db.write, lambda _: release.wait())  # both wait for the disk
            await anyio.sleep(0.1)
            if is_removed_first:
                tasks.start_soon(remove)
                await anyio.sleep(0.1)
            clock.unix += 600
            await anyio.sleep(0.2)
            if not is_removed_first:
                tasks.start_soon(remove)
                await anyio.sleep(0.1)
            release.set()
        await anyio.sleep(0.2)
        rows = [row for row in await client.ps(include_ended=True) if row.name == "agent"]
        n_runs = sum(row.exit is None or row.exit.status != 126 for row in rows)
        assert [each.n_runs for each in removed] == [n_runs] == [int(not is_removed_first)]
        assert await client.timers.list() == ()


async def test_each_missed_run_is_made_or_none_as_asked(home: Path) -> None:
    clock = Calendar()
    async with booted(home, clock) as (_, client):
        await client.timers.add(program(home), cron="*/10 * * * *", missed="all")
        await client.timers.add(program(home), cron="5 * * * *", missed="skip")
    clock.unix += 1800 + 30
    async with booted(home, clock) as (_, client):
        await agents(client, 3)
        while {(t.missed, t.n_runs, t.n_missed) for t in await client.timers.list()} != {
            ("all", 3, 0),
            ("skip", 0, 1),
        }:
            await anyio.sleep(0.01)


async def test_a_program_that_cannot_be_started_is_said_and_the_timer_goes_on(home: Path) -> None:
    clock, spawn = Calendar(), program(home)
    async with booted(home, clock) as (_, client):
        await client.timers.add(spawn, cron="* * * * *")
        (home / "agent" / "agent.toml").unlink()
        clock.unix += 60
        while (found := await only(client)).n_failed != 1:
            await anyio.sleep(0.01)
        assert "no program at" in found.fault
        assert (found.n_runs, found.next_unix_s) == (0, clock.unix + 60)
        program(home)
        clock.unix += 60
        while (found := await only(client)).n_runs != 1:
            await anyio.sleep(0.01)
        assert found.fault == ""


async def test_a_single_run_that_was_not_made_stays_to_be_seen_until_it_is_removed(
    home: Path,
) -> None:
    clock, spawn = Calendar(), program(home)
    async with booted(home, clock) as (_, client):
        failing = await client.timers.add(spawn, at_unix_s=clock.unix + 60)
        (home / "agent" / "agent.toml").unlink()
        clock.unix += 60
        while (found := await only(client)).n_failed != 1:
            await anyio.sleep(0.01)
        assert (found.n_runs, found.next_unix_s) == (0, None)
        late = await client.timers.add(program(home), at_unix_s=clock.unix + 60, missed="skip")
    clock.unix += 3600
    async with booted(home, clock) as (_, client):
        while len({t.n_missed for t in await client.timers.list()}) != 2:
            await anyio.sleep(0.01)
        rows = {t.id: (t.next_unix_s, t.n_missed) for t in await client.timers.list()}
        assert rows == {failing.id: (None, 0), late.id: (None, 1)}
        assert await agents(client, 0) == []
        spawned = await client.timers.run(failing.id)
        assert (await client.wait(spawned.pid)).exit.status == 0
        await client.timers.remove(failing.id)
        await client.timers.remove(late.id)
        assert await client.timers.list() == ()


async def test_a_single_run_whose_program_came_to_nothing_is_there_under_the_next_kernel(
    home: Path,
) -> None:
    clock, spawn = Calendar(), program(home)
    async with booted(home, clock) as (kernel, client):
        make_child = kernel.programs.make_child

        def fails(process: Process, clock: Clock, launcher: Launcher) -> Child:
            (home / "agent" / "agent.toml").unlink()  # the process is written down by now
            return make_child(process, clock, launcher)

        kernel.programs.make_child = fails
        failing = await client.timers.add(spawn, at_unix_s=clock.unix + 60)
        clock.unix += 60
        while (found := await only(client)).n_failed != 1:
            await anyio.sleep(0.01)
        assert found.id == failing.id
    program(home)
    async with booted(home, clock) as (_, client):
        assert await only(client) == found
        assert (found.n_runs, found.next_unix_s) == (0, None)
        spawned = await client.timers.run(failing.id)
        assert (await client.wait(spawned.pid)).exit.status == 0
        await client.timers.remove(failing.id)
        assert await client.timers.list() == ()


async def test_a_single_run_is_made_once_if_the_kernel_is_killed_behind_its_write(
    home: Path,
) -> None:
    clock = Calendar()
    async with booted(home, clock) as (kernel, client):
        await client.timers.add(program(home), at_unix_s=clock.unix + 60)
        (timer,), _ = await kernel.db.read(tables.load)
        made = msgspec.structs.replace(timer, next_unix_s=None, n_runs=1)
        await kernel.db.write(lambda connection: tables.update(connection, made))
    clock.unix += 60
    async with booted(home, clock) as (kernel, client):
        assert await client.timers.list() == ()
        await anyio.sleep(0.05)
        assert await agents(client, 0) == []
        assert kernel.journal.disk is not None
        await kernel.journal.disk.flush()
        assert (await kernel.db.read(tables.load))[0] == []


async def test_a_run_besides_the_others_changes_nothing(home: Path) -> None:
    async with booted(home, Calendar()) as (_, client):
        timer = await client.timers.add(program(home), cron="0 0 * * *")
        spawned = await client.timers.run(timer.id)
        assert (await client.wait(spawned.pid)).exit.status == 0
        assert await only(client) == timer
        with pytest.raises(Conflict, match="not due"):
            await client.gate.call(TimerRun(id=timer.id, is_due=True))


async def test_a_single_run_that_is_asked_for_twice_at_once_is_made_once(home: Path) -> None:
    clock = Calendar()
    async with booted(home, clock) as (_, client):
        timer = await client.timers.add(program(home), at_unix_s=clock.unix + 60)
        clock.unix += 60

        async def run() -> None:
            with suppress(Conflict, NotFound):
                await client.gate.call(TimerRun(id=timer.id, is_due=True))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(run)
        while await client.timers.list():
            await anyio.sleep(0.01)
        rows = [row for row in await client.ps(include_ended=True) if row.name.startswith("agent")]
        first, *others = sorted([(await client.wait(row.pid)).exit.status for row in rows])
        assert first == 0
        assert set(others) <= {126}, "they were not written down"


async def test_what_is_no_timer_is_refused(home: Path) -> None:
    clock, spawn = Calendar(), program(home)
    async with booted(home, clock, KernelConfig(max_timers=1)) as (_, client):
        with pytest.raises(InvalidCall, match="over"):
            await client.timers.add(spawn, at_unix_s=clock.unix - 1)
        with pytest.raises(InvalidCall, match="no time zone 'Mars/Base'"):
            await client.timers.add(spawn, at_unix_s=clock.unix + 60, zone="Mars/Base")
        with pytest.raises(InvalidCall, match="either"):
            await client.timers.add(spawn)
        with pytest.raises(InvalidCall, match="no time zone 'Mars/Base'"):
            await client.timers.add(spawn, at_unix_s=clock.unix + 60, zone="Mars/Base")
        with pytest.raises(InvalidCall, match="either"):
            await client.timers.add(spawn, at_unix_s=clock.unix + 1, cron="* * * * *")
        await client.timers.add(spawn, cron="0 0 * * *")
        with pytest.raises(ResourceExhausted, match="1 timers"):
            await client.timers.add(spawn, cron="0 0 * * *")
        with pytest.raises(NotFound):
            await client.timers.run(99)


async def test_only_the_owner_may(home: Path) -> None:
    async with booted(home, Calendar()) as (kernel, client):
        await client.timers.add(program(home), cron="0 0 * * *")
        gate = kernel.gate(kernel.spawn_task("agent", lambda _: anyio.sleep_forever()))
        for call in (
            TimerAdd(spawn=program(home), cron="* * * * *"),
            TimerList(),
            TimerRemove(id=1),
            TimerRun(id=1),
        ):
            with pytest.raises(AccessDenied, match=r"timer\.set"):
                await gate.call(call)


async def test_a_kernel_without_a_journal_has_none(tmp_path: Path) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        with pytest.raises(Unsupported, match="no journal"):
            await Client(kernel.init_gate()).timers.add(program(tmp_path), cron="* * * * *")


async def test_a_sleep_ends_when_the_calendar_says_so_and_holds_nothing(home: Path) -> None:
    clock = Calendar()
    async with booted(home, clock) as (kernel, client), anyio.create_task_group() as tasks:
        woke: list[float] = []

        async def sleep() -> None:
            woke.append(await client.timers.sleep(3600))

        tasks.start_soon(sleep)
        while not any(run.name == "sleep_until" for run in kernel.init.runs.values()):
            await anyio.sleep(0.01)
        clock.unix += 3599
        await anyio.sleep(0.05)
        assert woke == []
        assert kernel.init.is_quiet(), "a sleep is parked"
        clock.unix += 2
        while not woke:
            await anyio.sleep(0.01)
        assert woke == [clock.unix]
        assert await client.timers.sleep_until(0) == clock.unix


SLEEPER = """\
from aios.sdk.blocking import connect
with connect() as client:
    client.log("sleeps")
    woke = client.timers.sleep(3600)
    client.exit(0, str(woke))
"""


async def test_a_sleep_outlives_the_kernel_and_takes_what_is_left(home: Path) -> None:
    clock = Calendar()
    begun = clock.unix
    async with booted(home, clock) as (kernel, client):
        spawn = msgspec.structs.replace(
            program(home, SLEEPER), restart=Restart(policy="on-failure", delay_s=0.01)
        )
        pid = (await client.gate.call(spawn)).value.pid
        while not any(run.name == "sleep_until" for run in kernel.table.get(pid).runs.values()):
            await anyio.sleep(0.01)
    clock.unix += 1800
    async with booted(home, clock) as (kernel, client):
        while not any(run.name == "sleep_until" for run in kernel.table.get(pid).runs.values()):
            await anyio.sleep(0.01)
        clock.unix += 1799
        await anyio.sleep(0.05)
        assert kernel.table.get(pid).exit is None
        clock.unix += 1
        end = (await client.wait(pid)).exit
        assert (end.status, float(end.result)) == (0, begun + 3600)


async def test_what_a_timer_hides_is_not_in_the_journal(home: Path) -> None:
    spawn = msgspec.structs.replace(program(home), env={"API_KEY": "s3cret"})
    async with booted(home, Calendar()) as (kernel, client):
        await client.timers.add(spawn, cron="0 0 * * *")
        assert kernel.journal.disk is not None
        await kernel.journal.disk.flush()
        found = await kernel.db.read(lambda c: journal.load(c, Pid(1)))
        assert any(row.record.call == "timer_add" for row in found)
        assert not any(b"s3cret" in row.intent + row.answer for row in found)


def test_each_run_is_made_once_whenever_the_kernel_is_killed(home: Path) -> None:
    """A line of cron for each second, under kernels that are killed: as many processes as the timer counts runs."""
    draw = Random(1)  # noqa: S311 - the seed is part of the test
    spawn, n_lives = program(home), 2
    for life in range(n_lives):
        with daemon(home), owner(home) as client:
            if life == 0:
                client.timers.add(spawn, cron="* * * * * *", missed="all")
            time.sleep(draw.uniform(0.9, 1.6))  # noqa: TID251 - the moment of the kill is the point
    with daemon(home), owner(home) as client:
        while (timer := client.timers.list()[0]).n_runs <= n_lives:
            time.sleep(0.01)  # noqa: TID251 - another process is waited for
        timer = client.timers.remove(timer.id)
        n_processes = sum(row.name.startswith("agent") for row in client.ps(include_ended=True))
        assert n_processes - timer.n_runs in (0, 1), "one may have been in the middle of its start"
        assert timer.n_missed == timer.n_failed == 0
