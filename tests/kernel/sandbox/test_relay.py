"""The relay that is a sandbox's way to the egress proxy, without a sandbox."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from aios.kernel.sandbox import relay

WAIT_S = 30.0
MANY = 60
"""More connections than either limit below leaves room for."""


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))


def few_threads() -> None:
    size_bytes = 400 << 20  # each thread has 8 MB for its stack
    resource.setrlimit(resource.RLIMIT_AS, (size_bytes, size_bytes))


@contextmanager
def echo(path: Path) -> Iterator[None]:
    """Stands for the proxy: says again what it is told."""

    def attend(stream: socket.socket) -> None:
        with stream, suppress(OSError):
            while piece := stream.recv(100):
                stream.sendall(piece)

    def serve() -> None:
        with suppress(OSError):
            while True:
                stream, _ = listener.accept()
                threading.Thread(target=attend, args=(stream,), daemon=True).start()  # noqa: TID251 - the other side

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(MANY)
        threading.Thread(target=serve, daemon=True).start()  # noqa: TID251 - the other side
        yield
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def started(
    command: tuple[str, ...], limit: Callable[[], None]
) -> Iterator[subprocess.Popen[bytes]]:
    """A program and all that it starts, for the length of the block."""
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 - our own program
        command, stdin=pipe, stdout=pipe, preexec_fn=limit, start_new_session=True
    ) as program:
        try:
            yield program
        finally:
            os.killpg(program.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def says_again(port: int) -> bool:
    """Whether the relay carries a new connection both ways."""
    with suppress(ConnectionResetError, BrokenPipeError):
        with socket.create_connection(("127.0.0.1", port), WAIT_S) as stream:
            stream.sendall(b"hello")
            return stream.recv(100) == b"hello"
    return False


@pytest.mark.parametrize("limit", [few_descriptors, few_threads])
def test_more_connections_than_there_is_room_for_do_not_end_the_way(
    tmp_path: Path, limit: Callable[[], None]
) -> None:
    path, port = tmp_path / "s", free_port()
    words = ("-I", "-S", relay.__file__, str(path), str(port), "/bin/cat")
    with echo(path), started((sys.executable, *words), limit) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(b"is here\n")
        program.stdin.flush()
        assert program.stdout.readline() == b"is here\n"
        assert says_again(port)
        with ExitStack() as held:
            for _ in range(MANY):
                stream = held.enter_context(socket.create_connection(("127.0.0.1", port), WAIT_S))
                stream.sendall(b"x")
        until_s = time.monotonic() + WAIT_S
        while not says_again(port):  # it lets go of those that ended meanwhile
            assert time.monotonic() < until_s
