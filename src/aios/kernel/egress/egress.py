"""The egress proxy: a Unix socket for each program that may use the network, and what it is told by.

The sandbox of a program has no network; this socket is bound into it, and a relay inside (`sandbox/relay.py`) makes it the proxy on `127.0.0.1:3128`
that HTTP clients find in their environment. Which program asks is known by the socket, so nothing has to be proven.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import anyio
import anyio.abc
import anyio.to_thread
from msgspec import Struct

from aios.config import Config, EgressConfig, Home
from aios.errors import AccessDenied, AiosError, InvalidCall, edge
from aios.kernel.egress.connection import BROKEN, Connection, Rules
from aios.kernel.egress.secrets import SecretStore, placeholder
from aios.kernel.egress.targets import PORTS, Target, is_listed
from aios.kernel.journal.journal import Journal
from aios.kernel.process import Process
from aios.kernel.sandbox import relay
from aios.kernel.sandbox.launch import Launcher
from aios.kernel.sandbox.places import Places, interpreter, python_places
from aios.kernel.sandbox.probe import Wall
from aios.kernel.sandbox.scratch import hidden_base, scratch_folder
from aios.kernel.taint import mark

PORT = 3128
"""On the loopback of each sandbox, which nobody else shares."""
PAUSE_S = 0.1
NO_WAY = "network: none, though it is asked for: behind Landlock there is no way to it; install bubblewrap"
STATUS: Mapping[type[AiosError], str] = MappingProxyType(
    {AccessDenied: "403 Forbidden", InvalidCall: "400 Bad Request"}
)


class Way(Struct, frozen=True):
    """How a program reaches the proxy from its sandbox."""

    socket: Path
    names: tuple[str, ...]

    def command(self, command: Sequence[str]) -> list[str]:
        """The words that start the relay, which then becomes the program; the first word must be a path."""
        return [
            *(interpreter(), "-I", "-S", relay.__file__, str(self.socket), str(PORT)),
            *command,
        ]

    def env(self) -> dict[str, str]:
        """The proxy as HTTP clients look for it, and placeholders of secrets."""
        proxy = f"http://127.0.0.1:{PORT}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        return dict.fromkeys(names, proxy) | {name: placeholder(name) for name in self.names}

    def places(self) -> Places:
        """What the relay needs, and the socket."""
        python = python_places()
        return Places((*python.readable, self.socket), python.links)


@dataclass
class _Post:
    """The proxy of one program, while it runs."""

    rules: Rules
    is_closing: bool = False
    over: anyio.Event = field(default_factory=anyio.Event)
    n_open: int = 0
    accepting: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    scopes: set[anyio.CancelScope] = field(default_factory=set)
    """Of its connections."""


class Egress:
    """The proxies of all programs.

    Args:
        config: Which hosts, and how much.
        secrets: What is put into requests.
        journal: Those who watch are told of each connection.
        tasks: The kernel's own.
        launcher: Only behind whole walls there is a way that cannot be gone round.
    """

    def __init__(
        self,
        config: EgressConfig,
        secrets: SecretStore,
        journal: Journal,
        *,
        tasks: anyio.abc.TaskGroup,
        launcher: Launcher,
    ) -> None:
        self._config = config
        self._secrets = secrets
        self._journal = journal
        self._tasks = tasks
        self._launcher = launcher
        self.n_connections = self.n_denied = 0

    @asynccontextmanager
    async def open_way(
        self, process: Process, hosts: Sequence[str] | None = None
    ) -> AsyncIterator[Way | None]:
        """A way for a program of this process, for the length of the block; None if it may not use the network, or there are no walls for it.

        With `hosts`, those of them that the owner allows, whatever the process itself may reach: for a tool that the owner installed.
        """
        walls = await self._launcher.find_walls()
        network = process.network if hosts is None else (hosts,)
        if network is None or walls.wall is not Wall.BUBBLEWRAP:
            if network is not None and walls.wall is Wall.LANDLOCK:
                process.log.write(NO_WAY, stream="kernel", unix_s=self._journal.unix_s())
            yield None
            return
        lists = (self._config.hosts, *network)
        post = _Post(Rules(process, lists, self._config, self._secrets))
        with scratch_folder("egress", hidden_base()) as folder:
            socket = folder / "proxy"
            listener = await anyio.create_unix_listener(socket, mode=0o600)
            self._tasks.start_soon(self._serve, listener, post)
            try:
                yield Way(socket, await self._names(lists))
            finally:
                with anyio.CancelScope(shield=True):
                    await self._close(post, socket)

    async def _close(self, post: _Post, socket: Path) -> None:
        """End the post and its connections: one more wakes it, for which there may be a descriptor only once some of those have ended."""
        post.is_closing = True
        while not post.over.is_set():
            try:
                async with await anyio.connect_unix(socket):
                    await post.over.wait()
            except FileNotFoundError:  # somebody removed it: nobody connects any more
                post.accepting.cancel()
                await post.over.wait()
            except BROKEN:
                for scope in post.scopes:
                    scope.cancel()
                await anyio.sleep(PAUSE_S)

    async def _names(self, lists: Sequence[Sequence[str]]) -> tuple[str, ...]:
        """The secrets for hosts that these lists have."""
        stored = await anyio.to_thread.run_sync(self._secrets.load)
        return tuple(
            name
            for name, secret in stored.items()
            if any(_is_for(pattern, lists) for pattern in secret.hosts)
        )

    async def _serve(self, listener: anyio.abc.SocketListener, post: _Post) -> None:
        """Attend to connections until the post closes. To cancel an `accept` to which somebody connects would break the event loop."""
        try:
            async with listener, anyio.create_task_group() as tasks:
                with post.accepting:
                    while True:
                        try:
                            stream = await listener.accept()
                        except anyio.BrokenResourceError:  # a descriptor will be given back
                            await anyio.sleep(PAUSE_S)
                            continue
                        if post.is_closing:
                            await stream.aclose()
                            break
                        tasks.start_soon(self._attend, post, stream)
                tasks.cancel_scope.cancel()
        finally:
            post.over.set()

    async def _attend(self, post: _Post, stream: anyio.abc.ByteStream) -> None:
        connection = Connection(stream, post.rules)
        post.n_open += 1
        self.n_connections += 1
        process = post.rules.process
        mark(process, "network", seq=process.n_journalled)
        why: AiosError | None = None
        scope = anyio.CancelScope()
        post.scopes.add(scope)
        try:
            with scope:
                async with stream:
                    why = await self._carried(post, connection, stream)
        except BROKEN:
            pass  # the program has gone
        finally:
            post.n_open -= 1
            post.scopes.discard(scope)
            self._tell(post.rules.process, connection, why)

    async def _carried(
        self, post: _Post, connection: Connection, stream: anyio.abc.ByteStream
    ) -> AiosError | None:
        """Carry it. Returns: why it was refused or cut short, if it was, which the program is told too."""
        limits = self._config
        try:
            if post.n_open > limits.max_connections:
                raise AccessDenied(
                    f"{limits.max_connections} connections are open already",
                    hint="close some, or the owner raises `egress.max_connections`",
                )
            with anyio.move_on_after(limits.timeout_s) as timer:
                with edge("a connection", *BROKEN):  # both sides are strangers
                    await connection.carry()
            if timer.cancelled_caught:
                raise AccessDenied(
                    f"a connection may last {limits.timeout_s:g} s", hint="`egress.timeout_s`"
                )
        except AiosError as error:
            if not connection.is_answered:
                await stream.send(_refusal(error))
            return error
        return None

    def _tell(self, process: Process, connection: Connection, why: AiosError | None) -> None:
        counts = f"{connection.n_sent} bytes out, {connection.n_received} in"
        if why is None:
            self._journal.tell(process.pid, "egress", f"{connection.what}: {counts}")
            return
        self.n_denied += 1
        said = f"{connection.what}: {why.code}: {why.message} ({counts})"
        self._journal.tell(process.pid, "egress-denied", said)
        process.log.write(f"network: {said}", stream="kernel", unix_s=self._journal.unix_s())


def network_of(
    parent: Process, asked: tuple[str, ...] | None
) -> tuple[tuple[str, ...], ...] | None:
    """The lists of hosts that hold for a new program: all of its parent's, and its own. None is no network.

    Raises:
        AccessDenied: It asks for the network, and its parent has none.
    """
    if asked is None:
        return None
    if parent.network is None:
        raise AccessDenied(
            f"process {parent.pid} ({parent.name}) has no network to give",
            hint="a child gets at most what its parent has: `network` in the parent's agent.toml",
        )
    return (*parent.network, asked)


def _is_for(pattern: str, lists: Sequence[Sequence[str]]) -> bool:
    """Whether a program with these lists could reach a host of this pattern."""
    name, _, port = pattern.removeprefix("*.").partition(":")
    target = Target("", name, int(port) if port.isdigit() else PORTS["https"])
    return all(is_listed(target, each) for each in lists)


def _refusal(error: AiosError) -> bytes:
    body = f"aios: {error.message}. {error.hint}\n".encode()
    status = STATUS.get(type(error), "502 Bad Gateway")
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    return f"{head}X-Aios-Code: {error.code}\r\nConnection: close\r\n\r\n".encode() + body


class EgressServices(Protocol):
    """What the proxies use of the kernel."""

    config: Config
    home: Home
    journal: Journal
    tasks: anyio.abc.TaskGroup
    launcher: Launcher


def open_egress(kernel: EgressServices) -> Egress:
    """The proxies of a kernel, with the secrets of its home."""
    store = SecretStore(kernel.home.secrets)
    return Egress(
        kernel.config.egress, store, kernel.journal, tasks=kernel.tasks, launcher=kernel.launcher
    )
