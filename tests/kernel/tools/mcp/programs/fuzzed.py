"""Replies that are none, by number: the same number makes the same reply. As a program, a server over stdio that gives them."""

import json
import os
import random
import sys
import threading
from collections.abc import Callable

Chance = random.Random
VALUES: list[object] = [
    None, True, -1, 0, 2**63, 1e308, 0.5, "", "x" * 5_000, "\x00\x1b[31m", [], {}, [[[]]], {"a": None}, "\ud800",
]  # fmt: skip
METHODS = [
    "ping", "sampling/createMessage", "elicitation/create", "roots/list", "tools/list", "initialize", "x", "",
    "notifications/progress", "notifications/cancelled", "notifications/message", "notifications/resources/updated",
]  # fmt: skip


def good(request_id: object) -> dict[str, object]:
    """A reply as it should be."""
    content = [{"type": "text", "text": "fine"}]
    return {"jsonrpc": "2.0", "id": request_id, "result": {"content": content}}


def line(value: object) -> bytes:
    """A message as a line."""
    return json.dumps(value).encode() + b"\n"


def cut(chance: Chance, request_id: object) -> bytes:
    """The beginning of a reply, or all but some of its bytes."""
    text = bytearray(line(good(request_id)))
    if chance.random() < 0.5:
        return bytes(text[: chance.randrange(len(text))]) + b"\n"
    for _ in range(chance.randrange(1, 6)):
        text[chance.randrange(len(text))] = chance.randrange(256)
    return bytes(text) + b"\n"


def noise(chance: Chance, _: object) -> bytes:
    """Bytes, of which a few may be new lines."""
    return chance.randbytes(chance.randrange(1, 3_000)) + b"\n"


def another_shape(chance: Chance, request_id: object) -> bytes:
    """JSON-RPC in which something is of another kind, missing, or twice there."""
    reply = good(request_id)
    for _ in range(chance.randrange(1, 4)):
        key = chance.choice(["jsonrpc", "id", "result", "error", "method", "params"])
        if chance.random() < 0.3:
            reply.pop(key, None)
        else:
            reply[key] = chance.choice(VALUES)
    return line(reply)


def another_result(chance: Chance, request_id: object) -> bytes:
    """A result that is none."""
    block: dict[str, object] = {
        "type": chance.choice(["text", "image", "audio", "resource", "x", 7])
    }
    for key in ("text", "data", "mimeType", "resource", "annotations", "_meta"):
        if chance.random() < 0.4:
            block[key] = chance.choice(VALUES)
    result: dict[str, object] = {"content": chance.choice([[block], block, [block] * 50, *VALUES])}
    for key in ("isError", "structuredContent", "resultType", "_meta", "ttlMs", "inputRequests"):
        if chance.random() < 0.3:
            result[key] = chance.choice(VALUES)
    return line({"jsonrpc": "2.0", "id": request_id, "result": result})


def deep(chance: Chance, request_id: object) -> bytes:
    """A reply that is nested deep."""
    n = chance.choice([100, 1_000, 50_000])
    inside = b"[" * n + b"]" * n if chance.random() < 0.5 else b'{"a":' * n + b"1" + b"}" * n
    return line(good(request_id)).replace(b'"fine"', inside)


def number(chance: Chance, request_id: object) -> bytes:
    """A number that is out of range, or none."""
    what = chance.choice(
        [b"1" * 5_000, b"1e99999", b"-0", b"NaN", b"Infinity", b"0x1", b"1." + b"0" * 999]
    )
    return line(good(request_id)).replace(b'"fine"', what)


def unasked(chance: Chance, request_id: object) -> bytes:
    """Requests, notifications and replies that nobody asked for, and then the reply, or not."""
    found = b""
    for _ in range(chance.randrange(1, 20)):
        message: dict[str, object] = {"jsonrpc": "2.0", "method": chance.choice(METHODS)}
        if chance.random() < 0.7:
            message["params"] = chance.choice(VALUES)
        if chance.random() < 0.5:
            message["id"] = chance.choice(VALUES)
        found += line(message)
    found += line(good(chance.choice([request_id, 999_999, "7", None, -1])))
    return found


def batch(chance: Chance, request_id: object) -> bytes:
    """Several messages in one line."""
    parts = [good(request_id), *chance.sample(VALUES, 5), good(99), {"jsonrpc": "2.0"}]
    chance.shuffle(parts)
    return line(parts * chance.choice([1, 1, 300]))


def error(chance: Chance, request_id: object) -> bytes:
    """An error that is none."""
    what = {"code": chance.choice(VALUES), "message": chance.choice(VALUES)}
    return line({"jsonrpc": "2.0", "id": request_id, "error": chance.choice([what, *VALUES])})


KINDS: list[Callable[[Chance, object], bytes]] = [
    cut, noise, another_shape, another_result, deep, number, unasked, batch, error,
]  # fmt: skip


def malformed(n: int, request_id: object) -> bytes:
    """The reply of that number."""
    chance = random.Random(n)  # noqa: S311 - to be repeated, not to be guessed
    return KINDS[n % len(KINDS)](chance, request_id)


ENDS_EACH = 101
ENDS: list[Callable[[], object]] = [
    lambda: os._exit(3),
    os.abort,
    lambda: os.close(1),
    lambda: threading.Event().wait(),
]


def answer(request: dict[str, object]) -> bytes:
    """What the program answers; a hundredth of the calls is its end, in one way or another."""
    method = request.get("method")
    if method == "tools/call":
        params = request["params"]
        assert isinstance(params, dict)
        n: int = params["arguments"]["n"]
        if n % ENDS_EACH == 0:
            ENDS[n % len(ENDS)]()
        return malformed(n, request["id"])
    if method == "initialize":
        about = {
            "protocolVersion": "2024-11-05",
            "capabilities": {},
            "serverInfo": {"name": "f", "version": "1"},
        }
        return line({"jsonrpc": "2.0", "id": request["id"], "result": about})
    if method == "tools/list":
        tools = [{"name": "call", "inputSchema": {"type": "object"}}]
        return line({"jsonrpc": "2.0", "id": request["id"], "result": {"tools": tools}})
    if "id" in request and "method" in request:
        return line(
            {"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": "no"}}
        )
    return b""


if __name__ == "__main__":
    for text in sys.stdin:
        sys.stdout.buffer.write(answer(json.loads(text)))
        sys.stdout.buffer.flush()
