"""Hostile programs behind each wall, and what is looked at from outside: nothing was read, written, reached or left behind."""

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.abc
import pytest
from tests.kernel.sandbox.payloads import PAYLOADS, PRELUDE, Payload

import aios
from aios.config import SandboxConfig
from aios.kernel.sandbox.launch import Launcher
from aios.kernel.sandbox.probe import Wall, probe
from aios.kernel.sandbox.profile import Bounds, Profile

SECRET = "canary-5f1c"  # noqa: S105 - it is bait
BOUNDS = Bounds(
    memory_bytes=512 << 20,
    cpu_s=1,
    n_processes=100,
    file_bytes=16 << 20,
    n_files=256,
    tmp_bytes=16 << 20,
)


@dataclass
class Host:
    """What there is to attack."""

    root: Path
    victim: anyio.abc.Process
    listeners: dict[str, socket.socket]
    env: dict[str, str] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        return self.root / "work"

    def is_unharmed(self) -> bool:
        """Nothing outside the workspace has changed, nobody was reached, and the victim lives."""
        assert (self.root / "canary").read_text() == SECRET
        assert (self.root / "canary").stat().st_mode & 0o777 == 0o600
        assert sorted(path.name for path in self.root.iterdir()) == [
            "canary", "home", "sock", "user", "work",
        ]  # fmt: skip
        assert self.victim.returncode is None
        for name, listener in self.listeners.items():
            with pytest.raises(BlockingIOError):
                _ = listener.recv(1) if name.startswith("udp") else listener.accept()
        return True


@pytest.fixture(scope="module")
def walls() -> dict[str, Wall]:
    return {mode: probe(mode).wall for mode in ("bubblewrap", "landlock")}


@pytest.fixture
def root() -> Iterator[Path]:
    with TemporaryDirectory(
        dir="/var/tmp"
    ) as folder:  # not below /tmp: there is a private one inside
        yield Path(folder).resolve()


@pytest.fixture
def listeners(root: Path) -> Iterator[dict[str, socket.socket]]:
    made = {
        "tcp4": socket.create_server(("127.0.0.1", 0)),
        "udp4": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "path": socket.socket(socket.AF_UNIX),
        "abstract": socket.socket(socket.AF_UNIX),
    }
    made["udp4"].bind(("127.0.0.1", 0))
    made["path"].bind(f"/proc/self/fd/{os.open(root, os.O_PATH)}/sock")
    made["path"].listen()
    made["abstract"].bind(f"\0aios-{os.getpid()}-{root.name}")
    made["abstract"].listen()
    for each in made.values():
        each.setblocking(False)
    yield made
    for each in made.values():
        each.close()


def prepare(root: Path) -> None:
    (root / "canary").write_text(SECRET)
    (root / "canary").chmod(0o600)
    (root / "work").mkdir()
    for name in ("home/token", "home/aios.db", "user/.ssh/id", "user/.netrc"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(SECRET)


def profile_of(host: Host) -> Profile:
    package = Path(aios.__file__).parents[1]
    prefixes = {Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)}
    port = host.listeners["tcp4"].getsockname()[1]
    env = {
        "PATH": os.environ["PATH"],
        "OUT": str(host.root),
        "CANARY": str(host.root / "canary"),
        "KERNEL_HOME": str(host.root / "home"),
        "USER_HOME": str(host.root / "user"),
        "VICTIM": str(host.victim.pid),
        "PORT": str(port),
        "UDP": str(host.listeners["udp4"].getsockname()[1]),
        "ABSTRACT": f"aios-{os.getpid()}-{host.root.name}",
    }
    return Profile((package, *prefixes), (host.workspace,), env=env, bounds=BOUNDS)


@pytest.mark.anyio
@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.name)
@pytest.mark.parametrize("mode", ["bubblewrap", "landlock"])
async def test_nothing_escapes(
    walls: dict[str, Wall],
    mode: str,
    payload: Payload,
    root: Path,
    listeners: dict[str, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if walls[mode].value != mode:
        pytest.skip(f"this machine has no {mode}")
    prepare(root)
    monkeypatch.setenv("ENV_CANARY", SECRET)
    monkeypatch.setenv("HOME", str(root / "user"))
    launcher = Launcher(SandboxConfig(mode=mode), root / "home")
    with anyio.fail_after(30):
        async with await anyio.open_process(["sleep", "60"], cwd=root) as victim:
            host = Host(root, victim, listeners)
            try:
                said = await run(launcher, host, payload)
                if (
                    mode == "bubblewrap" or not payload.gap
                ):  # docs/concepts/sandbox.md lists the gaps
                    assert "ESCAPED" not in said
                    assert SECRET not in said
                    assert host.is_unharmed()
            finally:
                victim.kill()


async def run(launcher: Launcher, host: Host, payload: Payload) -> str:
    """All that the payload said."""
    confined = await launcher.open(
        [os.path.realpath(sys.executable), "-I", "-S", "-c", PRELUDE + payload.code],
        profile_of(host),
        cwd=host.workspace,
    )
    said = bytearray()
    async with anyio.create_task_group() as tasks:
        for stream in (confined.process.stdout, confined.process.stderr):
            assert stream is not None
            tasks.start_soon(gather, stream, said)
        await confined.process.wait()
        confined.kill()
    await confined.wait_gone()
    await confined.process.aclose()
    assert not confined.inside(), "something was left behind"
    return said.decode(errors="replace")


async def gather(stream: anyio.abc.ByteReceiveStream, said: bytearray) -> None:
    async for piece in stream:
        said += piece[: 1 << 16]


def test_there_are_enough_of_them() -> None:
    assert len(PAYLOADS) >= 60
    assert len({payload.name for payload in PAYLOADS}) == len(PAYLOADS)
