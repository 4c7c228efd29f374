"""A home of its own for every test, programs to run, the command in this process and outside, and a served kernel."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from struct import pack

import msgspec
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from aios.cli.main import main
from aios.config import Config, EngineConfig, Home, MemoryConfig, ServerConfig
from aios.configload import Loaded
from aios.engine.script import Script
from aios.engine.scripted import ScriptedEngine
from aios.kernel.kernel import Kernel
from aios.kernel.sandbox.scratch import scratch_folder
from aios.server.daemon import open_server

COMMAND = (sys.executable, "-m", "aios.cli.main")
LONGEST_S = 60.0
MEMORY = MemoryConfig()

PROGRAMS = {
    # Says who it is and what it was given, asks the kernel once, ends with a result.
    "hello": """\
import os, sys
from aios.sdk.blocking import connect
with connect() as client:
    print("args", sys.argv[1:])
    print("in", os.getcwd(), os.environ.get("COLOR", ""))
    client.exit(0, f"hello from {client.getpid().name}")
""",
    "crash": 'print("about to fail")\nraise ValueError("too bad")\n',
    "status": "import sys\nsys.exit(int(sys.argv[1]))\n",
    # Writes until it is killed.
    "chatter": """\
import time
while True:
    print("and another thing", flush=True)
    time.sleep(0.01)
""",
    # Writes to both streams, then waits for a byte in the FIFO that it is given.
    "waiter": """\
import sys
print("ready", flush=True)
print("a complaint", file=sys.stderr, flush=True)
with open(sys.argv[1], "rb", buffering=0) as fifo:
    fifo.read(1)
print("let go")
""",
    # Answers with what a model says.
    "asker": """\
from aios.sdk.blocking import connect
with connect() as client:
    client.exit(0, client.chat("Name a sea.", max_tokens=4).text)
""",
    # Has a child of its own, and waits for it.
    "parent": """\
import sys
from aios.sdk.blocking import connect
with connect() as client:
    child = client.spawn(sys.argv[1], *sys.argv[2:])
    print("started", child.pid, flush=True)
    client.wait(child.pid)
""",
}


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    def rows(self) -> list[dict[str, object]]:
        """The JSON objects on its stdout."""
        return [msgspec.json.decode(line, type=dict[str, object]) for line in self.out.splitlines()]

    def error(self) -> dict[str, object]:
        """The error that it told as JSON on stderr."""
        told = msgspec.json.decode(self.err.splitlines()[-1], type=dict[str, dict[str, object]])
        return told["error"]


Aios = Callable[..., Ran]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An AIOS_HOME with a path short enough for sockets; no kernel, no colours, the scripted engine."""
    for name in [name for name in os.environ if name.startswith("AIOS_")]:
        monkeypatch.delenv(name)
    with scratch_folder("c") as folder:
        for name, value in {
            "AIOS_HOME": str(folder),
            "AIOS_CONFIG": os.devnull,
            "AIOS_ENGINE_KIND": "scripted",
            "AIOS_SERVER_PORT": "0",
            "TERM": "xterm-256color",
        }.items():
            monkeypatch.setenv(name, value)
        yield folder


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with the programs above."""
    for name, text in PROGRAMS.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "agent.toml").write_text(f'name = "{name}"\n')
        (folder / "main.py").write_text(text)
    return tmp_path


@pytest.fixture
def aios(
    home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Aios]:
    """Run the command in this process, with nothing on stdin."""
    assert home.exists()

    def run(*args: str | Path) -> Ran:
        capfd.readouterr()
        code = main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return Ran(int(code), out, err)

    with Path(os.devnull).open(encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        yield run


@dataclass(frozen=True)
class Served:
    """A kernel that listens in a thread of this process, and a loop to reach it in."""

    kernel: Kernel
    portal: BlockingPortal

    def admit(self, name: str) -> int:
        """A guest, which does nothing."""
        return self.portal.call(self._admit, name)

    async def _admit(self, name: str) -> int:
        return self.kernel.admit(name)[0].pid


@contextmanager
def serving(
    home: Path,
    *,
    script: Script | None = None,
    http: bool = False,
    is_durable: bool = False,
    memory: MemoryConfig = MEMORY,
) -> Iterator[Served]:
    """A kernel on the sockets of that home; a durable one keeps its journal there, as a daemon does."""
    config = Config(
        engine=EngineConfig(kind="scripted"), server=ServerConfig(port=0), memory=memory
    )
    loaded = Loaded(config, Home(home), home / "config.toml")
    engines = {"local": ScriptedEngine(script=script)}
    with start_blocking_portal() as portal:
        server = open_server(loaded, http=http, engines=engines, is_durable=is_durable)
        with portal.wrap_async_context_manager(server) as kernel:
            yield Served(kernel, portal)
            portal.call(_check, kernel)


async def _check(kernel: Kernel) -> None:
    kernel.check_invariants()


@pytest.fixture
def served(home: Path) -> Iterator[Served]:
    """A kernel that runs, without HTTP."""
    with serving(home) as one:
        yield one


@dataclass
class Started:
    """An `aios` outside this process, whose output is read line by line."""

    process: "subprocess.Popen[str]"

    def line(self) -> str:
        """The next line of its stdout, without its end; empty when there is none any more."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def complains(self, text: str) -> str:
        """Read its stderr up to a line with this text, which is returned."""
        assert self.process.stderr is not None
        seen = []
        while line := self.process.stderr.readline():
            if text in line:
                return line.rstrip("\n")
            seen.append(line)
        raise AssertionError(f"{text!r} never came on stderr: {seen}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> Ran:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=LONGEST_S)
        return Ran(self.process.returncode, out, err)


Start = Callable[..., Started]


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Start the command as a process of its own; what is left at the end is killed, group and all."""
    assert home.exists()
    running: list[subprocess.Popen[str]] = []

    def begin(*args: str | Path, stdin: str = "") -> Started:
        process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            [*COMMAND, *map(str, args)],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        if process.stdin is not None:
            process.stdin.write(stdin)
            process.stdin.close()
            process.stdin = None
        return Started(process)

    yield begin
    for process in running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@dataclass
class Terminal:
    """An `aios` on a terminal of its own, whose keyboard we are."""

    process: "subprocess.Popen[bytes]"
    master: int
    shown: str = ""
    n_read: int = 0

    def read_until(self, text: str) -> str:
        """Read until the terminal shows this text after what was read before; return what it showed up to there."""
        while text not in self.shown[self.n_read :]:
            assert self._read(), f"{text!r} never came: {self.shown[self.n_read :]!r}"
        return self._take(text)

    def press_until(self, key: str, text: str) -> str:
        """Press a key again and again until the terminal shows this text.

        `input` misses a Ctrl-C that comes between its prompt and its first look at the keyboard.
        """
        while text not in self.shown[self.n_read :]:
            self.type(key)
            if select.select([self.master], [], [], 0.5)[0]:
                assert self._read(), f"{text!r} never came: {self.shown[self.n_read :]!r}"
        return self._take(text)

    def _take(self, text: str) -> str:
        begin = self.n_read
        self.n_read = self.shown.index(text, begin) + len(text)
        return self.shown[begin : self.n_read]

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self.master, text.encode())

    def end(self) -> Ran:
        """Wait for its end; everything it has shown is in `out`."""
        while self._read():
            continue
        return Ran(self.process.wait(LONGEST_S), self.shown, "")

    def _read(self) -> bool:
        if not select.select([self.master], [], [], LONGEST_S)[0]:
            return False
        try:
            chunk = os.read(self.master, 65536)
        except OSError:  # the other side was closed
            return False
        self.shown += chunk.decode()
        return bool(chunk)


Terminals = Callable[..., Terminal]


@pytest.fixture
def terminal(home: Path) -> Iterator[Terminals]:
    """Start the command on a terminal of its own."""
    assert home.exists()
    opened: list[Terminal] = []

    def begin(*args: str | Path) -> Terminal:
        master, slave = pty.openpty()
        process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            [*COMMAND, *map(str, args)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=_take_terminal,
            start_new_session=True,
        )
        os.close(slave)
        opened.append(Terminal(process, master))
        return opened[-1]

    yield begin
    for one in opened:
        with suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.wait()
        os.close(one.master)


def _take_terminal() -> None:
    """In the child: make the terminal its own, so that Ctrl-C on it becomes SIGINT."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@dataclass(frozen=True)
class Fifo:
    """What `waiter`s wait at."""

    path: Path
    descriptor: int

    def let_go(self, n: int = 1) -> None:
        """Let so many of them go on."""
        os.write(self.descriptor, b"." * n)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    """A FIFO that is open for both ways, so that nobody waits for it to be opened."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    yield Fifo(path, descriptor)
    os.close(descriptor)


def gguf(path: Path, *, padding: int = 0) -> Path:
    """The smallest file that passes for a model: a head and no weights."""
    key, value = b"general.architecture", b"llama"
    head = b"GGUF" + pack("<IQQ", 3, 0, 1)
    pair = pack("<Q", len(key)) + key + pack("<IQ", 8, len(value)) + value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + pair + bytes(64 + padding))
    return path
