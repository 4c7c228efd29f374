"""Programs that a bench starts, measures and always ends: AIOS daemons, other servers, short commands."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from time import perf_counter

import anyio
import anyio.abc
import httpx
import msgspec
from msgspec import Struct

from aios.config import Home
from aios.kernel.sandbox import scratch

READY_S = 60.0
"""Longest time for a server to get ready."""
END_GRACE_S = 5.0
"""How long a program has to end after SIGTERM before it is killed."""
COMMAND_S = 60.0
POLL_S = 0.005
N_LAST_CHARS = 400


class BenchFailed(Exception):
    """A bench could not take a figure: something that it started broke, or gave no answer in time."""


class Child(Struct, frozen=True):
    """A program that runs. `begun_s` is when it was started, by `time.perf_counter`."""

    process: anyio.abc.Process
    output: Path
    begun_s: float

    def last_words(self) -> str:
        """The end of what it wrote, for messages."""
        text = self.output.read_text(errors="replace").strip()
        return " | ".join(text[-N_LAST_CHARS:].splitlines()[-3:]) or "it wrote nothing"


class Daemon(Struct, frozen=True):
    """An `aios serve` that is ready."""

    child: Child
    home: Home
    http_url: str
    socket: str
    token: str
    ready_s: float
    """From its start to the first good answer of `/health`."""

    @property
    def env(self) -> dict[str, str]:
        """The environment for commands that speak to it."""
        return environment({"AIOS_HOME": str(self.home.root)})


class _RunFile(msgspec.Struct):
    """What is read of `run/kernel.json`."""

    urls: tuple[str, ...]


def aios_command(*args: str) -> list[str]:
    """The `aios` command of this very interpreter."""
    script = Path(sys.executable).with_name("aios")
    if script.exists():
        return [str(script), *args]
    return [sys.executable, "-c", "from aios.cli.main import main; main()", *args]


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Our own environment without any knob of AIOS, and `extra`. Python may keep what it compiles, as where AIOS is installed."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AIOS_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    return {**kept, "AIOS_CONFIG": os.devnull, **extra}


def free_port() -> int:
    """A TCP port of the loopback that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder with a path short enough for Unix sockets in it."""
    scratch.sweep_folders()
    with scratch.scratch_folder("bench") as folder:
        yield folder


@asynccontextmanager
async def running(
    command: Sequence[str], *, env: Mapping[str, str], folder: Path
) -> AsyncIterator[Child]:
    """A program in a process group of its own, ended with the whole group when the block is left."""
    output = folder / f"{Path(command[0]).name}-{perf_counter():.6f}.log"
    with output.open("wb") as file:
        begun_s = perf_counter()
        process = await anyio.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=env,
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield Child(process, output, begun_s)
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


async def _end(process: anyio.abc.Process) -> None:
    _signal_group(process, signal.SIGTERM)
    with anyio.move_on_after(END_GRACE_S):
        await process.wait()
    _signal_group(process, signal.SIGKILL)
    await process.wait()
    await process.aclose()


def _signal_group(process: anyio.abc.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


@contextmanager
def blaming(child: Child) -> Iterator[None]:
    """Where something fails since the child has ended, say so.

    Raises:
        BenchFailed: What failed, how the child ended and what it wrote last.
    """
    try:
        yield
    except BenchFailed as error:
        status = child.process.returncode
        if status is None:
            raise
        why = f"the server had ended with {status}: {child.last_words()}"
        raise BenchFailed(f"{error}; {why}") from error


async def run_command(
    command: Sequence[str], *, env: Mapping[str, str], folder: Path, within_s: float = COMMAND_S
) -> float:
    """Run a command to its end; return its seconds from start to end.

    Raises:
        BenchFailed: It failed, or took longer than `within_s`.
    """
    async with running(command, env=env, folder=folder) as child:
        with anyio.move_on_after(within_s):
            status = await child.process.wait()
            seconds = perf_counter() - child.begun_s
            if status:
                raise BenchFailed(f"{_shown(command)} ended with {status}: {child.last_words()}")
            return seconds
    raise BenchFailed(f"{_shown(command)} was not done within {within_s:g} s")


async def wait_until(
    is_done: Callable[[], bool], child: Child, *, what: str, within_s: float = READY_S
) -> None:
    """Look every few milliseconds until something outside is done.

    Raises:
        BenchFailed: The child ended first, or it took longer than `within_s`.
    """
    with anyio.move_on_after(within_s):
        while not is_done():
            if child.process.returncode is not None:
                status = child.process.returncode
                raise BenchFailed(f"it ended with {status} before {what}: {child.last_words()}")
            await anyio.sleep(POLL_S)
        return
    raise BenchFailed(f"{what}: not within {within_s:g} s; {child.last_words()}")


async def wait_healthy(url: str, child: Child, *, within_s: float = READY_S) -> None:
    """Ask `/health` until it answers 200.

    Raises:
        BenchFailed: The child ended first, or it took longer than `within_s`.
    """
    async with httpx.AsyncClient(timeout=within_s, trust_env=False) as client:
        with anyio.move_on_after(within_s):
            while not await _is_healthy(client, url):
                if child.process.returncode is not None:
                    break
                await anyio.sleep(POLL_S)
            else:
                return
    raise BenchFailed(f"{url} did not get ready: {child.last_words()}")


async def _is_healthy(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url + "/health")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@asynccontextmanager
async def daemon(
    folder: Path, knobs: Mapping[str, str], *, home: Home | None = None
) -> AsyncIterator[Daemon]:
    """An `aios serve` with these knobs, ready for calls.

    Args:
        folder: Where its home is made.
        knobs: `AIOS_...` variables.
        home: That of an earlier one that has ended, instead of a fresh one.

    Raises:
        BenchFailed: It did not get ready.
    """
    home = home or Home(Path(tempfile.mkdtemp(prefix="home-", dir=folder)))
    env = environment({"AIOS_SERVER_PORT": "0", **knobs, "AIOS_HOME": str(home.root)})
    async with running(aios_command("serve"), env=env, folder=folder) as child:
        run_file = home.run / "kernel.json"
        run_file.unlink(missing_ok=True)  # one that was killed left it
        await wait_until(lambda: bool(_urls(run_file)), child, what="it listened")
        urls = _urls(run_file)
        http_url = next(url for url in urls if url.startswith("http"))
        await wait_healthy(http_url, child)
        ready_s = perf_counter() - child.begun_s
        path = next(url for url in urls if url.startswith("unix://")).removeprefix("unix://")
        token = home.token_file.read_text().strip()
        with blaming(child):
            yield Daemon(child, home, http_url, path, token, ready_s)


def _urls(run_file: Path) -> tuple[str, ...]:
    """The addresses of a kernel, once its run file is whole."""
    try:
        return msgspec.json.decode(run_file.read_bytes(), type=_RunFile).urls
    except (OSError, msgspec.DecodeError):
        return ()


def memory_bytes(os_pid: int) -> tuple[int, int | None]:
    """What a process holds: its resident size (RSS), and its proportional share (PSS) where that can be read.

    The share counts a page that n processes have in common, such as a library's, as 1/n.
    """
    folder = Path("/proc") / str(os_pid)
    resident = int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError):
        for line in (folder / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return resident, int(line.split()[1]) * 1024
    return resident, None


def _shown(command: Sequence[str]) -> str:
    return " ".join([Path(command[0]).name, *command[1:]])[:120]
