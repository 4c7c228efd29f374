"""How much of a process may be copied at once, on a kernel with a journal."""

from pathlib import Path

import anyio
import pytest
from tests.kernel.forking.test_forks import waiting
from tests.kernel.test_programs import booted, home, program

from aios.errors import TooLarge
from aios.kernel.forking import copies

__all__ = ["home"]
pytestmark = pytest.mark.anyio

WRITER = """\
    for number in range(4):
        client.files.write(f"{number}.txt", b"first")
    client.mail.receive()
    client.files.delete("3.txt")
    client.mail.receive()
"""
N_FIRST = 4
"""Calls up to and with the last file."""


async def test_copies_of_too_many_files_are_refused_and_leave_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, WRITER))).pid
        await waiting(kernel, source)
        await client.mail.send(source, "go")
        while len(await client.files.list("/agents/agent")) == 4:
            await anyio.sleep(0.01)
        await waiting(kernel, source)
        monkeypatch.setattr(copies, "MAX_COPIED_FILES", 8)
        names = {each.name for each in kernel.table if each.is_alive}
        with pytest.raises(TooLarge, match="3 copies of /agents/agent would have over 8 files"):
            await client.branches.start(3, pid=source)
        with pytest.raises(TooLarge, match="3 copies"):
            await client.branches.start(3, pid=source, at=N_FIRST)
        fork = await client.branches.start(2, pid=source)
        assert len(await client.files.list("/agents/agent-branch-2")) == 3
        await client.branches.discard(fork.group)
        fork = await client.branches.start(2, pid=source, at=N_FIRST)
        names_then = [
            each.path for each in await client.files.list(f"/agents/{fork.branches[1].name}")
        ]
        assert len(names_then) == 4, "as many as there were then, also of the second"
        (version,) = await client.files.versions(names_then[0])
        assert version.message == "from /agents/agent"
        await client.branches.discard(fork.group)
        monkeypatch.setattr(copies, "MAX_COPIED_FILES", 2)
        with pytest.raises(TooLarge, match="a copy of /agents/agent would have over 2 files"):
            await client.checkpoints.save(source)
        with pytest.raises(TooLarge, match="a copy"):
            await client.journal.fork(source)
        assert {each.name for each in kernel.table if each.is_alive} == names
        assert not await client.checkpoints.list_all()
        assert (await client.files.check()).faults == ()


@pytest.mark.parametrize(
    ("limit", "at", "told"),
    [
        ("MAX_COPIED_RECORDS", None, "records of calls"),
        ("MAX_READ_VERSIONS", 2, "versions of files"),
    ],
)
async def test_so_are_those_of_too_many_records_or_out_of_too_many_versions(
    home: Path, monkeypatch: pytest.MonkeyPatch, limit: str, at: int | None, told: str
) -> None:
    async with booted(home) as (kernel, client):
        source = (await client.spawn(program(home, WRITER))).pid
        await waiting(kernel, source)
        monkeypatch.setattr(copies, limit, 3)
        with pytest.raises(TooLarge, match=told):
            await client.journal.fork(source, at=at)
        monkeypatch.setattr(copies, limit, 4)
        await client.journal.fork(source, at=at)
