"""Connections that are made only to addresses which may be spoken to: a name is resolved once, judged, and connected to by what was judged."""

import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

import anyio
import anyio.from_thread
import anyio.to_thread
import certifi
import httpcore
from msgspec import Struct

from aios.errors import AccessDenied, InvalidCall, ToolFailed
from aios.kernel.egress.targets import Target

SocketOption = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)
Found = tuple[int, int, int, str, tuple[str | int, ...] | tuple[int, bytes]]
"""What `socket.getaddrinfo` says of an address."""
MayReach = Callable[[str], bool]
"""Whether an address of the network may be connected to."""


PRIVATE_HINT = "the owner names it in `tools.fetch_private_hosts`, if that is meant"


async def find_address(
    host: str, port: int, may_reach: MayReach, *, lookups: anyio.CapacityLimiter, hint: str
) -> str:
    """The first address of a host that may be connected to. It is resolved here once: connect to this address, not to the name.

    `lookups` bounds those at once of whoever asks. The event loop's own would be two at once for the whole kernel, and names
    whose servers do not answer would keep everybody else's waiting. Nothing ends a look-up: one that is cancelled keeps its
    place until it is over.

    Raises:
        AccessDenied: It has none; what it has is not told.
        ToolFailed: It has no address at all.
    """
    try:
        found = await _look_up(host, port, lookups)
    except (OSError, UnicodeError) as error:
        raise ToolFailed(f"{host} cannot be resolved: {error}", hint="check its name") from error
    for entry in found:
        if may_reach(str(entry[4][0])):
            return str(entry[4][0])
    raise AccessDenied(f"{host} is at no public address", hint=hint)


async def _look_up(host: str, port: int, lookups: anyio.CapacityLimiter) -> Sequence[Found]:
    place, begun = object(), list[bool]()

    def give_back() -> None:
        with suppress(RuntimeError):  # it was before
            lookups.release_on_behalf_of(place)

    def look() -> Sequence[Found]:
        begun.append(True)
        try:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        finally:
            anyio.from_thread.run_sync(give_back)

    await lookups.acquire_on_behalf_of(place)
    try:
        own = anyio.CapacityLimiter(1)
        return await anyio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=own)
    finally:
        if not begun:
            give_back()


class JudgedBackend(httpcore.AsyncNetworkBackend):
    """Resolves, judges each address, and connects to the first good one. Nothing of a private one is told."""

    def __init__(self, may_reach: MayReach, lookups: anyio.CapacityLimiter) -> None:
        self._may_reach = may_reach
        self._lookups = lookups
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a host.

        Raises:
            AccessDenied: It has no address that may be spoken to.
            ToolFailed: It has no address at all.
        """
        address = await find_address(
            host, port, self._may_reach, lookups=self._lookups, hint=PRIVATE_HINT
        )
        return await self._plain.connect_tcp(
            address,
            port,
            timeout=timeout,
            local_address=local_address,
            socket_options=socket_options,
        )

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Sockets of this machine are never spoken to."""
        del timeout, socket_options
        raise AccessDenied(f"{path} is a socket of this machine", hint="fetch from a host")

    async def sleep(self, seconds: float) -> None:
        """Wait between two tries."""
        await anyio.sleep(seconds)


class Answer(Struct, frozen=True):
    """What a host answered; names of headers are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


async def request(
    target: Target,
    headers: Mapping[str, str],
    *,
    certificates: ssl.SSLContext,
    may_reach: MayReach,
    lookups: anyio.CapacityLimiter,
    max_bytes: int,
) -> Answer:
    """One GET over a connection of its own.

    Raises:
        AccessDenied: The host has no address that may be reached.
        InvalidCall: The address cannot be asked for.
        ToolFailed: The host could not be reached, broke off, or sent more than `max_bytes`.
    """
    own = ("Host", target.host if target.is_usual_port else f"{target.host}:{target.port}")
    backend = JudgedBackend(may_reach, lookups)
    try:
        async with (
            httpcore.AsyncConnectionPool(ssl_context=certificates, network_backend=backend) as pool,
            pool.stream("GET", target.url, headers=[own, *headers.items()]) as response,
        ):
            found = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in response.headers
            }
            return Answer(response.status, found, await _body(response, max_bytes))
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
        raise ToolFailed(
            f"{target.host} could not be read: {type(error).__name__}: {error}",
            hint="check the address, or try again later",
        ) from error
    except (httpcore.UnsupportedProtocol, ValueError) as error:
        raise InvalidCall(f"{target.url[:80]!r}: {error}", hint="check the address") from error


async def _body(response: httpcore.Response, max_bytes: int) -> bytes:
    data = bytearray()
    async for piece in response.aiter_stream():
        data += piece
        if len(data) > max_bytes:
            raise ToolFailed(
                f"the answer is over {max_bytes} bytes",
                hint="fetch something smaller, or raise tools.max_fetch_bytes",
            )
    return bytes(data)


def trusted_certificates() -> ssl.SSLContext:
    """What TLS trusts: the authorities of certifi, as everywhere in AIOS. Cost: 20 ms."""
    return ssl.create_default_context(cafile=certifi.where())
