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

from aios.abi.counting import count_values, without_strings
from aios.abi.wire import LARGE_BYTES, MAX_VALUES, VALUE_BYTES, too_many_values
from aios.config import ServerConfig
from aios.errors import InvalidCall, ResourceExhausted, TooLarge
from aios.server.held import Held, Share

MAX_JSON_DEPTH = 100
MAX_JSON_INTEGER = 2**63 - 1
THREAD_BYTES = 256 << 10
"""Bodies from this size on are checked in a thread, so that others are served meanwhile."""
MAX_CHECKS = 2
"""So many at once: what is checked takes many times its size in memory."""
TOO_SLOW = 408
LINGER_S = 2.0
LINGER_BYTES = 64 << 20
"""How long and how much of a refused body is read away, so that the client gets to see why."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LONG_NUMBER = re.compile(rb"(?<![0-9])[0-9]{19}")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_DEPTHS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


async def read_json(request: Request, limits: ServerConfig) -> bytes:
    """The body of a request, known to be sound JSON.

    Raises:
        InvalidCall: It is no JSON, or JSON that two readers could understand differently.
        ResourceExhausted: Its family holds too much already.
        TooLarge: It is over `max_body_bytes`.
        HTTPException: It took too long (408) or is compressed (415).
    """
    body = await read_body(request, limits)
    if len(body) < THREAD_BYTES:
        n_values = check_json(body)
    else:
        n_values = await anyio.to_thread.run_sync(check_json, body, limiter=request.state.checks)
    if len(body) > LARGE_BYTES:
        request.state.share.claim(len(body) + VALUE_BYTES * n_values)
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
                if len(body) > LARGE_BYTES:
                    request.state.share.claim(len(body))
    except TimeoutError as error:
        raise HTTPException(
            TOO_SLOW, f"the request did not arrive within {limits.header_timeout_s} s"
        ) from error
    return bytes(body)


def check_json(body: bytes) -> int:
    """Refuse JSON that is malformed, nested too deep, too rich, or ambiguous.

    Returns: How many values it holds at most.

    Raises:
        InvalidCall: Says what is wrong.
    """
    _check_depth(body)
    n_values = count_values(body, max(len(body), LARGE_BYTES) // VALUE_BYTES)
    if n_values > MAX_VALUES:
        raise too_many_values()
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
            parse_int=_bounded if _has_long_number(body) else None,
        )
    except (ValueError, RecursionError) as error:
        raise InvalidCall(f"the body is no JSON: {error}", hint="send one JSON object") from error
    if _SURROGATE.search(body):
        _check_pairs(value)
    return n_values


def _has_long_number(body: bytes) -> bool:
    """In stretches, too."""
    ends = range(THREAD_BYTES, len(body) + THREAD_BYTES, THREAD_BYTES)
    return any(_LONG_NUMBER.search(body, end - THREAD_BYTES, end + 18) for end in ends)


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
    brackets = without_strings(body).translate(None, _NOT_BRACKETS)
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
    read away, within limits. A large reply counts for what its reader's family holds (`share`) until the most of it has
    been read.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self.is_started = False
        self.share = Share(Held("", "", is_bounded=False))  # until it is known whose it is
        self._refusal: ResourceExhausted | None = None
        self._size = -1
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
        """ASGI's send. A large reply for which there is no room is dropped, which `check_sent` tells.

        Raises:
            ResourceExhausted: There is no room for a large piece of a stream.
        """
        if self._refusal is not None:
            return
        if message["type"] == "http.response.start":
            self._size = int(Headers(raw=message["headers"]).get("content-length", -1))
            if self._size > LARGE_BYTES and self.share.held.is_full:
                self._refusal = self.share.held.refusal()
                return
            self.is_started = True
            self._may_linger &= message["status"] != TOO_SLOW  # the rest would come no faster
            if not self._is_read:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
        else:
            if len(message.get("body", b"")) > LARGE_BYTES:
                message = await self._send_large(message)
            if not message.get("more_body", False) and not self._is_read and self._may_linger:
                await self._send({**message, "more_body": True})
                await self._linger()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    def check_sent(self) -> None:
        """See that the reply was not dropped; if so, another may be sent.

        Raises:
            ResourceExhausted: It was: the family of the reader holds too much.
        """
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal

    async def _send_large(self, message: Message) -> Message:
        """Send a large piece, and wait until the client has read the most of it. Returns: what is left to send."""
        n_bytes = len(message["body"])
        if self._size < 0 and self.share.held.is_full:
            raise self.share.held.refusal()
        self.share.add(n_bytes)
        await self._send({**message, "more_body": True})
        rest = {**message, "body": b""}
        await self._send({**rest, "more_body": True})
        self.share.add(-n_bytes)
        return rest

    async def _linger(self) -> None:
        n_bytes = 0
        with anyio.move_on_after(LINGER_S):
            while not self._is_read and n_bytes < LINGER_BYTES:
                message = await self.receive()
                n_bytes += len(message.get("body", b""))
