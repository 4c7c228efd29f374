import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import apsw
import pytest

from aios.abi.types import Pid
from aios.config import Config, Home
from aios.disk.connection import connect
from aios.errors import AccessDenied, DiskFailed
from aios.kernel.gate import LocalGate
from aios.kernel.journal.audit import tables
from aios.kernel.journal.audit.log import load_key
from aios.kernel.kernel import Kernel, open_kernel
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio

REFUSE = "CREATE TRIGGER refuse BEFORE INSERT ON audit_records BEGIN SELECT RAISE(FAIL, 'no'); END"


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


@asynccontextmanager
async def kept(folder: Path) -> AsyncIterator[Kernel]:
    """A kernel that keeps what it does."""
    with anyio.fail_after(30):
        async with open_kernel(Config(), Home(folder), engines={}, is_durable=True) as kernel:
            yield kernel


async def acts(kernel: Kernel) -> list[str]:
    """What the log says, one line an act."""
    assert kernel.journal.disk is not None
    await kernel.journal.disk.flush()
    links = await kernel.db.read(lambda connection: list(tables.read(connection, tables.Wanted())))
    return [
        f"{link.act.kind.value} {link.act.pid} {link.act.call} {link.act.subject}".strip()
        for link in links
    ]


def checked(folder: Path) -> tables.Verified:
    connection = connect(Home(folder).database, is_writer=False)
    try:
        return tables.verify(connection, load_key(Home(folder).audit_key))
    finally:
        connection.close()


async def test_effects_refusals_and_tokens_are_in_the_log_and_looking_is_not(
    tmp_path: Path,
) -> None:
    async with kept(tmp_path) as kernel:
        owner = Client(kernel.init_gate())
        child = kernel.spawn_task("agent", idle)
        agent = Client(kernel.gate(child))
        await agent.getpid()
        await agent.files.write("/shared/plan", b"secret plan")
        await agent.log("not the world's business")
        with pytest.raises(AccessDenied):
            await agent.kill(1)
        guest = await owner.admit("visitor")
        await owner.kill(child)
        found = await acts(kernel)
    assert found == [
        "begin 0",
        "token 1",
        f"effect {child} file_edit put:/shared/plan",
        f"denied {child} kill pid=1",
        "effect 1 admit name=visitor",
        f"token {guest.pid}",
        f"effect 1 kill pid={child}",
    ]
    assert checked(tmp_path).faults == ()


async def test_what_the_log_does_not_take_is_not_done(tmp_path: Path) -> None:
    async with kept(tmp_path) as kernel:
        child = kernel.spawn_task("agent", idle)
        agent = Client(kernel.gate(child))
        await agent.files.write("/shared/a", b"1")
        await kernel.db.write(lambda connection: connection.execute(REFUSE).fetchall())
        for refused in (
            agent.files.write("/shared/a", b"2"),
            agent.memory.remember("a fact"),
            agent.mail.send(1, "hello"),
            agent.tools.run("spawn_agent", {"program": "/nowhere", "args": ["x"]}),
            Client(kernel.init_gate()).nice(child, 5),
            Client(kernel.init_gate()).admit("nobody"),
        ):
            with pytest.raises(DiskFailed, match="audit log"):
                await refused
        assert await agent.files.read("/shared/a") == b"1", "reading goes on"
        assert (await agent.memory.usage()).n_notes == 0
        assert kernel.table.get(child).nice == 0
        assert kernel.table.find_named("nobody") is None
        await Client(kernel.init_gate()).kill(child)
        assert not kernel.table.get(child).is_alive, "holding back is never withheld"
        await kernel.db.write(lambda c: c.execute("DROP TRIGGER refuse").fetchall())
        await Client(kernel.init_gate()).admit("visitor")
        assert f"effect 1 kill pid={child}" in await acts(kernel), "and is written later"
    assert checked(tmp_path).faults == ()


async def test_the_act_is_on_disk_before_its_effect(tmp_path: Path) -> None:
    async with kept(tmp_path) as kernel:
        child = kernel.spawn_task("agent", idle)
        await Client(kernel.init_gate()).nice(child, 3)
        reader = apsw.Connection(str(Home(tmp_path).database), flags=apsw.SQLITE_OPEN_READWRITE)
        n_found = reader.execute("SELECT count(*) FROM audit_records WHERE call = 'nice'").get
        reader.close()
        assert n_found == 1, "no later write was needed"


async def test_an_effect_that_was_undone_leaves_a_log_that_is_whole(tmp_path: Path) -> None:
    async with kept(tmp_path) as kernel:
        client = Client(kernel.gate(kernel.spawn_task("agent", idle)))
        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(client.files.write, f"/shared/{number}", b"x")
    assert checked(tmp_path).faults == ()


KILLED = """\
import sys, anyio
from pathlib import Path
from aios.config import Config, Home
from aios.kernel.kernel import open_kernel
from aios.sdk.client import Client

async def main():
    async with open_kernel(Config(), Home(Path(sys.argv[1])), engines={}, is_durable=True) as kernel:
        client = Client(kernel.init_gate())
        async def write(n):
            for i in range(10_000):
                await client.files.write(f"/shared/{n}", str(i).encode())
                print(n, i, flush=True)
        async with anyio.create_task_group() as tasks:
            for n in range(4):
                tasks.start_soon(write, n)

anyio.run(main)
"""


@pytest.mark.parametrize("n_lines", [5, 60])
def test_a_killed_kernel_leaves_a_whole_log_with_all_that_it_did(
    tmp_path: Path, n_lines: int
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as child:  # noqa: S603 - our own interpreter
        assert child.stdout is not None
        done = [child.stdout.readline() for _ in range(n_lines)]
        child.kill()
    found = checked(tmp_path)
    assert found.faults == ()
    connection = connect(Home(tmp_path).database, is_writer=False)
    query = "SELECT count(*) FROM audit_records WHERE call = 'file_edit'"
    n_versions = connection.execute("SELECT count(*) FROM journal_records WHERE call = 'file_edit'")
    assert connection.execute(query).get >= max(len(done), n_versions.get)
    connection.close()


def test_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    key = load_key(tmp_path / "audit.key")
    assert load_key(tmp_path / "audit.key") == key
    assert (tmp_path / "audit.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "audit.key").write_bytes(key[:5])
    with pytest.raises(DiskFailed):
        load_key(tmp_path / "audit.key")


async def test_no_token_is_in_the_log_the_journal_or_the_database(tmp_path: Path) -> None:
    async with kept(tmp_path) as kernel:
        owner = Client(kernel.init_gate())
        tokens = [kernel.owner_token, (await owner.admit("visitor")).token]
        agent = Client(kernel.gate(kernel.spawn_task("agent", idle)))
        with pytest.raises(AccessDenied) as refused:
            await agent.kill(1)
        ps = repr([kernel.table.get(Pid(pid)).info(0.0, None, None) for pid in (1, 2)])
        logs = repr(list(kernel.table.get(Pid(2)).log.lines))
        kernel_file = Home(tmp_path)
    texts = [str(refused.value).encode(), ps.encode(), logs.encode()]
    texts += [file.read_bytes() for file in kernel_file.root.rglob("*") if file.is_file()]
    for token in tokens:
        for text in texts:
            assert token.encode() not in text
