"""A program with a network under a daemon, from its agent.toml to the host; and its secret, which is looked for everywhere."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.kernel.egress.hosts import host

from aios.abi.types import Pid
from aios.config import Config, EgressConfig, EngineConfig, Home, ServerConfig
from aios.configload import Loaded
from aios.engine.scripted import ScriptedEngine
from aios.errors import AccessDenied
from aios.kernel.egress.secrets import Secret, SecretStore
from aios.kernel.kernel import Kernel
from aios.kernel.sandbox.processes import descendants
from aios.kernel.sandbox.scratch import scratch_folder
from aios.sdk.client import Client
from aios.server.daemon import open_server

pytestmark = pytest.mark.anyio
CANARY = "canary-2f6de1a0c9"


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_folder("e") as folder:
        yield folder


@asynccontextmanager
async def booted(home: Path, port: int) -> AsyncIterator[tuple[Kernel, Client]]:
    named = (f"localhost:{port}",)
    config = Config(
        engine=EngineConfig(kind="scripted"),
        server=ServerConfig(port=0),
        egress=EgressConfig(hosts=named, private_hosts=named),
    )
    loaded = Loaded(config, Home(home), home / "config.toml")
    engines = {"local": ScriptedEngine()}
    async with open_server(loaded, http=False, engines=engines, is_durable=True) as kernel:
        yield kernel, Client(kernel.init_gate())


def program(home: Path, name: str, network: str, source: str) -> str:
    folder = home / "programs" / name
    folder.mkdir(parents=True)
    (folder / "agent.toml").write_text(f'name = "{name}"\n{network}\n')
    (folder / "main.py").write_text(source)
    return str(folder)


FETCH = """
import os, sys, urllib.request
from aios.sdk.blocking import connect
ask = urllib.request.Request("http://localhost:PORT/", headers={"X-Key": os.environ.get("KEY", "none")})
with connect() as client:
    try:
        said = urllib.request.urlopen(ask, timeout=30).read().decode()
    except OSError as error:
        said = type(error).__name__
    client.log(f"{said} {os.environ}")
    client.files.write("said", said)
    sys.stdin.read()
    import time; time.sleep(1)
"""
SPAWN = """
import os
from aios.sdk.blocking import connect
with connect() as client:
    try:
        client.spawn(os.environ["CHILD"])
        client.files.write("/shared/child", "ran")
    except Exception as error:
        client.files.write("/shared/child", error.code)
"""


def processes_of(kernel: Kernel, pid: Pid) -> str:
    """All that the operating system shows of a program's processes."""
    os_pid = kernel.table.get(pid).os_pid
    assert os_pid is not None
    shown = b""
    for each in (os.getpid(), os_pid, *descendants(os_pid)):
        for name in ("cmdline", "environ"):
            shown += Path(f"/proc/{each}/{name}").read_bytes()
    return shown.decode(errors="replace")


def written_in(home: Path) -> bytes:
    """All that the kernel keeps, but for the file of secrets itself."""
    files = (file for file in home.rglob("*") if file.is_file() and file.name != "secrets.json")
    return b"".join(file.read_bytes() for file in files)


async def test_a_program_uses_a_secret_that_is_nowhere_to_be_found(home: Path) -> None:
    def echo(said: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + said

    with anyio.fail_after(60):
        async with host(echo) as web:
            SecretStore(Home(home).secrets).put("KEY", Secret(CANARY, (f"localhost:{web.port}",)))
            async with booted(home, web.port) as (kernel, client):
                if (await kernel.launcher.find_walls()).wall.value != "bubblewrap":
                    pytest.skip("this machine has no bubblewrap")
                source = FETCH.replace("PORT", str(web.port))
                asked = f'network = ["localhost:{web.port}"]'
                process = await client.spawn(
                    program(home, "net", asked, source), cwd=str(home / "programs")
                )
                while not web.said or not web.said[0].endswith(b"\r\n\r\n"):
                    await anyio.sleep(0.02)
                shown = processes_of(kernel, process.pid)
                await client.wait(process.pid)
                said = await client.files.read_text("/agents/net/said")
                log = kernel.table.get(process.pid).log.read(0)
                records = await client.journal.read(process.pid, is_full=True)
                shown += f"{said}{log}{records}{list(kernel.journal.events)}{await client.ps(include_ended=True)}"
            assert f"X-Key: {CANARY}".lower().encode() in web.said[0].lower()
            assert "*" * len(CANARY) in said
            assert "aios-secret:KEY" in shown
            assert CANARY not in shown
            assert CANARY.encode() not in written_in(home)


async def test_without_asking_there_is_no_network_and_no_child_gets_more(home: Path) -> None:
    with anyio.fail_after(60):
        async with host() as web, booted(home, web.port) as (_, client):
            asked = f'network = ["localhost:{web.port}"]'
            source = FETCH.replace("PORT", str(web.port))
            alone = await client.spawn(
                program(home, "alone", "", source), cwd=str(home / "programs")
            )
            await client.wait(alone.pid)
            assert "Error" in await client.files.read_text("/agents/alone/said")
            child = program(home, "child", asked, source)
            parent = program(home, "parent", "", SPAWN)
            spawned = await client.spawn(
                parent, env={"CHILD": child}, read=[child], cwd=str(home / "programs")
            )
            await client.wait(spawned.pid)
            assert await client.files.read_text("/shared/child") == AccessDenied.code
            assert web.said == []
