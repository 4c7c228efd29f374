"""`escapes`: hostile programs behind each wall of the sandbox, looked at from outside as well: what got out, and what is known to.

Under bubblewrap nothing may. Under Landlock alone the programs of `GAPS` may, and no others; docs/concepts/sandbox.md lists those.
"""

import ctypes
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import randrange

import anyio
import anyio.abc

import aios
from aios.bench.bench import Bench, Settings
from aios.bench.escape_programs import GAPS, HOME, PAYLOADS, PRELUDE, Payload
from aios.bench.rows import Bar, Report, Spec
from aios.config import SandboxConfig
from aios.errors import ProgramFailed
from aios.kernel.sandbox.launch import Launcher
from aios.kernel.sandbox.probe import probe
from aios.kernel.sandbox.profile import Bounds, Profile
from aios.kernel.sandbox.scratch import scratch_folder, sweep_folders

NAME = "escapes"
SECRET = "canary-5f1c"  # noqa: S105 - it is bait
LONGEST_S = 30.0
PLACE = Path("/var/tmp")  # noqa: S108 - not below /tmp: there is a private one inside
QUOTED_CHARS = 200
KEPT_BYTES = 1 << 16
"""Of what a program says."""
BOUNDS = Bounds(
    memory_bytes=512 << 20,
    cpu_s=1,
    n_processes=100,
    file_bytes=16 << 20,
    n_files=256,
    tmp_bytes=16 << 20,
)
WALLS = ("bubblewrap", "landlock")
STATE = ("token", "secrets.json", "aios.db", "logs/1.log", "policies/mine.cedar", "run/kernel.json")
"""Files of the kernel's home."""
KEYS = (".ssh/id", ".netrc", ".config/gh/hosts.yml")
"""Below the user's home."""
REFUSALS = ("keeps its state", "you keep keys", "cannot hide")
"""Why a program is not even started where it would be too near to these."""
IPC_CREAT, IPC_RMID = 0o1000, 0

SPECS = (
    Spec(NAME, "programs", "programs", Bar(60, is_minimum=True), "hostile ones, each run behind each wall"),
    Spec(NAME, "bubblewrap", "escapes", Bar(0), "read, wrote, reached or left behind what it should not"),
    Spec(NAME, "landlock", "escapes", Bar(0), "the same behind Landlock alone, but for those of the listed gaps"),
    Spec(NAME, "landlock-gaps", "gaps", None, f"that were found open behind it, of {len(GAPS)} that are listed"),
)  # fmt: skip


@dataclass
class Host:
    """What there is to attack."""

    root: Path
    victim: anyio.abc.Process
    listeners: dict[str, socket.socket]
    key: int
    """Of a piece of memory and of a queue that programs of this user share."""

    @property
    def harm(self) -> str:
        """What has changed outside of the workspace, or who was reached; empty if nothing."""
        canary = self.root / "canary"
        if canary.read_text() != SECRET or canary.stat().st_mode & 0o777 != 0o600:
            return "the canary is another"
        names = sorted(path.name for path in self.root.iterdir())
        if names != ["around", "canary", "sock", "user", "work"]:
            return f"there are {', '.join(names)}"
        if files_in(self.root / "around") != {f"in/home/{name}": SECRET for name in STATE}:
            return "the kernel's state is another"
        if any(files_in(self.root / "user").get(name) != SECRET for name in KEYS):
            return "the user's keys are not where they were"
        if self.victim.returncode is not None:
            return "the victim has ended"
        reached = [name for name, listener in self.listeners.items() if _is_reached(name, listener)]
        return f"{', '.join(reached)} was reached" if reached else ""


def files_in(folder: Path) -> dict[str, str]:
    """What the files below a folder hold, by their paths in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def _is_reached(name: str, listener: socket.socket) -> bool:
    with suppress(BlockingIOError):
        _ = listener.recv(1) if name.startswith("udp") else listener.accept()
        return True
    return False


async def measure(settings: Settings, report: Report) -> None:
    """Run all of them behind each wall that works here."""
    report.add("programs", len(PAYLOADS))
    for wall in WALLS:
        if probe(wall).wall.value != wall:
            report.miss(wall, f"this machine has no {wall}")
            continue
        found = {}
        for payload in PAYLOADS:
            why = await escape_of(wall, payload)
            if why:
                found[payload] = why
        is_listed = wall == "landlock"
        escaped = [each for each in found if not (is_listed and each.gap)]
        for each in escaped:
            settings.say(f"{wall}: {each.name}: {found[each]}")
        report.add(wall, len(escaped), note=f"{len(PAYLOADS)} programs")
        if is_listed:
            gaps = {each.gap for each in found if each.gap}
            settings.say(f"{wall}: open as listed: {'; '.join(sorted(gaps))}")
            report.add("landlock-gaps", len(gaps))


async def escape_of(wall: str, payload: Payload) -> str:
    """Run one behind a wall, on a host of its own. Returns: how it got out; empty if it did not."""
    sweep_folders(PLACE)
    with scratch_folder("bench", PLACE) as root:
        _prepare(root)
        with _environment(ENV_CANARY=SECRET, HOME=str(root / "user")):
            async with _host(root) as host:
                with anyio.fail_after(LONGEST_S):
                    launcher = Launcher(SandboxConfig(mode=wall), root / HOME)
                    said = await _run(launcher, host, payload)
                is_out = "ESCAPED" in said or SECRET in said
                return said.strip()[:QUOTED_CHARS] if is_out else host.harm


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """The kernel's own environment, of which no program may see anything."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@asynccontextmanager
async def _host(root: Path) -> AsyncIterator[Host]:
    with _listeners(root) as listeners, _inheritable(root / "canary"), _shared() as key:
        async with await anyio.open_process(["sleep", "60"], cwd=root) as victim:
            try:
                yield Host(root, victim, listeners, key)
            finally:
                if victim.returncode is None:
                    victim.kill()


@contextmanager
def _inheritable(file: Path) -> Iterator[None]:
    """A descriptor that every program would inherit, as a kernel may have one from what started it."""
    number = os.open(file, os.O_RDONLY)
    os.set_inheritable(number, True)
    try:
        yield
    finally:
        os.close(number)


@contextmanager
def _shared() -> Iterator[int]:
    """Memory and a queue of System V with the canary in them."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    key = randrange(1, 1 << 30)  # noqa: S311 - a number of its own, not a secret
    memory = libc.shmget(key, 4096, IPC_CREAT | 0o600)
    queue = libc.msgget(key, IPC_CREAT | 0o600)
    try:
        assert min(memory, queue) >= 0, "there is no IPC of System V here"
        place = ctypes.c_void_p(libc.shmat(memory, None, 0))
        ctypes.memmove(place, SECRET.encode(), len(SECRET))
        libc.shmdt(place)
        letter = struct.pack("@l", 1) + SECRET.encode()
        assert libc.msgsnd(queue, letter, len(SECRET), 0) == 0
        yield key
    finally:
        libc.shmctl(memory, IPC_RMID, None)
        libc.msgctl(queue, IPC_RMID, None)


@contextmanager
def _listeners(root: Path) -> Iterator[dict[str, socket.socket]]:
    made = {
        "tcp4": socket.create_server(("127.0.0.1", 0)),
        "udp4": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "path": socket.socket(socket.AF_UNIX),
        "abstract": socket.socket(socket.AF_UNIX),
    }
    folder = os.open(root, os.O_PATH)
    try:
        made["udp4"].bind(("127.0.0.1", 0))
        made["path"].bind(f"/proc/self/fd/{folder}/sock")  # a path that is not too long
        made["path"].listen()
        made["abstract"].bind(f"\0{_abstract_of(root)}")
        made["abstract"].listen()
        for each in made.values():
            each.setblocking(False)
        yield made
    finally:
        os.close(folder)
        for each in made.values():
            each.close()


def _abstract_of(root: Path) -> str:
    return f"aios-{os.getpid()}-{root.name}"


def _prepare(root: Path) -> None:
    (root / "canary").write_text(SECRET)
    (root / "canary").chmod(0o600)
    (root / "work").mkdir()
    names = [*(f"{HOME}/{name}" for name in STATE), *(f"user/{name}" for name in KEYS)]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(SECRET)


def _profile_of(host: Host, payload: Payload) -> Profile:
    package = Path(aios.__file__).parents[1]
    prefixes = {Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)}
    env = {
        "PATH": os.environ["PATH"],
        "OUT": str(host.root),
        "CANARY": str(host.root / "canary"),
        "KERNEL_HOME": str(host.root / HOME),
        "USER_HOME": str(host.root / "user"),
        "VICTIM": str(host.victim.pid),
        "PORT": str(host.listeners["tcp4"].getsockname()[1]),
        "UDP": str(host.listeners["udp4"].getsockname()[1]),
        "ABSTRACT": _abstract_of(host.root),
        "KEY": str(host.key),
    }
    given = [host.root / name for name in payload.read]
    seen = (package, *prefixes, *given)
    return Profile(seen, (host.root / payload.work,), env=env, bounds=BOUNDS)


def _command(payload: Payload) -> list[str]:
    return [os.path.realpath(sys.executable), "-I", "-S", "-c", PRELUDE + payload.code]


async def _run(launcher: Launcher, host: Host, payload: Payload) -> str:
    """All that a program said; nothing, if it was not even started there.

    Raises:
        AssertionError: Something of it was left behind.
    """
    command, profile = _command(payload), _profile_of(host, payload)
    try:
        confined = await launcher.open(command, profile, cwd=host.root / payload.work)
    except ProgramFailed as error:
        if any(why in error.message for why in REFUSALS):
            return ""
        raise
    said = bytearray()
    async with anyio.create_task_group() as tasks:
        for stream in (confined.process.stdout, confined.process.stderr):
            assert stream is not None
            tasks.start_soon(_gather, stream, said)
        await confined.process.wait()
        confined.kill()
    await confined.wait_gone()
    await confined.process.aclose()
    assert not confined.inside(), f"{payload.name}: something was left behind"
    return said.decode(errors="replace")


async def _gather(stream: anyio.abc.ByteReceiveStream, said: bytearray) -> None:
    async for piece in stream:
        said += piece[:KEPT_BYTES]


BENCH = Bench(NAME, "hostile programs behind each wall of the sandbox", 600.0, SPECS, measure)
