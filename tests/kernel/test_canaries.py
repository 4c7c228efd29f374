"""Secrets and tokens are planted in a served kernel, and looked for in all that it keeps and shows."""

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import anyio
import msgspec
import pytest

from aios.abi.calls import Admit, Kill, Ps, Spawn, Wait
from aios.abi.journal import Events, JournalRead
from aios.abi.mail import Publish
from aios.abi.recovery import Restart
from aios.abi.timers import TimerAdd, TimerList
from aios.abi.tools import ToolRun
from aios.config import Config, EngineConfig, Home, ServerConfig
from aios.configload import Loaded
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError
from aios.kernel.egress.secrets import Secret, SecretStore
from aios.kernel.journal.audit import tables as audit
from aios.kernel.journal.audit.chain import subject_of
from aios.kernel.journal.audit.tables import Wanted
from aios.kernel.kernel import Kernel
from aios.kernel.sandbox.scratch import scratch_folder
from aios.server.daemon import open_server

pytestmark = pytest.mark.anyio

ENV, TIMER, SECRET = "canary-env-77c1", "canary-timer-51d0", "canary-secret-e90b"
PROGRAM = f"""
import os, time
from pathlib import Path
here = Path(os.environ["HERE"])
print("has it" if os.environ["CANARY"] == {ENV!r} else "lost it", flush=True)
if not here.exists():
    here.touch()
    raise RuntimeError("crashed")
time.sleep(60)
"""
CRASHER = """
import os, resource
print("may dump", resource.getrlimit(resource.RLIMIT_CORE)[1], "bytes", flush=True)
os.abort()
"""
KEEPERS = {"secrets.json", "token"}
"""Files of mode 600 that are there to hold them."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch_folder("c") as path:
        yield path


async def test_no_secret_and_no_token_is_kept_or_shown_and_a_program_has_its_own_again(
    folder: Path,
) -> None:
    home = Home(folder / "home")
    home.root.mkdir()
    SecretStore(home.secrets).put("API_KEY", Secret(SECRET, ("api.example",)))
    config = Config(engine=EngineConfig(kind="scripted"), server=ServerConfig(port=0))
    loaded = Loaded(config, home, folder / "config.toml")
    engines = {"local": ScriptedEngine()}
    with anyio.fail_after(60):
        async with open_server(loaded, http=False, engines=engines, is_durable=True) as kernel:
            gate = kernel.init_gate()
            again = Restart(policy="on-failure", delay_s=0.01)
            env = {"CANARY": ENV, "HERE": str(folder / "here")}
            started = Spawn(program=program(folder), env=env, restart=again)
            pid = (await gate.call(started)).value.pid
            later = Spawn(program=program(folder), env={"CANARY": TIMER})
            await gate.call(TimerAdd(spawn=later, at_unix_s=4e9))
            guest = (await gate.call(Admit(name="crew"))).value
            await until_said(kernel, pid, "has it", n_times=2)
            said = await faults_of(kernel, guest.token) + subject_of(
                Kill(pid=pid, reason=guest.token)
            )
            said += subject_of(Spawn(program=f"/home/{guest.token}"))
            shown = said + await shown_by(kernel)
            canaries = {ENV, TIMER, SECRET, kernel.owner_token, guest.token}
            assert kernel.journal.disk is not None
            await kernel.journal.disk.flush()
            assert not {each for each in canaries if each in shown}
            assert not found_in(home, canaries), "while the program runs"
        assert not found_in(home, canaries), "after the kernel"


def program(folder: Path, source: str = PROGRAM) -> str:
    path = folder / "prog"
    path.mkdir(exist_ok=True)
    (path / "agent.toml").write_text('name = "prog"\n')
    (path / "main.py").write_text(source)
    return str(path)


@pytest.mark.usefixtures("core_dumps")
async def test_a_program_that_dies_by_a_signal_leaves_no_core(folder: Path) -> None:
    home = Home(folder / "home")
    config = Config(engine=EngineConfig(kind="scripted"), server=ServerConfig(port=0))
    loaded = Loaded(config, home, folder / "config.toml")
    with anyio.fail_after(60):
        async with open_server(loaded, http=False, is_durable=True) as kernel:
            assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0, "the kernel's own"
            path = program(folder, CRASHER)
            started = Spawn(program=path, env={"CANARY": ENV}, cwd=path)
            pid = (await kernel.init_gate().call(started)).value.pid
            end = (await kernel.init_gate().call(Wait(pid=pid))).value.exit
            assert end.status == 128 + signal.SIGABRT, end
            said = [line.text for line in kernel.table.get(pid).log.read(0)[0]]
            assert "may dump 0 bytes" in said
        assert not found_in(Home(folder), {ENV})


@pytest.fixture
def core_dumps() -> Iterator[None]:
    """Whoever starts the kernel has allowed them."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


async def until_said(kernel: Kernel, pid: int, text: str, *, n_times: int) -> None:
    log = next(process for process in kernel.table if process.pid == pid).log
    while True:
        said = [line.text for line in log.read(0)[0]]
        assert "lost it" not in said
        if said.count(text) == n_times:
            return
        await log.wait_changed()


async def faults_of(kernel: Kernel, token: str) -> str:
    """What a guest is told whose calls are refused."""
    errors = []
    gate = kernel.gate(kernel.authenticate(token))
    for call in (ToolRun(name="no/such"), Publish(topic="signal", body="x"), Spawn(program="/x")):
        with pytest.raises(AiosError) as raised:
            await gate.call(call)
        errors.append(raised.value)
    return "".join(f"{error.message} {error.hint} {error!r}" for error in errors)


async def shown_by(kernel: Kernel) -> str:
    """All that the calls of the owner show, and the logs and the audit log."""
    gate = kernel.init_gate()
    answers: list[object] = [(await gate.call(Ps(all=True))).value]
    answers.append((await gate.call(TimerList())).value)
    answers.append((await gate.call(Events(after=0, is_waiting=False))).value)
    for process in kernel.table:
        answers.append((await gate.call(JournalRead(pid=process.pid, is_full=True))).value)
        answers.append([line.text for line in process.log.read(0)[0]])
    links = await kernel.db.read(lambda c: list(audit.read(c, Wanted())))
    return msgspec.json.encode(answers).decode() + repr([link.act for link in links])


def found_in(home: Home, canaries: set[str]) -> dict[str, set[str]]:
    """The files of a home in which a canary lies, but for those that are there for it."""
    found: dict[str, set[str]] = {}
    for file in home.root.rglob("*"):
        if file.is_file() and file.name not in KEEPERS:
            data = file.read_bytes()
            if held := {each for each in canaries if each.encode() in data}:
                found[file.name] = held
    return found
