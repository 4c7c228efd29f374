"""Calls and answers as the journal stores them: without secrets, and so that what is said again costs nothing. Pure.

A conversation comes back whole with every call of an agent that keeps it itself. So its messages are cut out and chained:
a message is known by the digest of all before it and itself, and a chain that grew by two messages adds two texts.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import blake2b

import msgspec

from aios.abi.call import Answer, Call
from aios.abi.calls import Guest
from aios.abi.fork import Fork
from aios.abi.gate import Fault
from aios.abi.spawn import Spawn
from aios.abi.timers import TimerAdd
from aios.abi.wire import encode, encode_call
from aios.kernel.journal.records import Link, Written

DIGEST_BYTES = 16
MAX_INTENT_BYTES = 64 << 10
"""A longer call is kept by its digest alone: nobody needs it to replay, and file contents are stored elsewhere."""
HIDDEN = "(hidden)"

_as_fields = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_as_items = msgspec.msgpack.Decoder(list[msgspec.Raw])
_out = msgspec.msgpack.Encoder()


def write_call(call: "Call[Answer]") -> Written:
    """A call as it is stored and told from others. Its deadline is no part of it: programs compute that from clocks.

    Raises:
        InvalidCall: It holds something that no wire carries.
    """
    if call.deadline_s is not None:
        call = msgspec.structs.replace(call, deadline_s=None)
    if isinstance(call, Spawn):
        call = _without_secrets(call)
    if isinstance(call, Fork) and call.env:
        call = msgspec.structs.replace(call, env=dict.fromkeys(call.env, HIDDEN))
    if isinstance(call, TimerAdd):
        call = msgspec.structs.replace(call, spawn=_without_secrets(call.spawn))
    body = encode_call(call)
    if not getattr(call, "messages", ()):
        return Written(body, None, _digest(body))
    head, items = _cut(body, "messages")
    links = chain((bytes(item) for item in _as_items.decode(items)), b"")
    return Written(head, links, _digest(head, links[-1].digest if links else b""))


def write_answer(answer: Answer, after: Written | None) -> Written:
    """An answer as it is stored; the message of a chat goes on the chain of its call."""
    if isinstance(answer, Guest):
        answer = msgspec.structs.replace(answer, token="")
    body = encode(answer)
    if not _has_field(type(answer), "message"):
        return Written(body, None, b"")
    head, message = _cut(body, "message")
    before = after.messages[-1].digest if after is not None and after.messages else b""
    return Written(head, chain([message], before), b"")


def write_fault(fault: Fault) -> Written:
    """A fault as it is stored."""
    return Written(encode(fault), None, b"")


def join_call(head: bytes, messages: Sequence[bytes] | None) -> bytes:
    """The bytes of a call from what is stored; None: it is one without messages. Of one that was too long to be kept there are none."""
    if messages is None or not head:
        return head
    items = [msgspec.Raw(message) for message in messages]
    return _out.encode({**_as_fields.decode(head), "messages": items})


def join_answer(head: bytes, message: bytes | None) -> bytes:
    """The bytes of an answer from what is stored."""
    if message is None:
        return head
    return _out.encode({**_as_fields.decode(head), "message": msgspec.Raw(message)})


def chain(texts: Iterable[bytes], digest: bytes) -> list[Link]:
    """Texts that follow on those with that digest."""
    links = []
    for data in texts:
        digest = _digest(digest, data)
        links.append(Link(digest, data))
    return links


def digest_of(data: bytes) -> bytes:
    """The digest of a text that follows on nothing and that nothing follows on."""
    return blake2b(data, digest_size=DIGEST_BYTES, person=b"alone").digest()


def _without_secrets(call: Spawn) -> Spawn:
    if not call.env:
        return call
    return msgspec.structs.replace(call, env=dict.fromkeys(call.env, HIDDEN))


def _cut(body: bytes, name: str) -> tuple[bytes, bytes]:
    """The bytes of a struct without one field, and that field's."""
    fields = _as_fields.decode(body)
    cut = bytes(fields.pop(name))
    return _out.encode(fields), cut


def _digest(*parts: bytes) -> bytes:
    digest = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


@cache
def _has_field(cls: type[msgspec.Struct], name: str) -> bool:
    return name in cls.__struct_fields__
