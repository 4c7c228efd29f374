from pathlib import Path

import anyio
import pytest

from aios.abi.call import Done
from aios.abi.calls import GetPid, Kill, Log
from aios.abi.gate import Fault, Result
from aios.abi.types import Pid
from aios.config import Config, Home, JournalConfig
from aios.disk.db import Database
from aios.errors import NotFound, ResourceExhausted
from aios.kernel.clock import SystemClock
from aios.kernel.gate import LocalGate
from aios.kernel.journal import tables
from aios.kernel.journal.disk import JournalDisk
from aios.kernel.journal.journal import Journal
from aios.kernel.journal.records import Effect, Outcome, Record, Where
from aios.kernel.kernel import open_kernel
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio

DONE = Result(Done())


def in_memory(max_records: int = 10) -> Journal:
    return Journal(SystemClock(), max_records=max_records)


def begun(journal: Journal, seq: int, *, call: GetPid | Kill | None = None) -> Record:
    call = call or GetPid()
    return journal.begin(Pid(2), seq, call=call, effect=Effect.PURE, where=Where.WORLD)


async def test_a_call_is_open_until_it_is_settled() -> None:
    journal = in_memory()
    record = begun(journal, 1)
    assert journal.records(Pid(2))[0].outcome is Outcome.OPEN
    journal.settle(record, Outcome.DONE, DONE)
    assert record.outcome is Outcome.DONE
    assert record.ended_unix_s >= record.begun_unix_s > 0


async def test_equal_calls_have_equal_digests_and_others_do_not(tmp_path: Path) -> None:
    disk = JournalDisk(Database(tmp_path / "aios.db", [tables.SCHEMA]), 10)
    for journal in (in_memory(), Journal(SystemClock(), max_records=10, disk=disk)):
        calls = [Kill(pid=Pid(1)), Kill(pid=Pid(1)), Kill(pid=Pid(2))]
        digests = [begun(journal, n, call=call).digest for n, call in enumerate(calls)]
        assert digests[0] == digests[1] != digests[2]


async def test_the_oldest_settled_records_are_dropped_and_open_ones_never() -> None:
    journal = in_memory(max_records=2)
    kept = begun(journal, 1)
    for seq in range(2, 7):
        journal.settle(begun(journal, seq), Outcome.DONE, DONE)
    assert [record.seq for record in journal.records(Pid(2))] == [1, 5, 6]
    assert kept.outcome is Outcome.OPEN
    told = journal.statistics()
    assert (told.n_records, told.n_open, told.n_written, told.n_dropped) == (3, 1, 6, 3)


async def test_a_record_cannot_be_settled_twice() -> None:
    journal = in_memory()
    record = begun(journal, 1)
    journal.settle(record, Outcome.FAULT, Fault("not_found", "gone"))
    with pytest.raises(AssertionError, match="settled already"):
        journal.settle(record, Outcome.DONE, DONE)


async def test_an_intent_outside_is_on_disk_before_its_effect_with_all_that_was_before(
    tmp_path: Path,
) -> None:
    db = Database(tmp_path / "aios.db", [tables.SCHEMA])
    journal = Journal(SystemClock(), max_records=10, disk=JournalDisk(db, 10))
    journal.settle(begun(journal, 1), Outcome.DONE, DONE)
    call = Log(text="something that cannot be taken back")
    record = journal.begin(Pid(2), 2, call=call, effect=Effect.IRREVERSIBLE, where=Where.WORLD)
    await journal.commit(record)
    rows = db.read_nowait(lambda c: tables.load(c, Pid(2)))
    assert [(row.record.seq, row.record.outcome) for row in rows] == [
        (1, Outcome.DONE),
        (2, Outcome.OPEN),
    ]
    journal.settle(record, Outcome.DONE, DONE)
    assert journal.disk is not None
    await journal.disk.flush()
    rows = db.read_nowait(lambda c: tables.load(c, Pid(2)))
    assert rows[1].record.outcome is Outcome.DONE
    await db.aclose()


async def test_effect_and_outcome_are_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.journal.disk.FLUSH_S", 60)  # no commit but that of the write
    async with open_kernel(Config(), Home(tmp_path), engines={}, is_durable=True) as kernel:
        client = Client(kernel.init_gate())
        n_commits = kernel.db.statistics().n_commits
        await client.files.write("/shared/a.txt", b"text")
        rows = kernel.db.read_nowait(lambda c: tables.load(c, Pid(1)))
        assert kernel.db.statistics().n_commits == n_commits + 1
        assert [(row.record.call, row.record.outcome) for row in rows] == [
            ("file_edit", Outcome.DONE)
        ]
        with pytest.raises(NotFound):
            await client.files.read("/shared/nothing")
        with pytest.raises(NotFound):
            await client.files.delete("/shared/nothing")
        read = (await client.journal.read(1)).records
        assert [(each.call, each.outcome, each.code) for each in read[:3]] == [
            ("file_edit", "done", ""),
            ("file_read", "fault", "not_found"),
            ("file_edit", "fault", "not_found"),
        ]


async def test_a_large_call_is_answered_when_it_is_on_disk_if_the_disk_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.journal.disk.FLUSH_S", 60)
    async with open_kernel(Config(), Home(tmp_path), engines={}, is_durable=True) as kernel:
        client = Client(kernel.init_gate())
        await client.files.write("/shared/a.txt", b"x" * 50_000)
        n_commits = kernel.db.statistics().n_commits
        await client.files.read("/shared/a.txt")
        assert kernel.db.statistics().n_commits == n_commits
        monkeypatch.setattr("aios.kernel.journal.disk.SLOW_BYTES", 90_000)
        await client.files.read("/shared/a.txt")
        assert kernel.db.statistics().n_commits == n_commits + 1
        rows = kernel.db.read_nowait(lambda c: tables.load(c, Pid(1)))
        assert [row.record.call for row in rows] == ["file_edit", "file_read", "file_read"]


async def test_the_owner_is_served_though_calls_of_a_program_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def idle(_: LocalGate) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr("aios.kernel.journal.disk.FLUSH_S", 60)
    async with open_kernel(Config(), Home(tmp_path), engines={}, is_durable=True) as kernel:
        owner, pid = Client(kernel.init_gate()), kernel.spawn_task("agent", idle)
        child = Client(kernel.gate(kernel.spawn_task("child", idle, ppid=pid)))
        await child.files.write("a.txt", b"x" * 50_000)
        monkeypatch.setattr("aios.kernel.journal.disk.MAX_PENDING_BYTES", 90_000)
        for _ in range(2):
            await child.files.read("a.txt")
        with pytest.raises(ResourceExhausted, match="of agent and what it started"):
            await Client(kernel.gate(pid)).getpid()
        assert (await owner.getpid()).pid == 1
        await owner.kill(pid)


async def test_a_call_that_the_end_of_the_kernel_cuts_short_is_left_open(tmp_path: Path) -> None:
    async def wait(gate: LocalGate) -> None:
        await Client(gate).mail.receive()

    async with open_kernel(Config(), Home(tmp_path), engines={}, is_durable=True) as kernel:
        pid = kernel.spawn_task("waiter", wait)
        await anyio.wait_all_tasks_blocked()
        assert kernel.table.get(pid).runs
    async with open_kernel(Config(), Home(tmp_path), engines={}, is_durable=True) as kernel:
        rows = kernel.db.read_nowait(lambda c: tables.load(c, pid))
        assert [row.record.outcome for row in rows if row.record.call == "receive"] in (
            [],
            [Outcome.OPEN],
        )


async def test_a_kernel_told_so_keeps_nothing_on_disk(tmp_path: Path) -> None:
    config = Config(journal=JournalConfig(is_on=False))
    async with open_kernel(config, Home(tmp_path), engines={}, is_durable=True) as kernel:
        await Client(kernel.init_gate()).getpid()
        assert not (await Client(kernel.init_gate()).journal.read(1)).is_on_disk
        assert not kernel.db.is_open
