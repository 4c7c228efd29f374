"""What a program in a sandbox may say to the egress proxy, and how it is said on to a host. Pure.

The grammar is narrow on purpose. Whatever two readers of HTTP could read differently is refused: line ends that are not CRLF, folded lines, spaces before a
colon, two hosts, two lengths, a length beside chunks. One request is carried a connection, so nothing can hide behind it.
"""

import re
from urllib.parse import urlsplit

from msgspec import Struct

from aios.errors import InvalidCall
from aios.kernel.egress.targets import Target, read_url

MAX_HEAD_BYTES = 32 << 10
MAX_CHUNK_BYTES = 1 << 30
CHUNKED = -1
TLS_HANDSHAKE, CLIENT_HELLO, SERVER_NAME = 0x16, 1, 0
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""TRACE and its like would show a program what was put into its request."""
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
        "host",
        "content-length",
        "accept-encoding",
    }
)
_REQUEST = re.compile(r"([A-Z]{1,16}) ([!-~]{1,8192}) HTTP/1\.[01]")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
"""One repetition and nothing after it: what a program sends must not be tried in many ways, for the kernel waits meanwhile."""
_AUTHORITY = re.compile(r"([^/?#@\s]+):(\d{1,5})")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[\t -~]{0,256})?\r\n")


class Head(Struct, frozen=True):
    """One request. `length` is that of its body, `CHUNKED` if only its chunks tell; a tunnel has no method that matters."""

    method: str
    target: Target
    path: str
    is_tunnel: bool
    headers: tuple[tuple[str, str], ...] = ()
    length: int = 0


def read_head(data: bytes) -> Head:
    """The request in a head, which ends with an empty line.

    Raises:
        InvalidCall: It is none, or one that could be read in two ways.
    """
    lines = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    found = _REQUEST.fullmatch(lines[0])
    if found is None or any("\n" in line or "\r" in line or "\0" in line for line in lines):
        raise _refused("it is no request of HTTP/1.1")
    headers = [_header(line) for line in lines[1:]]
    method, said = found[1], found[2]
    hosts = [value for name, value in headers if name.lower() == "host"]
    if len(hosts) > 1:
        raise _refused("it names two hosts")
    target = _tunnel_target(said) if method == "CONNECT" else _target(method, said)
    if hosts and _authority(hosts[0], target) != (target.host, target.port):
        raise _refused(f"its Host {hosts[0][:80]!r} is not {target.host}:{target.port}")
    if method == "CONNECT":
        return Head(method, target, "", is_tunnel=True)
    parts = urlsplit(said)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    dropped = _dropped(headers)
    kept = tuple((name, value) for name, value in headers if name.lower() not in dropped)
    return Head(method, target, path, is_tunnel=False, headers=kept, length=_length(headers))


def write_head(head: Head, headers: tuple[tuple[str, str], ...]) -> bytes:
    """A request as it is sent to the host, which closes the connection after its answer and leaves it uncompressed."""
    target = head.target
    host = f"[{target.host}]" if ":" in target.host else target.host
    lines = [f"{head.method} {head.path} HTTP/1.1"]
    lines.append(f"Host: {host}" if target.is_usual_port else f"Host: {host}:{target.port}")
    lines += [f"{name}: {value}" for name, value in headers]
    lines += ["Accept-Encoding: identity", "Connection: close"]
    if head.length == CHUNKED:
        lines.append("Transfer-Encoding: chunked")
    elif head.length or head.method in {"POST", "PUT", "PATCH"}:
        lines.append(f"Content-Length: {head.length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def read_chunk_size(line: bytes) -> int:
    """The length of the chunk that a line begins; 0 is the last.

    Raises:
        InvalidCall: It begins none.
    """
    found = _CHUNK.fullmatch(line)
    if found is None or int(found[1], 16) > MAX_CHUNK_BYTES:
        raise _refused("its body is not in chunks")
    return int(found[1], 16)


def server_name(data: bytes) -> str | None:
    """The name of the host that a TLS client greets; empty if it names none; None if more bytes are needed.

    Raises:
        InvalidCall: It is no greeting of TLS.
    Source: RFC 8446, 4.1.2 and RFC 6066, 3.
    """
    if data[:1] not in (b"", bytes([TLS_HANDSHAKE])):
        raise _refused("what goes through this tunnel is not TLS")
    if len(data) < 5:
        return None
    end = 5 + int.from_bytes(data[3:5])
    if len(data) < end:
        return None
    try:
        return _name_in(memoryview(data)[5:end])
    except IndexError:
        raise _refused("its greeting of TLS is cut short or in pieces") from None


def _name_in(hello: memoryview) -> str:
    if hello[0] != CLIENT_HELLO or int.from_bytes(hello[1:4]) != len(hello) - 4:
        raise _refused("its greeting of TLS is cut short or in pieces")
    at = 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2])
    at += 1 + hello[at]
    end = at + 2 + int.from_bytes(hello[at : at + 2])
    at += 2
    while at < min(end, len(hello)):
        kind, size = int.from_bytes(hello[at : at + 2]), int.from_bytes(hello[at + 2 : at + 4])
        if kind == SERVER_NAME:
            name_size = int.from_bytes(hello[at + 7 : at + 9])
            if hello[at + 6] or name_size + 5 != size:
                raise _refused("its greeting of TLS names more than one host")
            return bytes(hello[at + 9 : at + 9 + name_size]).decode("latin-1").lower()
        at += 4 + size
    return ""


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not (colon and _NAME.fullmatch(name) and _VALUE.fullmatch(value)):
        raise _refused(f"{line[:40]!r} is no header")
    return name, value.strip(" \t")


def _dropped(headers: list[tuple[str, str]]) -> frozenset[str]:
    """What is between the program and the proxy alone, and what `Connection` says is."""
    named = {
        word.strip().lower()
        for name, value in headers
        if name.lower() in {"connection", "proxy-connection"}
        for word in value.split(",")
    }
    return HOP_BY_HOP | named


def _length(headers: list[tuple[str, str]]) -> int:
    lengths = [value for name, value in headers if name.lower() == "content-length"]
    codings = [value.lower() for name, value in headers if name.lower() == "transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise _refused("it says twice how long it is")
    if codings:
        if codings != ["chunked"]:
            raise _refused(f"its transfer encoding {codings[0][:40]!r} is none that is carried")
        return CHUNKED
    if not lengths:
        return 0
    if not (lengths[0].isascii() and lengths[0].isdigit() and len(lengths[0]) <= 15):
        raise _refused("its length is no number")
    return int(lengths[0])


def _tunnel_target(said: str) -> Target:
    found = _AUTHORITY.fullmatch(said)
    if found is None:
        raise _refused("a tunnel goes to HOST:PORT")
    return read_url(f"https://{said}/")


def _target(method: str, said: str) -> Target:
    if method not in METHODS:
        raise _refused(f"{method} is no method that is carried")
    if "#" in said:
        raise _refused("its address has a fragment")
    return read_url(said)


def _authority(host: str, target: Target) -> tuple[str, int]:
    scheme = target.url.partition(":")[0]
    try:
        found = read_url(f"{scheme}://{host}/")
    except InvalidCall:
        return "", 0
    is_bare = found.url.rstrip("/").endswith(host) and "/" not in host and "?" not in host
    return (found.host, found.port) if is_bare else ("", 0)


def _refused(why: str) -> InvalidCall:
    return InvalidCall(f"the request is refused: {why}", hint="see docs/guides/network.md")
