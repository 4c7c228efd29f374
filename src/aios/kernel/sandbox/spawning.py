"""Starting a program of the operating system with pipes, such that the event loop hardly waits for it.

`anyio.open_process` leaves the start to the loop. uvloop, on which `aios serve` runs, forks for it: the tables of all of the kernel's
memory are copied, and the loop stands still for 15 to 30 ms. `subprocess` starts the same program in 2 (`vfork`), and closes in it what
it was not given.
"""

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import IO

import anyio
import anyio.abc
import anyio.lowlevel

from aios.errors import ProgramFailed

PAUSE_S = 0.05


class ChildProcess(anyio.abc.Process):
    """A program that was started, with its pipes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._stdin = PipeWriter(process.stdin) if process.stdin is not None else None
        self._stdout = PipeReader(process.stdout) if process.stdout is not None else None
        self._stderr = PipeReader(process.stderr) if process.stderr is not None else None

    @property
    def pid(self) -> int:
        """Its number, which is its own until `returncode` is no longer None."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its status, or minus the signal that ended it; None while it runs."""
        return self._process.poll()

    @property
    def stdin(self) -> "PipeWriter | None":
        """What it reads, if that is a pipe."""
        return self._stdin

    @property
    def stdout(self) -> "PipeReader | None":
        """What it writes, if that is a pipe."""
        return self._stdout

    @property
    def stderr(self) -> "PipeReader | None":
        """What it complains of, if that is a pipe."""
        return self._stderr

    async def wait(self) -> int:
        """Wait until it has ended, and return its `returncode`."""
        await anyio.lowlevel.checkpoint()
        while (code := self.returncode) is None:
            try:
                ended = os.pidfd_open(self.pid)
            except OSError:  # no descriptor is left: some will be given back
                await anyio.sleep(PAUSE_S)
                continue
            try:
                await anyio.wait_readable(ended)
            finally:
                os.close(ended)
        return code

    def send_signal(self, signal: int) -> None:
        """Send it a signal; none if it has ended."""
        self._process.send_signal(signal)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    async def aclose(self) -> None:
        """Close its pipes and wait for its end; whoever is cancelled here ends it."""
        with anyio.CancelScope(shield=True) as scope:
            for pipe in (self._stdin, self._stdout, self._stderr):
                if pipe is not None:
                    await pipe.aclose()
            scope.shield = False
            try:
                await self.wait()
            finally:
                scope.shield = True
                self.kill()  # nothing, if it has ended
                await self.wait()


class _Pipe:
    """Our end of a pipe, which never makes the loop wait."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        os.set_blocking(file.fileno(), False)

    async def aclose(self) -> None:
        """Close it; who waits for it hears of that."""
        if not self._file.closed:
            anyio.notify_closing(self._file)
            self._file.close()
        await anyio.lowlevel.checkpoint()

    def _fileno(self) -> int:
        if self._file.closed:
            raise anyio.ClosedResourceError
        return self._file.fileno()


class PipeReader(_Pipe, anyio.abc.ByteReceiveStream):
    """What a program writes. It is read when somebody asks: a program that writes more than is read waits."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes.

        Raises:
            anyio.EndOfStream: Nobody can write any more.
            anyio.ClosedResourceError: It was closed here.
        """
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                data = os.read(self._fileno(), max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._fileno())
            else:
                if not data:
                    raise anyio.EndOfStream
                return data


class PipeWriter(_Pipe, anyio.abc.ByteSendStream):
    """What a program reads."""

    async def send(self, item: bytes) -> None:
        """Write all of it.

        Raises:
            anyio.BrokenResourceError: Nobody reads any more.
            anyio.ClosedResourceError: It was closed here.
        """
        await anyio.lowlevel.checkpoint()
        rest = memoryview(item)
        while rest:
            try:
                rest = rest[os.write(self._fileno(), rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._fileno())
            except BrokenPipeError as error:
                raise anyio.BrokenResourceError from error


def check_words(words: Iterable[str]) -> None:
    """Refuse words that the operating system cannot be told: behind a NUL, `bwrap` would read options of its own.

    Raises:
        ProgramFailed: One has a NUL, or half of a character.
    """
    for word in words:
        try:
            is_whole = b"\0" not in os.fsencode(word)
        except UnicodeEncodeError:
            is_whole = False
        if not is_whole:
            raise ProgramFailed(
                f"a program can be given no NUL and no half of a character: {word[:40]!r}",
                hint="leave it out of its arguments and its environment",
            )


def start_program(
    command: Sequence[str],
    *,
    stdin: int,
    env: Mapping[str, str],
    pass_fds: Sequence[int] = (),
    stderr: int = subprocess.PIPE,
) -> ChildProcess:
    """Start a program in a session of its own; its output is piped, and it inherits no descriptor but those of `pass_fds`.

    Cost: about 2 ms, in which the loop waits.

    Raises:
        OSError: It cannot be.
    """
    return ChildProcess(
        subprocess.Popen(  # noqa: S603 - a list, and no shell
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            env=env,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    )
