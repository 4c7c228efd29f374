"""The daemon as an operating-system process of its own."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest
from tests.server.serving import chat, serving, short_folder

from aios.abi.calls import GetPid, Shutdown, Spawn
from aios.abi.gate import Result
from aios.config import Config
from aios.configload import Loaded
from aios.errors import AiosError, Conflict, KernelUnreachable
from aios.sdk.blocking_socket import BlockingUnixGate
from aios.sdk.discovery import KernelAddress, find_kernel, read_token
from aios.server.collector import YOUNG_OBJECTS
from aios.server.daemon import open_server

PROGRAM = """
import functools, gc, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
import anyio
from aios.configload import load
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError
from aios.server import daemon
from aios.kernel import kernel
from aios.kernel.cores import Core

def cores(*_):
    async def make():
        return ScriptedEngine(script=Script(answer_tokens=100_000, token_delay_s=0.01), window_tokens=200_000)
    return [Core("scripted", "scripted", make)]

kernel.configured_cores = cores
try:
    anyio.run(functools.partial(daemon.serve, load(), on_ready=lambda _: print("ready", flush=True)))
except AiosError as error:
    print(f"{error.code}: {error.message} / {error.hint}", flush=True)
    sys.exit(3)
print(f"ended, collecting after {gc.get_threshold()[0]}", flush=True)
"""


class Daemon:
    """A running daemon."""

    def __init__(self, home: Path, **knobs: str) -> None:
        env = {**os.environ, "AIOS_HOME": str(home), "AIOS_SERVER_PORT": "0", **knobs}
        self.home = home
        command = [sys.executable, "-c", PROGRAM]
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    @property
    def address(self) -> KernelAddress:
        address = find_kernel(self.home)
        assert address is not None
        return address

    def gate(self) -> BlockingUnixGate:
        path = self.address.unix_path
        assert path is not None
        return BlockingUnixGate(path, read_token(self.home), timeout_s=10)

    def end(self, number: signal.Signals, limit_s: float) -> float:
        """Send a signal; the seconds until it has ended."""
        start_s = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(limit_s)
        return time.monotonic() - start_s


@contextmanager
def running(home: Path, **knobs: str) -> Iterator[Daemon]:
    daemon = Daemon(home, **knobs)
    try:
        assert daemon.line() == "ready"
        yield daemon
    finally:
        daemon.process.kill()
        daemon.process.wait()
        assert daemon.process.stdout is not None
        daemon.process.stdout.close()


@pytest.fixture
def home() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def left_in(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "run").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_serves_on_both_addresses_and_ends_clean_at_a_signal(
    home: Path, number: signal.Signals
) -> None:
    with running(home) as daemon:
        address = daemon.address
        assert address.os_pid == daemon.process.pid
        with daemon.gate() as gate:
            assert gate.call(GetPid()).value.pid == 1
        assert address.http_url is not None
        reply = httpx.get(f"{address.http_url}/health", trust_env=False)
        assert reply.json() == {"status": "ready"}
        assert daemon.end(number, 10) < 5
        assert daemon.line().startswith("ended")
        assert daemon.process.returncode == 0
    assert left_in(home) == ["kernel.lock"]
    assert find_kernel(home) is None


def test_it_settles_the_garbage_collector_of_its_own_process(home: Path) -> None:
    with running(home) as daemon:
        daemon.end(signal.SIGTERM, 10)
        assert daemon.line() == f"ended, collecting after {YOUNG_OBJECTS}"


def test_sigterm_lets_calls_end_within_the_time_for_it(home: Path) -> None:
    with running(home, AIOS_SERVER_DRAIN_S="10") as daemon, daemon.gate() as gate:
        with gate.open_call(chat(max_tokens=60)) as frames:
            next(iter(frames))
            daemon.process.send_signal(signal.SIGTERM)
            result = frames.result()
        assert isinstance(result, Result)
        assert result.value.usage.completion_tokens == 60
        daemon.process.wait(10)
        assert daemon.process.returncode == 0


def test_sigterm_does_not_wait_for_ever(home: Path) -> None:
    with running(home, AIOS_SERVER_DRAIN_S="0.3") as daemon, daemon.gate() as gate:
        with gate.open_call(chat(max_tokens=None)) as frames:
            next(iter(frames))
            daemon.process.send_signal(signal.SIGTERM)
            with pytest.raises(AiosError):
                frames.result()
        daemon.process.wait(10)
        assert daemon.process.returncode == 0
    assert left_in(home) == ["kernel.lock"]


def test_while_it_drains_new_calls_are_told_so(home: Path) -> None:
    with running(home, AIOS_SERVER_DRAIN_S="5") as daemon, daemon.gate() as gate:
        with gate.open_call(chat(max_tokens=100)) as frames:
            next(iter(frames))
            daemon.process.send_signal(signal.SIGTERM)
            wait_stopping(daemon)
            with pytest.raises(AiosError, match="shutting down"):
                gate.call(GetPid())
            assert frames.result().value.usage.completion_tokens == 100


def test_a_second_sigint_ends_it_at_once_with_its_programs(home: Path) -> None:
    program = home / "sleeper"
    program.mkdir()
    (program / "agent.toml").write_text('name = "sleeper"\n')
    (program / "main.py").write_text("import time\ntime.sleep(600)\n")
    with running(home, AIOS_SERVER_DRAIN_S="60") as daemon, daemon.gate() as gate:
        gate.call(Spawn(program=str(program)))
        children = (
            Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
            .read_text()
            .split()
        )
        assert children
        with gate.open_call(chat(max_tokens=None)) as frames:
            next(iter(frames))
            daemon.process.send_signal(signal.SIGINT)
            wait_stopping(daemon)
            daemon.process.send_signal(signal.SIGINT)
            with pytest.raises(KernelUnreachable):
                frames.result()
        assert daemon.process.wait(5) == 130
        for child in children:
            wait_gone(child)
    assert left_in(home) == ["kernel.lock"]


def wait_stopping(daemon: Daemon) -> None:
    url = f"{daemon.address.http_url}/health"
    for _ in range(1_000):
        if httpx.get(url, trust_env=False).status_code == 503:
            return
    pytest.fail("it did not begin to stop")


def wait_gone(os_pid: str) -> None:
    """Return when a process has ended: who was killed is still there for a moment."""
    deadline_s = time.monotonic() + 10
    while is_running(os_pid):
        assert time.monotonic() < deadline_s, f"{os_pid} was not killed"
        os.sched_yield()


def is_running(os_pid: str) -> bool:
    try:
        return " Z " not in Path(f"/proc/{os_pid}/stat").read_text()
    except OSError:
        return False


def test_the_call_shutdown_ends_it_as_sigterm_does(home: Path) -> None:
    with running(home) as daemon, daemon.gate() as gate:
        gate.call(Shutdown())
        daemon.process.wait(10)
        assert daemon.process.returncode == 0


def test_a_second_daemon_refuses_and_says_who_serves(home: Path) -> None:
    with running(home) as daemon:
        second = Daemon(home)
        output, _ = second.process.communicate(timeout=30)
        assert second.process.returncode == 3
        assert f"already served by pid {daemon.process.pid}" in output
        assert str(daemon.address.http_url) in output
        with daemon.gate() as gate:
            assert gate.call(GetPid()).value.pid == 1


def test_after_a_kill_the_next_daemon_starts(home: Path) -> None:
    with running(home) as daemon:
        daemon.end(signal.SIGKILL, 5)
        assert find_kernel(home) is None
        assert left_in(home) == ["kernel.json", "kernel.lock", "kernel.sock"]
        with running(home) as successor, successor.gate() as gate:
            assert gate.call(GetPid()).value.pid == 1


def test_a_home_with_a_long_path_is_served_at_a_short_one(home: Path) -> None:
    deep = home / ("x" * 100)
    with running(deep) as daemon:
        path = daemon.address.unix_path
        assert path is not None
        assert len(path) < 100
        with daemon.gate() as gate:
            assert gate.call(GetPid()).value.pid == 1
        daemon.end(signal.SIGTERM, 10)
        assert not Path(path).parent.exists()


@pytest.mark.anyio
async def test_an_embedded_kernel_says_so_and_needs_no_port() -> None:
    async with serving(http=False) as served:
        assert len(served.kernel.urls) == 1
        found = find_kernel(served.home.root)
        assert found is not None
        assert found.http_url is None


@pytest.mark.anyio
async def test_an_error_in_the_block_comes_out_bare_and_everything_is_closed() -> None:
    homes: list[Path] = []

    async def break_off() -> None:
        async with serving() as served, served.client() as client:
            assert (await client.get("/health")).status_code == 200
            homes.append(served.home.root)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await break_off()
    assert find_kernel(homes[0]) is None


@pytest.mark.anyio
async def test_one_process_cannot_serve_a_home_twice() -> None:
    async with serving(http=False) as served:
        loaded = Loaded(Config(), served.home, served.home.root / "x")
        with pytest.raises(Conflict):
            async with open_server(loaded, http=False, engines={}):
                pass
        assert json.loads((served.home.run / "kernel.json").read_text())["urls"]


@pytest.mark.anyio
async def test_closing_with_clients_connected_takes_no_time() -> None:
    async with serving() as served:
        client = served.client()
        await client.get("/health")
        raw = await anyio.connect_tcp("127.0.0.1", served.port)
        gate = BlockingUnixGate(served.path, served.token)
        await anyio.to_thread.run_sync(gate.call, GetPid())
        start_s = anyio.current_time()
    assert anyio.current_time() - start_s < 3
    await client.aclose()
    await raw.aclose()
    gate.close()


def test_a_daemon_that_crashes_writes_no_core_and_no_token(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        with running(home, PYTHONFAULTHANDLER="1") as daemon:
            limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
            assert re.search(r"Max core file size +0 ", limits)
            token = read_token(home)
            daemon.end(signal.SIGABRT, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    said = capfd.readouterr().err
    assert "Fatal Python error: Aborted" in said
    assert token not in said
