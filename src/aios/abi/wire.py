"""How calls and frames of every kind become bytes: msgpack on the Unix socket and in the journal, JSON over HTTP.

What goes over the socket is in `packets.py`.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

import msgspec

from aios.abi.call import Answer, Call
from aios.abi.every import AnyAnswer, AnyCall, Frame
from aios.abi.gate import Fault
from aios.abi.packets import Cancel, Hello, Request, decoded, encoded

T = TypeVar("T")

ToServer = Hello | Request[AnyCall] | Cancel

_msgpack_out = msgspec.msgpack.Encoder()
_json_out = msgspec.json.Encoder()


class _Reader(Generic[T]):
    """Reads one form. Its decoder is made at the first use: each takes milliseconds, and a program needs one of the six."""

    def __init__(self, kind: Callable[[Any], Any], form: object) -> None:
        self._kind = kind
        self._form = form

    @cached_property
    def decode(self) -> Callable[[bytes], T]:
        """The decoder's method."""
        return cast("Callable[[bytes], T]", self._kind(self._form).decode)


_to_server: _Reader[ToServer] = _Reader(msgspec.msgpack.Decoder, ToServer)
_msgpack_call: _Reader[AnyCall] = _Reader(msgspec.msgpack.Decoder, AnyCall)
_msgpack_answer: _Reader[AnyAnswer] = _Reader(msgspec.msgpack.Decoder, AnyAnswer)
_msgpack_fault: _Reader[Fault] = _Reader(msgspec.msgpack.Decoder, Fault)
_json_call: _Reader[AnyCall] = _Reader(msgspec.json.Decoder, AnyCall)
_json_frame: _Reader[Frame] = _Reader(msgspec.json.Decoder, Frame)


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
    decoder: msgspec.json.Decoder[AnyAnswer] = msgspec.json.Decoder(AnyAnswer)
    return decoded(decoder.decode, body)


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
