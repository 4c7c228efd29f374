"""Who is asking: the token of a request becomes the gate of a process; hosts that are not ours are turned away."""

import base64
import binascii
from ipaddress import ip_address

from starlette.datastructures import Headers

from aios.errors import AccessDenied, InvalidCall, NotFound, Unauthenticated
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel

HINT = "send `Authorization: Bearer TOKEN`; the owner's token is in the file `token` of AIOS_HOME"


def gate_for(kernel: Kernel, headers: Headers) -> LocalGate:
    """The door of the process whose token the request carries.

    Raises:
        Unauthenticated: There is no token, or not a valid one.
    """
    token = token_in(headers)
    if token is None:
        raise Unauthenticated("the request carries no token", hint=HINT)
    pid = kernel.authenticate(token)
    try:
        return kernel.gate(pid)
    except NotFound as error:
        raise Unauthenticated("the process of this token is long gone", hint=HINT) from error


def token_in(headers: Headers) -> str | None:
    """The token in the `Authorization` header: a bearer token, or the password of basic authentication.

    Basic is what clients send for credentials in a URL, such as `http://any:TOKEN@localhost:8411/v1`.
    """
    values = headers.getlist("authorization")
    if len(values) != 1:
        return None
    scheme, _, credentials = values[0].strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return credentials.strip() or None
        case "basic":
            return _password(credentials)
        case _:
            return None


def check_host(headers: Headers, own_host: str) -> None:
    """Accept only requests that were meant for this machine.

    A web page can make a browser send requests to 127.0.0.1 under a name of its own (DNS rebinding); the `Host` header
    gives it away.

    Raises:
        AccessDenied: The name is not one of this machine's.
        InvalidCall: There are several names.
    """
    values = headers.getlist("host")
    if len(values) > 1:
        raise InvalidCall("several Host headers", hint="send one")
    if values and not _is_local(_without_port(values[0].strip().lower()), own_host):
        raise AccessDenied(
            f"this server does not answer to the host {values[0][:100]!r}",
            hint="use 127.0.0.1 or localhost, or set server.allow_remote",
        )


def _is_local(host: str, own_host: str) -> bool:
    if host in ("localhost", own_host.lower()) or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _password(credentials: str) -> str | None:
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return decoded.partition(":")[2] or None
