"""The loader: program folders become child processes of the operating system.

A program is a folder with `agent.toml` and a Python entry file. The child runs in a sandbox (`sandbox/`): it sees its own
folder, its workspace, Python and the kernel's socket, with a scrubbed environment that holds `AIOS_URL` and `AIOS_TOKEN`.
What it writes to stdout and stderr goes to its log. When it ends, for whatever reason, whatever it left behind is killed.
"""

import os
import re
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel
from msgspec import Meta, Struct
from msgspec.structs import replace

from aios.abi.budget import Limits
from aios.abi.calls import Spawn
from aios.abi.recovery import Restart
from aios.abi.timers import TimerAdd
from aios.abi.types import BlockBytes, Exit
from aios.errors import AiosError, InvalidCall, NotFound
from aios.kernel.clock import Clock
from aios.kernel.egress.egress import Egress, Way
from aios.kernel.logs import LogBuffer
from aios.kernel.process import Process
from aios.kernel.sandbox.launch import Confined, Launcher
from aios.kernel.sandbox.places import interpreter, is_python, python_places, real_places
from aios.kernel.sandbox.probe import Wall
from aios.kernel.sandbox.profile import Profile
from aios.kernel.sandbox.view import Asked, View, view_of
from aios.malformed import named
from aios.manifestfile import read_manifest
from aios.readers import convert
from aios.sizes import sized

C = TypeVar("C")

MANIFEST = "agent.toml"
MAX_MANIFEST_BYTES = 64 << 10
MAX_LINE_BYTES = 64 << 10
LINES_AT_ONCE = 128
"""Lines that are put into a log in one go, 1 to 2 ms."""
EXIT_GRACE_S = 2.0
"""How long a program may go on after its `exit` call before it is killed."""
PUMP_GRACE_S = 1.0
"""How long its output is still read after it has ended."""
KEPT = Path("/.kept")
"""Where inside its sandbox a program lies whose code is a copy, by the path of its folder: in that folder's own place it could be moved away, mount and all."""

_KEPT_WORD = re.compile(rf"\A([\w-]+=)?{re.escape(str(KEPT))}/")

UNIX = "unix://"
KEPT_ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "VIRTUAL_ENV",
    "PYTHONPATH",
)


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """`agent.toml`."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(?!\n)$", max_length=64)]
    entry: Annotated[str, Meta(min_length=1, max_length=255)] = "main.py"
    version: Annotated[str, Meta(max_length=64)] = ""
    description: Annotated[str, Meta(max_length=4096)] = ""
    usage: Annotated[str, Meta(max_length=4096)] = ""
    nice: Annotated[int, Meta(ge=-20, le=19)] = 0
    budget: Limits = Limits()
    restart: Restart = Restart()
    fetch_hosts: (
        Annotated[tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=256)] | None
    ) = None
    """Of the hosts that `tools.fetch_hosts` allows, those that it and its children may fetch from; None is all."""
    network: (
        Annotated[tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=256)] | None
    ) = None
    """Of the hosts that `egress.hosts` allows, those that its code may reach through the proxy; None is no network."""
    rights: Annotated[tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=64)] = ()
    """Rights that it asks the owner for, `ACTION` or `ACTION TYPE::ID`; `aios grant` gives them."""
    block_bytes: BlockBytes | None = None


class Program(Struct, frozen=True):
    """A program that can be run."""

    folder: Path
    entry: Path
    manifest: Manifest


def load_program(path: str, copy: Path | None = None) -> Program:
    """Read and check a program folder; with a `copy` of it, what is in that.

    Raises:
        NotFound: There is no such folder, or no `agent.toml` or entry file in it.
        InvalidCall: The manifest is malformed; the message names the field.
    """
    folder = copy or Path(path)
    file = folder / MANIFEST
    try:
        table = read_manifest(file, MAX_MANIFEST_BYTES)
        manifest = convert(sized(table, "budget"), Manifest)
        entry = _entry(folder, manifest.entry)
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = "a program is a folder with an agent.toml; see docs/tutorial/first-agent.md"
        raise NotFound(f"no program at {folder}: {file} is not there", hint=hint) from error
    except OSError as error:
        raise NotFound(
            f"{error.filename} cannot be read: {error.strerror}", hint="check its permissions"
        ) from error
    except (ValueError, RecursionError) as error:  # those of tomllib and msgspec are, too
        raise InvalidCall(
            f"{file} is no manifest: {named(error)}", hint="see docs/tutorial/first-agent.md"
        ) from error
    if entry is None:
        raise NotFound(
            f"the entry {manifest.entry!r} of {folder} is not a file in it",
            hint="mend `entry` in agent.toml",
        )
    place = folder.resolve() if copy is None else Path(path)
    return Program(place, place / entry, manifest)


def _entry(folder: Path, entry: str) -> Path | None:
    """Where the entry file lies in its folder; None if it is none. Symlinks may lead in circles."""
    with suppress(RuntimeError, ValueError):
        found, place = (folder / entry).resolve(), folder.resolve()
        if found.is_relative_to(place) and found.is_file():
            return found.relative_to(place)
    return None


def view_for(call: Spawn, program: Program, parent: View | None) -> View:
    """What the program of a `spawn` call is to see of the host.

    Raises:
        NotFound: A path is not there, or the working directory is no folder.
        AccessDenied: The parent does not see that much itself.
    """
    cwd = (parent.cwd if parent is not None else _own_folder(call.cwd)) / call.cwd
    with suppress(RuntimeError, ValueError):  # in a circle, or no path: no folder either
        cwd = cwd.resolve()
    if not cwd.is_dir():
        raise NotFound(f"the working directory {cwd} is not a folder", hint="set `cwd`")
    asked = None
    if call.read is not None or call.write is not None:
        asked = Asked(
            tuple(resolved(path, cwd) for path in call.read or ()),
            tuple(resolved(path, cwd) for path in call.write or ()),
        )
    return view_of(parent, asked, program=program.folder, cwd=cwd)


def _own_folder(cwd: str) -> Path:
    """Where a working directory of the owner's begins that is not said from the root."""
    if Path(cwd).is_absolute():
        return Path("/")
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise NotFound(
            "the folder in which the kernel was started is gone", hint="set `cwd`"
        ) from error


def resolved(path: str, cwd: Path) -> Path:
    """A path of a call, absolute and without symlinks.

    Raises:
        NotFound: There is nothing.
    """
    try:
        return (cwd / path).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise NotFound(f"{path} is not there", hint="name a file or folder that exists") from error


def by_folder(call: C) -> C:
    """A call by the paths that the kernel has: a start of a program, now or by a timer, is the same whether its caller runs from a copy in `KEPT` or not.

    So the kernel and the new program, which has no such place, find what it names, and a replay knows the call again when a grant came or went
    since. Of arguments and the environment that holds for what is a path, or `NAME=` and a path.
    """
    if isinstance(call, TimerAdd):
        return replace(call, spawn=by_folder(call.spawn))
    if not isinstance(call, Spawn):
        return call

    def unkept(path: str) -> str:
        is_kept = Path(path).is_relative_to(KEPT)
        return str("/" / Path(path).relative_to(KEPT)) if is_kept else path

    def unkept_each(paths: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if paths is None else tuple(map(unkept, paths))

    program, cwd = unkept(call.program), unkept(call.cwd)
    read, write = unkept_each(call.read), unkept_each(call.write)
    args = tuple(_KEPT_WORD.sub(r"\1/", arg) for arg in call.args)
    env = {name: _KEPT_WORD.sub(r"\1/", value) for name, value in call.env.items()}
    return replace(call, program=program, cwd=cwd, read=read, write=write, args=args, env=env)


class Launch(Struct, frozen=True):
    """All that a child process is started with."""

    program: Program
    args: tuple[str, ...]
    view: View
    env: Mapping[str, str]
    url: str
    token: str
    way: Way | None = None
    code: Path | None = None
    """A copy of the program's folder, from which it is to run."""

    @property
    def place(self) -> Path:
        """Where it sees its code."""
        folder = self.program.folder
        return folder if self.code is None else KEPT / folder.relative_to("/")

    def command(self) -> list[str]:
        """The command line."""
        entry = self.place / self.program.entry.relative_to(self.program.folder)
        command = [interpreter(), str(entry), *self.args]
        return command if self.way is None else self.way.command(command)

    def environment(self) -> dict[str, str]:
        """The whole environment of the child: nothing of the kernel's but a few harmless variables."""
        kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        if "PYTHONPATH" in kept:
            # an empty entry would be the workspace, and one that is not there others may make
            entries = filter(None, kept["PYTHONPATH"].split(os.pathsep))
            paths = (Path(each).resolve() for each in entries)
            kept["PYTHONPATH"] = os.pathsep.join(str(path) for path in paths if is_python(path))
        own = {
            "AIOS_URL": self.url,
            "AIOS_TOKEN": self.token,
            "PYTHONDONTWRITEBYTECODE": "1",  # what is granted to a folder ends when anything comes into it
            "PYTHONUNBUFFERED": "1",
            "PYTHONUTF8": "1",
        }
        network = self.way.env() if self.way is not None else {}
        return {**kept, **network, **self.env, **own}

    def profile(self) -> Profile:
        """What it sees and takes: its view, Python, and the kernel's socket."""
        sockets = [self.way.socket] if self.way is not None else []
        if self.url.startswith(UNIX):
            sockets.append(Path(self.url.removeprefix(UNIX)))
        kernel, python = real_places(sockets), python_places()
        readable = (*self.view.readable, *kernel.readable, *python.readable)
        there = tuple(path for path in readable if path.exists())
        links = {**kernel.links, **python.links}
        copies = {} if self.code is None else {self.place: self.code}
        return Profile(there, self.view.writable, links, copies=copies, env=self.environment())


class Child:
    """The operating-system process behind a process."""

    def __init__(
        self, process: Process, clock: Clock, launcher: Launcher, egress: Egress | None = None
    ) -> None:
        self.started = anyio.Event()
        self.error: AiosError | None = None
        self._process = process
        self._clock = clock
        self._launcher = launcher
        self._egress = egress
        self._confined: Confined | None = None

    async def run(self, launch: Launch) -> Exit:
        """Start it, carry its output into the log, and return how it ended."""
        if self._egress is None:
            return await self._run(launch)
        async with self._egress.open_way(self._process) as way:
            return await self._run(replace(launch, way=way))

    async def _run(self, launch: Launch) -> Exit:
        walls = await self._launcher.find_walls()
        if walls.wall is not Wall.BUBBLEWRAP:
            launch = replace(launch, code=None)  # there is no other place for it
        try:
            confined = self._confined = await self._launcher.open(
                launch.command(), launch.profile(), cwd=launch.view.cwd
            )
        except AiosError as error:
            self.error = error
            self.started.set()
            return Exit(126, error.message)
        self._process.os_pid = confined.pid
        self._process.is_new = False
        self._process.on_kill = confined.kill
        self._process.on_stop = confined.freeze
        self._process.stills.append(confined.is_still)
        self._process.on_terminate = confined.terminate
        if self._process.exiting is not None:
            confined.kill()  # killed while it was being started
        elif self._process.is_stopped:
            confined.freeze(True)
        self.started.set()
        return await self._attend(confined)

    async def end_soon(self) -> None:
        """Kill it if it does not end by itself within `EXIT_GRACE_S`."""
        if self._confined is not None:
            with anyio.move_on_after(EXIT_GRACE_S):
                await self._confined.process.wait()
                return
            self._confined.kill()

    async def _attend(self, confined: Confined) -> Exit:
        process = confined.process
        try:
            async with process, anyio.create_task_group() as tasks:
                tasks.start_soon(self._pump, process.stdout, "out")
                tasks.start_soon(self._pump, process.stderr, "err")
                await confined.wait_gone()
                tasks.cancel_scope.deadline = anyio.current_time() + PUMP_GRACE_S
        finally:
            confined.kill()
            self._process.on_kill = self._process.on_stop = self._process.on_terminate = None
            self._process.stills.remove(confined.is_still)
            with anyio.CancelScope(shield=True):  # else a kernel that ends leaves its control group
                await confined.wait_gone()
        assert process.returncode is not None
        return exit_of(process.returncode)

    async def _pump(self, stream: anyio.abc.ByteReceiveStream | None, name: str) -> None:
        """Carry lines into the log; a line without an end is cut at `MAX_LINE_BYTES`."""
        assert stream is not None
        pending = b""
        async for chunk in stream:
            *lines, pending = (pending + chunk).split(b"\n")
            if len(pending) > MAX_LINE_BYTES:
                lines, pending = [*lines, pending], b""
            if lines:
                await self._write(b"\n".join(lines), name)
        if pending:
            await self._write(pending, name)

    async def _write(self, data: bytes, stream: str) -> None:
        await keep_lines(self._process.log, data, stream=stream, unix_s=self._clock.unix_s())


async def keep_lines(log: LogBuffer, data: bytes, *, stream: str, unix_s: float) -> None:
    """Put whole lines, the last without its end, into a log; others have their turn in between: 64 KiB of empty lines take a second."""
    lines = data.decode("utf-8", "replace").splitlines() or [""]
    if data.endswith(b"\n"):
        lines.append("")  # an empty last one
    for start in range(0, len(lines), LINES_AT_ONCE):
        text = "\n".join([*lines[start : start + LINES_AT_ONCE], ""])
        log.write(text, stream=stream, unix_s=unix_s)
        await anyio.lowlevel.checkpoint()


def exit_of(returncode: int) -> Exit:
    """An operating-system return code as an exit: 128 + n for signal n, as shells have it."""
    if returncode >= 0:
        return Exit(returncode)
    number = -returncode
    is_named = number in set(signal.Signals)  # those for real time, but two, have no name
    name = signal.Signals(number).name if is_named else f"signal {number}"
    return Exit(128 + number, f"killed by {name}")
