"""Limits on what comes from outside: the size of a body and the time it takes, and what JSON may hold."""

import json
import re
from collections import Counter
from itertools import accumulate
from typing import Any, NoReturn

import anyio
import anyio.to_thread
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from aios.config import ServerConfig
from aios.errors import InvalidCall, TooLarge

MAX_JSON_DEPTH = 100
MAX_JSON_INTEGER = 2**63 - 1
THREAD_BYTES = 256 << 10
"""Bodies from this size on are checked in a thread, so that others are served meanwhile."""
TOO_SLOW = 408
LINGER_S = 2.0
LINGER_BYTES = 64 << 20
"""How long and how much of a refused body is read away, so that the client gets to see why."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""Possessive, and content with a missing end: else each quote of an unending string would be tried as its beginning."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_DEPTHS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


async def read_json(request: Request, limits: ServerConfig) -> bytes:
    """The body of a request, known to be sound JSON.

    Raises:
        InvalidCall: It is no JSON, or JSON that two readers could understand differently.
        TooLarge: It is over `max_body_bytes`.
        HTTPException: It took too long (408) or is compressed (415).
    """
    body = await read_body(request, limits)
    if len(body) < THREAD_BYTES:
        check_json(body)
    else:
        await anyio.to_thread.run_sync(check_json, body)
    return body


async def read_body(request: Request, limits: ServerConfig) -> bytes:
    """The whole body of a request; raises as `read_json` does."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "compressed bodies are not accepted; send plain JSON")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limits.max_body_bytes:
        raise _too_large(limits)
    body = bytearray()
    try:
        with anyio.fail_after(limits.header_timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.max_body_bytes:
                    raise _too_large(limits)
    except TimeoutError as error:
        raise HTTPException(
            TOO_SLOW, f"the request did not arrive within {limits.header_timeout_s} s"
        ) from error
    return bytes(body)


def check_json(body: bytes) -> None:
    """Refuse JSON that is malformed, nested too deep, or ambiguous.

    Raises:
        InvalidCall: Says what is wrong.
    """
    _check_depth(body)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidCall(
            f"the body is not UTF-8: byte {error.start}", hint="send UTF-8"
        ) from error
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_bounded if _LONG_NUMBER.search(body) else None,
        )
    except (ValueError, RecursionError) as error:
        raise InvalidCall(f"the body is no JSON: {error}", hint="send one JSON object") from error
    if _SURROGATE.search(body):
        _check_pairs(value)


def _check_pairs(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):x}"
        raise InvalidCall(
            f"the body holds {half}, half of a surrogate pair", hint="send whole characters"
        ) from error


def _check_depth(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_JSON_DEPTH:
        return
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    if any(depth > MAX_JSON_DEPTH for depth in accumulate(_DEPTHS[b] for b in brackets)):
        raise InvalidCall(
            f"the body is nested more than {MAX_JSON_DEPTH} levels deep", hint="send it flatter"
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise InvalidCall(f"the key {twice[:100]!r} comes twice in one object", hint="send it once")
    return found


def _bounded(digits: str) -> int:
    number = int(digits)
    if abs(number) > MAX_JSON_INTEGER:
        raise InvalidCall(
            f"the number {digits[:40]} is out of range", hint="integers have 64 bits here"
        )
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidCall(f"{name} is no JSON number", hint="leave the field out")


def _too_large(limits: ServerConfig) -> TooLarge:
    return TooLarge(
        f"the body is over {limits.max_body_bytes} bytes",
        hint="send less, or raise server.max_body_bytes",
    )


class Exchange:
    """One request and its reply: remembers how far both are, and ends them so that the reply arrives.

    A server that replies and closes while the client is still sending destroys its own reply (the client's system
    answers unread bytes with a reset). So the last piece of such a reply waits until the rest of the request has been
    read away, within limits.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self.is_started = False
        self._is_read = not has_body
        self._may_linger = "expect" not in headers
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        """ASGI's receive."""
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._is_read = True
        return message

    async def send(self, message: Message) -> None:
        """ASGI's send."""
        if message["type"] == "http.response.start":
            self.is_started = True
            self._may_linger &= message["status"] != TOO_SLOW  # the rest would come no faster
            if not self._is_read:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
        elif not message.get("more_body", False) and not self._is_read and self._may_linger:
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _linger(self) -> None:
        n_bytes = 0
        with anyio.move_on_after(LINGER_S):
            while not self._is_read and n_bytes < LINGER_BYTES:
                message = await self.receive()
                n_bytes += len(message.get("body", b""))
