"""Whom a program or a tool may speak to: which addresses of the web, which hosts, and which addresses of the network. Pure.

A list of hosts names them as they stand in an address: `example.com`, `*.example.com` (what is below it, not itself), with `:8080` for a port
that is not the scheme's own. What a name resolves to is judged again when the connection is made, for the address that it is made to.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from msgspec import Struct

from aios.errors import AccessDenied, InvalidCall

PORTS = {"http": 80, "https": 443}
MAX_URL_CHARS = 8_192
FETCH_HINT = (
    "the owner adds it to `tools.fetch_hosts`, and a program to `fetch_hosts` of its agent.toml"
)
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]*:[0-9a-f:.]*")
_NAT64 = ip_network("64:ff9b::/96")
_SIX_TO_FOUR = ip_network("2002::/16")
_COMPATIBLE = ip_network("::/96")


class Target(Struct, frozen=True):
    """Where a request goes."""

    url: str
    host: str
    port: int

    @property
    def is_usual_port(self) -> bool:
        """The port is one of those that schemes have by themselves."""
        return self.port in PORTS.values()


def read_url(url: str) -> Target:
    """The parts of an address.

    Raises:
        InvalidCall: It is no http or https address, or holds a name and password.
    """
    hint = "give an address such as https://example.com/page"
    if len(url) > MAX_URL_CHARS or any(char <= " " or char == "\x7f" for char in url):
        raise InvalidCall(
            "the address is too long or holds spaces or control characters", hint=hint
        )
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").rstrip(".").encode("idna").decode().lower()
    except (ValueError, UnicodeError) as error:
        raise InvalidCall(f"{url[:80]!r} is no address: {error}", hint=hint) from error
    if parts.scheme not in PORTS or _HOST.fullmatch(host) is None:
        raise InvalidCall(f"{url[:80]!r} is no http or https address", hint=hint)
    if parts.username is not None or parts.password is not None:
        raise InvalidCall("an address may hold no name and password", hint="leave them out")
    url = parts.scheme + url[len(parts.scheme) :]  # in small letters, as all who ask for TLS by it
    return Target(url, host, PORTS[parts.scheme] if port is None else port)


def check_host(target: Target, lists: Iterable[Sequence[str]], *, hint: str = FETCH_HINT) -> None:
    """Return if every list has the host.

    Raises:
        AccessDenied: One of them has not.
    """
    for allowed in lists:
        if not any(_matches(pattern, target) for pattern in allowed):
            shown = ", ".join(allowed) or "none"
            raise AccessDenied(
                f"{target.host}:{target.port} is not among the allowed hosts: {shown}",
                hint=hint,
            )


def is_listed(target: Target, allowed: Sequence[str]) -> bool:
    """Whether a list has the host."""
    return any(_matches(pattern, target) for pattern in allowed)


def is_public(address: str) -> bool:
    """Whether an address is of the public network: not of this machine, a local net, or anything set apart.

    Addresses of IPv6 that carry one of IPv4 are judged by what they carry, too.
    """
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        inner = _carried(found)
        if inner is not None:
            return found in _NAT64 and _is_public(inner)
        if found.is_site_local:  # no longer given out, and for Python of the public network
            return False
    return _is_public(found)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The address of IPv4 in one of IPv6, if it is made to carry one."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.teredo is not None:
        return address.teredo[1]
    if address in _SIX_TO_FOUR:
        return address.sixtofour
    if address in _NAT64 or address in _COMPATIBLE:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _matches(pattern: str, target: Target) -> bool:
    name, separator, port = pattern.lower().rpartition(":")
    if not separator or not port.isdigit():
        name, port = pattern.lower(), ""
    if (int(port) != target.port) if port else not target.is_usual_port:
        return False
    if name == "*":
        return True
    if name.startswith("*."):
        return target.host.endswith(name[1:]) and target.host != name[2:]
    return target.host == name.rstrip(".")
