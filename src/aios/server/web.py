"""The HTTP server: a listening socket on loopback, and uvicorn inside our own task group."""

import errno
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import anyio
import uvicorn

from aios.config import ServerConfig
from aios.errors import ConfigError, Conflict
from aios.kernel.kernel import Kernel
from aios.server.app import make_app
from aios.server.protocol import guarded

BACKLOG = 1_024
CLOSE_GRACE_S = 1
"""How long replies under way may take when the server closes; calls have been drained by then."""
KEEP_ALIVE_S = 75


class WebServer(uvicorn.Server):
    """uvicorn without signal handlers: the daemon has them."""

    def __init__(self, kernel: Kernel, config: ServerConfig, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                make_app(kernel, config),
                http=guarded(config),
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level=logging.ERROR,
                server_header=False,
                date_header=False,  # it would take ten wake-ups a second to keep the time
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=CLOSE_GRACE_S,
            )
        )
        self.listener = listener
        self._closing = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._closing.wait()

    async def run_until_closed(self) -> None:
        """Serve until `close`, cancelled or not: only so do connections end in good order."""
        with anyio.CancelScope(shield=True):
            await self.serve(sockets=[self.listener])

    def close(self) -> None:
        """Take no more connections; `run_until_closed` returns when those that are open have ended."""
        self._closing.set()


def listen(config: ServerConfig) -> socket.socket:
    """A listening socket as the configuration asks for.

    Raises:
        ConfigError: The host is not loopback and `allow_remote` is not set, or it is no address of this machine.
        Conflict: The port is taken.
    """
    host = "127.0.0.1" if config.host == "localhost" else config.host
    if not config.allow_remote and not _is_loopback(host):
        raise ConfigError(
            f"{config.host} is not a loopback address",
            hint="set server.allow_remote to listen on it; there is no TLS, so put a proxy in front",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, config.port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"port {config.port} of {host} is taken by another program",
                hint="choose another with `aios serve --port` or AIOS_SERVER_PORT; 0 takes any free one",
            ) from error
        raise ConfigError(
            f"cannot listen on {host} port {config.port}: {error.strerror or error}",
            hint="check server.host and server.port",
        ) from error
    # Connections inherit it. Without it a reply's body waits 40 ms for the client to confirm the head (Nagle's algorithm).
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(listener: socket.socket) -> str:
    """The address at which clients on this machine reach a listening socket."""
    host, port = listener.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
