"""One connection of a program to the egress proxy: read what it asks for, judge it, carry it.

    head -> is the host allowed? -> resolve, judge the addresses -> connect to the judged one -> carry, counted and timed

A tunnel (`CONNECT`) carries TLS that greets the host which it was opened for; a plain request may hold placeholders, and leaves with the secrets in their place.
"""

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import anyio.abc
import anyio.to_thread
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSStream
from msgspec import Struct, field
from msgspec.structs import replace

from aios.config import EgressConfig
from aios.errors import AccessDenied, AiosError, InvalidCall, ResourceExhausted, ToolFailed
from aios.kernel.egress.connecting import find_address, trusted_certificates
from aios.kernel.egress.heads import (
    CHUNKED,
    MAX_HEAD_BYTES,
    TLS_HANDSHAKE,
    Head,
    read_chunk_size,
    read_head,
    server_name,
    write_head,
)
from aios.kernel.egress.secrets import Mask, Secret, SecretStore, filled, names_in
from aios.kernel.egress.targets import Target, check_host, is_listed, is_public
from aios.kernel.process import Process

HEAD_S = 15.0
"""How long a program may take to say what it wants, and to greet."""
CONNECT_S = 20.0
MAX_LOOKUPS = 4
"""Names that are looked up at once for one program."""
PIECE_BYTES = 64 << 10
HTTP_PORT, HTTPS_PORT = 80, 443
HINT = "the owner adds it to `egress.hosts`, and a program to `network` of its agent.toml"
BROKEN = (
    OSError,
    ssl.SSLError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    anyio.IncompleteRead,
)


class Rules(Struct, frozen=True):
    """What holds for the connections of one program."""

    process: Process
    lists: tuple[Sequence[str], ...]
    config: EgressConfig
    secrets: SecretStore
    lookups: anyio.CapacityLimiter = field(
        default_factory=lambda: anyio.CapacityLimiter(MAX_LOOKUPS)
    )


class Connection:
    """Carries one. `what` and the counts are for those who watch; nothing in them is of the content."""

    def __init__(self, inner: anyio.abc.ByteStream, rules: Rules) -> None:
        self.what = "something"
        self.n_sent = self.n_received = 0
        self.is_answered = False
        self._inner = inner
        self._source = BufferedByteReceiveStream(inner)
        self._rules = rules
        self._failure: AiosError | None = None

    async def carry(self) -> None:
        """Do what the program asks for.

        Raises:
            AccessDenied, InvalidCall: It may not, or is not understood in one way only.
            ResourceExhausted: It is more than may pass on one connection.
            ToolFailed: The host cannot be reached.
        """
        head = await self._head()
        self.what = f"{head.method} {head.target.host}:{head.target.port}"
        check_host(head.target, self._rules.lists, hint=HINT)
        if head.is_tunnel:
            await self._tunnel(head)
        else:
            await self._request(head)
        if self._failure is not None:
            raise self._failure

    async def _head(self) -> Head:
        try:
            with anyio.fail_after(HEAD_S):
                data = await self._source.receive_until(b"\r\n\r\n", MAX_HEAD_BYTES)
        except (anyio.DelimiterNotFound, TimeoutError) as error:
            raise InvalidCall(
                f"no head of a request within {MAX_HEAD_BYTES} bytes and {HEAD_S:g} s",
                hint="speak HTTP/1.1 to the proxy",
            ) from error
        return read_head(data)

    # --- a tunnel ------------------------------------------------------------------------------------------------

    async def _tunnel(self, head: Head) -> None:
        if head.target.port == HTTP_PORT:
            raise AccessDenied(
                "no tunnel to port 80", hint="plain HTTP goes to the proxy without one"
            )
        outer = await self._connect(head.target)
        async with outer:
            await self._inner.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self.is_answered = True

            async def up() -> None:
                greeting = await self._greeting(head.target)
                await self._pass_up(outer, greeting)
                while piece := await self._source.receive(PIECE_BYTES):
                    await self._pass_up(outer, piece)

            await self._both(outer, up, Mask(()))

    async def _greeting(self, target: Target) -> bytes:
        """The first bytes of a tunnel; those of TLS must be for its host. Other protocols pass on ports that a list names."""
        said = await self._source.receive(PIECE_BYTES)
        if target.port != HTTPS_PORT and said[0] != TLS_HANDSHAKE:
            return said
        with anyio.move_on_after(HEAD_S):
            while (name := server_name(said)) is None:
                said += await self._source.receive(PIECE_BYTES)
            if name == target.host or (not name and _is_address(target.host)):
                return said
            raise AccessDenied(
                f"a tunnel to {target.host} greets {name[:80]!r}",
                hint="speak TLS to the host that the tunnel is for, with its name",
            )
        raise InvalidCall("no greeting of TLS came", hint="speak TLS through the tunnel")

    # --- a request -----------------------------------------------------------------------------------------------

    async def _request(self, head: Head) -> None:
        stored = await anyio.to_thread.run_sync(self._rules.secrets.load)
        for_host = {
            name: secret for name, secret in stored.items() if is_listed(head.target, secret.hosts)
        }
        names = names_in(head.headers)
        head = self._secured(head, names, for_host)
        headers = filled(head.headers, {name: each.value for name, each in for_host.items()})
        outer = await self._connect(head.target, is_tls=head.target.url.startswith("https:"))
        async with outer:

            async def up() -> None:
                await self._pass_up(outer, write_head(head, headers))
                await self._body(outer, head.length)

            mask = Mask(secret.value for secret in for_host.values())
            await self._both(outer, up, mask)

    def _secured(self, head: Head, names: frozenset[str], for_host: Mapping[str, Secret]) -> Head:
        """The request as it may leave: with a secret in it, only encrypted, but to hosts that the owner has on a net of its own."""
        target = head.target
        strange = names - for_host.keys()
        if strange:
            raise AccessDenied(
                f"the secret {min(strange)} is not for {target.host}:{target.port}",
                hint="`aios secret ls` shows which hosts each is for",
            )
        if not names or target.url.startswith("https:"):
            return head
        if target.port == HTTP_PORT:
            better = Target(f"https{target.url[4:]}", target.host, HTTPS_PORT)
            check_host(better, self._rules.lists, hint=HINT)
            return replace(head, target=better)
        if is_listed(target, self._rules.config.private_hosts):
            return head
        raise AccessDenied(
            f"a secret is not sent to {target.host}:{target.port} without encryption",
            hint="use https://, or port 80, which is sent by TLS to port 443",
        )

    async def _body(self, outer: anyio.abc.ByteStream, length: int) -> None:
        while length > 0:
            piece = await self._source.receive(min(length, PIECE_BYTES))
            length -= len(piece)
            await self._pass_up(outer, piece)
        while length == CHUNKED:
            line = await self._line()
            n_bytes = read_chunk_size(line)
            await self._pass_up(outer, line)
            if n_bytes == 0:
                await self._line()  # trailers are not carried
                await self._pass_up(outer, b"\r\n")
                return
            await self._body(outer, n_bytes)
            if await self._source.receive_exactly(2) != b"\r\n":
                raise InvalidCall("the request is refused: its body is not in chunks", hint="")
            await self._pass_up(outer, b"\r\n")

    async def _line(self) -> bytes:
        try:
            return await self._source.receive_until(b"\n", MAX_HEAD_BYTES) + b"\n"
        except anyio.DelimiterNotFound as error:
            raise InvalidCall(
                f"the request is refused: a line in its body is over {MAX_HEAD_BYTES} bytes",
                hint="send the body by its length (`Content-Length`)",
            ) from error

    # --- both ways -----------------------------------------------------------------------------------------------

    async def _both(
        self, outer: anyio.abc.ByteStream, up: Callable[[], Awaitable[None]], mask: Mask
    ) -> None:
        """Carry until the host has said everything, or something is wrong."""

        async def down() -> None:
            try:
                while True:
                    await self._pass_down(mask.feed(await outer.receive(PIECE_BYTES)))
            except anyio.EndOfStream:
                await self._pass_down(mask.finish())

        async def guarded(way: Callable[[], Awaitable[None]], *, is_up: bool) -> None:
            try:
                await way()
            except AiosError as error:
                self._failure = error
                tasks.cancel_scope.cancel()
            except BROKEN:
                if is_up:
                    await _end(outer)
                else:
                    tasks.cancel_scope.cancel()
            if not is_up:
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: guarded(up, is_up=True))
            await guarded(down, is_up=False)

    async def _pass_up(self, outer: anyio.abc.ByteStream, piece: bytes) -> None:
        self.n_sent += len(piece)
        await self._wait_allowed()
        await outer.send(piece)

    async def _pass_down(self, piece: bytes) -> None:
        if not piece:
            return
        self.n_received += len(piece)
        await self._wait_allowed()
        self.is_answered = True
        await self._inner.send(piece)

    async def _wait_allowed(self) -> None:
        """Hold while the process is stopped; refuse what is too much."""
        limit = self._rules.config.max_bytes
        if self.n_sent + self.n_received > limit:
            raise ResourceExhausted(
                f"over {limit} bytes on one connection", hint="the owner raises `egress.max_bytes`"
            )
        process = self._rules.process
        while process.is_stopped:
            await process.wait_continued()
            if process.exiting is not None:  # it was let go on only to end
                raise process.gone()

    async def _connect(self, target: Target, *, is_tls: bool = False) -> anyio.abc.ByteStream:
        """A connection to the address that was judged."""
        is_private = is_listed(target, self._rules.config.private_hosts)
        try:
            with anyio.fail_after(CONNECT_S):
                address = await find_address(
                    target.host,
                    target.port,
                    lambda each: is_private or is_public(each),
                    lookups=self._rules.lookups,
                    hint="the owner names it in `egress.private_hosts`, if that is meant",
                )
                self.what += f" at {address}"
                await self._wait_allowed()
                plain = await anyio.connect_tcp(address, target.port)
                if not is_tls:
                    return plain
                context = await anyio.to_thread.run_sync(trusted_certificates)
                return await TLSStream.wrap(
                    plain, hostname=target.host, ssl_context=context, standard_compatible=False
                )
        except (*BROKEN, TimeoutError) as error:
            raise ToolFailed(
                f"{target.host}:{target.port} cannot be reached: {type(error).__name__}",
                hint="check the address, or try again later",
            ) from error


async def _end(stream: anyio.abc.ByteStream) -> None:
    """Say that nothing more comes, if that can be said: TLS cannot."""
    try:
        await stream.send_eof()
    except (NotImplementedError, *BROKEN):
        return


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
