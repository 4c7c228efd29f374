"""The loader: program folders become child processes of the operating system.

A program is a folder with `agent.toml` and a Python entry file. The child runs in a session of its own, with a scrubbed
environment that holds `AIOS_URL` and `AIOS_TOKEN`; what it writes to stdout and stderr goes to its log. When it ends, for
whatever reason, whatever is left of its process group is killed.
"""

import os
import signal
import stat
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import anyio
import anyio.abc
import msgspec
from msgspec import Meta, Struct

from aios.abi.budget import Limits
from aios.abi.types import Exit
from aios.errors import InvalidCall, NotFound, ProgramFailed
from aios.kernel.clock import Clock
from aios.kernel.process import Process

MANIFEST = "agent.toml"
MAX_MANIFEST_BYTES = 64 << 10
MAX_LINE_BYTES = 64 << 10
EXIT_GRACE_S = 2.0
"""How long a program may go on after its `exit` call before it is killed."""
PUMP_GRACE_S = 1.0
"""How long its output is still read after it has ended."""

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


@dataclass(frozen=True)
class Program:
    """A program that can be run."""

    folder: Path
    entry: Path
    manifest: Manifest


def load_program(path: str) -> Program:
    """Read and check a program folder.

    Raises:
        NotFound: There is no such folder, or no `agent.toml` or entry file in it.
        InvalidCall: The manifest is malformed; the message names the field.
    """
    folder = Path(path)
    file = folder / MANIFEST
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # to read a pipe or a device could take for ever
            raise InvalidCall(f"{file} is no regular file", hint="a manifest is a TOML file")
        if status.st_size > MAX_MANIFEST_BYTES:
            raise InvalidCall(
                f"{file} is over {MAX_MANIFEST_BYTES} bytes", hint="a manifest is a page at most"
            )
        manifest = msgspec.toml.decode(file.read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = "a program is a folder with an agent.toml; see docs/tutorial/first-agent.md"
        raise NotFound(f"no program at {folder}: {file} is not there", hint=hint) from error
    except OSError as error:
        raise NotFound(
            f"{file} cannot be read: {error.strerror}", hint="check its permissions"
        ) from error
    except (tomllib.TOMLDecodeError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidCall(
            f"{file} is no manifest: {error}", hint="see docs/tutorial/first-agent.md"
        ) from error
    entry = (folder / manifest.entry).resolve()
    if not entry.is_relative_to(folder.resolve()) or not entry.is_file():
        raise NotFound(
            f"the entry {manifest.entry!r} of {folder} is not a file in it",
            hint="mend `entry` in agent.toml",
        )
    return Program(folder.resolve(), entry, manifest)


def working_folder(path: str) -> Path:
    """The working directory for a child; an empty path is the kernel's own.

    Raises:
        NotFound: It is not a folder.
    """
    folder = Path(path or ".").absolute()
    if not folder.is_dir():
        raise NotFound(f"the working directory {folder} is not a folder", hint="set `cwd`")
    return folder


@dataclass(frozen=True)
class Launch:
    """All that a child process is started with."""

    program: Program
    args: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    url: str
    token: str

    def command(self) -> list[str]:
        """The command line."""
        return [sys.executable, str(self.program.entry), *self.args]

    def environment(self) -> dict[str, str]:
        """The whole environment of the child: nothing of the kernel's but a few harmless variables."""
        kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        own = {
            "AIOS_URL": self.url,
            "AIOS_TOKEN": self.token,
            "PYTHONUNBUFFERED": "1",
            "PYTHONUTF8": "1",
        }
        return {**kept, **self.env, **own}


class Child:
    """The operating-system process behind a process."""

    def __init__(self, process: Process, clock: Clock) -> None:
        self.started = anyio.Event()
        self.error: ProgramFailed | None = None
        self._process = process
        self._clock = clock
        self._os_process: anyio.abc.Process | None = None

    async def run(self, launch: Launch) -> Exit:
        """Start it, carry its output into the log, and return how it ended."""
        try:
            self._os_process = await anyio.open_process(
                launch.command(),
                cwd=launch.cwd,
                env=launch.environment(),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self.error = ProgramFailed(
                f"{launch.program.manifest.name} could not be started: {error}",
                hint="check the folder and `cwd`",
            )
            self.started.set()
            return Exit(126, str(error))
        self._process.os_pid = self._os_process.pid
        self._process.is_new = False
        self._process.on_kill = self.kill
        self._process.on_stop = self.freeze
        if self._process.exiting is not None:
            self.kill()  # killed while it was being started
        elif self._process.is_stopped:
            self.freeze(True)
        self.started.set()
        return await self._attend(self._os_process)

    def kill(self) -> None:
        """SIGKILL to its whole process group."""
        self._signal_group(signal.SIGKILL)

    def freeze(self, is_stopped: bool) -> None:
        """SIGSTOP or SIGCONT to its whole process group."""
        self._signal_group(signal.SIGSTOP if is_stopped else signal.SIGCONT)

    async def end_soon(self) -> None:
        """Kill it if it does not end by itself within `EXIT_GRACE_S`."""
        if self._os_process is not None:
            with anyio.move_on_after(EXIT_GRACE_S):
                await self._os_process.wait()
                return
            self.kill()

    async def _attend(self, os_process: anyio.abc.Process) -> Exit:
        try:
            async with os_process, anyio.create_task_group() as tasks:
                tasks.start_soon(self._pump, os_process.stdout, "out")
                tasks.start_soon(self._pump, os_process.stderr, "err")
                await os_process.wait()
                self.kill()  # what it left behind in its group
                tasks.cancel_scope.deadline = anyio.current_time() + PUMP_GRACE_S
        finally:
            self.kill()
            self._process.on_kill = self._process.on_stop = None
        assert os_process.returncode is not None
        return exit_of(os_process.returncode)

    async def _pump(self, stream: anyio.abc.ByteReceiveStream | None, name: str) -> None:
        """Carry lines into the log; a line without an end is cut at `MAX_LINE_BYTES`."""
        assert stream is not None
        pending = b""
        async for chunk in stream:
            *lines, pending = (pending + chunk).split(b"\n")
            if len(pending) > MAX_LINE_BYTES:
                lines, pending = [*lines, pending], b""
            if lines:
                self._write(b"\n".join(lines), name)
        if pending:
            self._write(pending, name)

    def _write(self, data: bytes, stream: str) -> None:
        text = data.decode("utf-8", "replace")
        self._process.log.write(text, stream=stream, unix_s=self._clock.unix_s())

    def _signal_group(self, number: signal.Signals) -> None:
        if self._os_process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._os_process.pid, number)


def exit_of(returncode: int) -> Exit:
    """An operating-system return code as an exit: 128 + n for signal n, as shells have it."""
    if returncode >= 0:
        return Exit(returncode)
    return Exit(128 - returncode, f"killed by {signal.Signals(-returncode).name}")
