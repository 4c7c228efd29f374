"""A daemon from a command: `aios serve` in the background, and word of it when it is ready or has failed."""

import os
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from aios.abi.gate import Fault, error_of, fault_of
from aios.config import Home
from aios.errors import AiosError, DeadlineExceeded, KernelUnreachable
from aios.home import not_writable
from aios.readers import from_json

READY_S = 60.0
"""Longest time for the daemon to take calls; it loads its model after that."""
LOG_FILE = "serve.log"
READY = b"ready\n"
CHILD_FD = 3
"""Where the daemon finds its end of the pipe."""


def start_daemon(home: Home, flags: Sequence[str] = ()) -> Path:
    """Start `aios serve` with these flags and return when it takes calls. Ctrl-C meanwhile ends it.

    Returns: The file that its output goes to, `run/serve.log`.

    Raises:
        AiosError: What the daemon failed with.
    """
    log = home.run / LOG_FILE
    try:
        home.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(home, error) from error
    reader, writer = os.pipe()
    try:
        try:
            pid = _spawn(["serve", *flags], log, writer)
        finally:
            os.close(writer)
        try:
            _await_word(reader, pid, log)
        except KeyboardInterrupt:  # nobody wants it any more
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            raise
    finally:
        os.close(reader)
    return log


def _spawn(words: Sequence[str], log: Path, writer: int) -> int:
    """Start the command in a session of its own; it outlives this process. Returns: its pid."""
    command = [sys.executable, "-m", "aios", *words, "--ready-fd", str(CHILD_FD)]
    log_flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, log_flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        (os.POSIX_SPAWN_DUP2, writer, CHILD_FD),
    ]
    return os.posix_spawn(sys.executable, command, os.environ, file_actions=files, setsid=True)


def _await_word(reader: int, pid: int, log: Path) -> None:
    """Read what the daemon says until it has said all."""
    said = b""
    while not said.endswith(b"\n"):
        ready, _, _ = select.select([reader], [], [], READY_S)
        if not ready:
            raise DeadlineExceeded(
                f"the daemon (pid {pid}) was not ready within {READY_S:g} s", hint=f"see {log}"
            )
        chunk = os.read(reader, 65536)
        if not chunk:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            raise KernelUnreachable(
                f"the daemon ended with status {status} before it was ready", hint=f"see {log}"
            )
        said += chunk
    if said != READY:
        os.waitpid(pid, 0)
        raise error_of(from_json(said, Fault))


def tell_ready(writer: int | None) -> None:
    """In the daemon: tell the command that started it that calls are taken."""
    _tell(writer, READY)


def tell_failed(writer: int | None, error: AiosError) -> None:
    """In the daemon: tell the command that started it why it cannot serve."""
    _tell(writer, msgspec.json.encode(fault_of(error)) + b"\n")


def _tell(writer: int | None, word: bytes) -> None:
    if writer is None:
        return
    try:
        os.write(writer, word)
        os.close(writer)
    except OSError:
        return  # the command has gone, or this is no descriptor: nobody listens
