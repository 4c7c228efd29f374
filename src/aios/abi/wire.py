"""How calls and frames of every kind become bytes: msgpack on the Unix socket and in the journal, JSON over HTTP.

What goes over the socket is in `packets.py`.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from aios.abi.call import Answer, Call
from aios.abi.every import AnyAnswer, AnyCall, Frame
from aios.abi.gate import Fault
from aios.abi.packets import Cancel, Hello, Request, decoded, encoded
from aios.errors import InvalidCall
from aios.readers import Reader

LARGE_BYTES = 16 << 10
"""Packets and bodies over this size are weighed before they are read, and count for what their sender holds."""
MAX_VALUES = 1_000_000
"""In one packet or body: texts, numbers, lists, objects and their keys."""
STEP_VALUES = 1_024
"""How many are weighed at once: a quarter of a millisecond."""
VALUE_BYTES = 80
"""What each takes in memory, about; an empty list is one byte on the wire."""

ToServer = Hello | Request[AnyCall] | Cancel

_msgpack_out = msgspec.msgpack.Encoder()
_json_out = msgspec.json.Encoder()


_to_server: Reader[ToServer] = Reader(msgspec.msgpack.Decoder, ToServer)
_msgpack_call: Reader[AnyCall] = Reader(msgspec.msgpack.Decoder, AnyCall)
_msgpack_answer: Reader[AnyAnswer] = Reader(msgspec.msgpack.Decoder, AnyAnswer)
_msgpack_fault: Reader[Fault] = Reader(msgspec.msgpack.Decoder, Fault)
_json_call: Reader[AnyCall] = Reader(msgspec.json.Decoder, AnyCall)
_json_answer: Reader[AnyAnswer] = Reader(msgspec.json.Decoder, AnyAnswer)
_json_frame: Reader[Frame] = Reader(msgspec.json.Decoder, Frame)

_LENGTHS = {  # where a length follows: of how many bytes, and what is in front of that many more
    0xC4: (1, 2), 0xC5: (2, 3), 0xC6: (4, 5),  # bytes
    0xC7: (1, 3), 0xC8: (2, 4), 0xC9: (4, 6),  # extensions, with a byte for their type
    0xD9: (1, 2), 0xDA: (2, 3), 0xDB: (4, 5),  # texts
}  # fmt: skip
_FIXED = {
    0xCA: 5, 0xCB: 9,  # floats
    0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9,  # integers
    0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18,  # short extensions
    0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5,  # heads of lists and objects; their values count for themselves
    **{0xA0 + size: 1 + size for size in range(32)},  # short texts
    **dict.fromkeys(_LENGTHS, 0),
}  # fmt: skip
_SIZES = [_FIXED.get(first, 1) for first in range(256)]
"""How long a value of msgpack is, by its first byte."""


def weighing(body: bytes) -> Iterator[int]:
    """How many bytes the values of a packet take in memory, about: of ever more of them, the last time of all.

    Counts without making any of them, whatever fields they are in; between two steps others can have their turn.

    Raises:
        InvalidCall: They are over `MAX_VALUES`.
    """
    at = n_values = 0
    while at < len(body):
        size = _SIZES[body[at]]
        if not size:
            width, size = _LENGTHS[body[at]]
            size += int.from_bytes(body[at + 1 : at + 1 + width], "big")
        at += size
        n_values += 1
        if n_values > MAX_VALUES:
            raise too_many_values()
        if n_values % STEP_VALUES == 0:
            yield len(body) + VALUE_BYTES * n_values
    yield len(body) + VALUE_BYTES * n_values


def too_many_values() -> InvalidCall:
    """The error for a call that is too rich."""
    return InvalidCall(
        f"the call holds over {MAX_VALUES:,} values",
        hint="send less at once; a long list of data is better sent as one text, or put into a file",
    )


def unpack_to_server(body: bytes) -> ToServer:
    """Read a packet that a client sent.

    Raises:
        InvalidCall: The bytes are no such packet, or an argument is out of range.
    """
    return decoded(_to_server.decode, body)


def call_to_json(call: Call[Any]) -> bytes:
    """A call as JSON; the key `call` names it.

    Raises:
        InvalidCall: It holds something that no wire carries.
    """
    return encoded(_json_out.encode, call)


def call_from_json(body: bytes) -> AnyCall:
    """Read a call from JSON.

    Raises:
        InvalidCall: The bytes are no call; the message names the field.
    """
    return decoded(_json_call.decode, body)


def answer_from_json(body: bytes) -> AnyAnswer:
    """Read an answer from JSON.

    Raises:
        InvalidCall: The bytes are no answer.
    """
    return decoded(_json_answer.decode, body)


def frame_to_json(frame: Frame) -> bytes:
    """A frame as JSON; the key `type` names it."""
    return _json_out.encode(frame)


def frame_from_json(body: bytes) -> Frame:
    """Read a frame from JSON.

    Raises:
        InvalidCall: The bytes are no frame.
    """
    return decoded(_json_frame.decode, body)


def encode_call(call: Call[Any]) -> bytes:
    """A call as canonical msgpack, for its hash in the journal.

    Raises:
        InvalidCall: It holds something that no wire carries: half a surrogate pair, an integer over 64 bits.
    """
    return encoded(_msgpack_out.encode, call)


def encode(value: Answer | Fault) -> bytes:
    """An answer or a fault as msgpack, for the journal."""
    return _msgpack_out.encode(value)


def decode_call(body: bytes) -> AnyCall:
    """Read a call from the journal.

    Raises:
        InvalidCall: The bytes are no call that this version knows.
    """
    return decoded(_msgpack_call.decode, body)


def decode_answer(body: bytes) -> AnyAnswer:
    """Read an answer from the journal.

    Raises:
        InvalidCall: The bytes are no answer that this version knows.
    """
    return decoded(_msgpack_answer.decode, body)


def decode_fault(body: bytes) -> Fault:
    """Read a fault from the journal.

    Raises:
        InvalidCall: The bytes are no fault.
    """
    return decoded(_msgpack_fault.decode, body)
