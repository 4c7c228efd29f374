"""How calls and frames become bytes: msgpack on the Unix socket, JSON over HTTP.

The socket carries packets: a big-endian u32 length, then that many bytes of msgpack. The client's first packet is
`Hello`, the server's `Welcome` or `Refusal`; after that any number of calls may be in flight, told apart by an id that
the client picks. Every `Request` is answered by zero or more `Reply` packets with progress frames (only if `stream`)
and exactly one with a `Result` or `Fault`.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

import msgspec
from msgspec import Struct

from aios.abi.call import Answer, Call
from aios.abi.calls import AnyAnswer, AnyCall
from aios.abi.gate import Advance, Change, Fault, Frame, Line, Result, Token
from aios.abi.types import Pid
from aios.errors import InvalidCall, TooLarge
from aios.malformed import told

WIRE_VERSION = 1
HEADER_BYTES = 4
MAX_PACKET_BYTES = 64 << 20

T = TypeVar("T")


class Hello(Struct, frozen=True, tag="hello"):
    """The client's first packet."""

    token: str
    version: int = WIRE_VERSION


class Welcome(Struct, frozen=True, tag="welcome"):
    """The token was taken: the connection speaks for this process."""

    pid: Pid
    version: int = WIRE_VERSION


class Refusal(Struct, frozen=True, tag="refusal"):
    """The connection is refused and will be closed."""

    fault: Fault


class Request(Struct, frozen=True, tag="request"):
    """A call. Without `stream` only its end is sent back."""

    id: int
    call: AnyCall
    stream: bool = False


class Cancel(Struct, frozen=True, tag="cancel"):
    """The client no longer wants the call. The server still answers it with one `Result` or `Fault`."""

    id: int


class Reply(Struct, frozen=True, tag="reply"):
    """A frame of the call with that id."""

    id: int
    frame: Token | Line | Change | Advance | Result[AnyAnswer] | Fault


ToServer = Hello | Request | Cancel
ToClient = Welcome | Refusal | Reply

_msgpack_out = msgspec.msgpack.Encoder()
_json_out = msgspec.json.Encoder()


class _Reader(Generic[T]):
    """Reads one form. Its decoder is made at the first use: each takes milliseconds, and a program needs one of the seven."""

    def __init__(self, kind: Callable[[Any], Any], form: object) -> None:
        self._kind = kind
        self._form = form

    @cached_property
    def decode(self) -> Callable[[bytes], T]:
        """The decoder's method."""
        return cast("Callable[[bytes], T]", self._kind(self._form).decode)


_to_server: _Reader[ToServer] = _Reader(msgspec.msgpack.Decoder, ToServer)
_to_client: _Reader[ToClient] = _Reader(msgspec.msgpack.Decoder, ToClient)
_msgpack_call: _Reader[AnyCall] = _Reader(msgspec.msgpack.Decoder, AnyCall)
_msgpack_answer: _Reader[AnyAnswer] = _Reader(msgspec.msgpack.Decoder, AnyAnswer)
_msgpack_fault: _Reader[Fault] = _Reader(msgspec.msgpack.Decoder, Fault)
_json_call: _Reader[AnyCall] = _Reader(msgspec.json.Decoder, AnyCall)
_json_frame: _Reader[Frame] = _Reader(
    msgspec.json.Decoder, Token | Line | Change | Advance | Result[AnyAnswer] | Fault
)


def pack(packet: ToServer | ToClient) -> bytes:
    """A packet as it goes on the socket, its length before it.

    Raises:
        TooLarge: It is over `MAX_PACKET_BYTES`.
        InvalidCall: As `encode_call`.
    """
    body = _encoded(_msgpack_out.encode, packet)
    if len(body) > MAX_PACKET_BYTES:
        raise TooLarge(
            f"a packet of {len(body)} bytes is over the limit of {MAX_PACKET_BYTES}",
            hint="send less",
        )
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def packet_size(header: bytes) -> int:
    """The length that a packet's header announces, in bytes.

    Raises:
        TooLarge: It is over `MAX_PACKET_BYTES`.
    """
    size = int.from_bytes(header, "big")
    if size > MAX_PACKET_BYTES:
        raise TooLarge(
            f"a packet of {size} bytes is over the limit of {MAX_PACKET_BYTES}", hint="send less"
        )
    return size


def unpack_to_server(body: bytes) -> ToServer:
    """Read a packet that a client sent.

    Raises:
        InvalidCall: The bytes are no such packet, or an argument is out of range.
    """
    return _decode(_to_server.decode, body)


def unpack_to_client(body: bytes) -> ToClient:
    """Read a packet that the kernel sent.

    Raises:
        InvalidCall: The bytes are no such packet.
    """
    return _decode(_to_client.decode, body)


def call_to_json(call: Call[Any]) -> bytes:
    """A call as JSON; the key `call` names it.

    Raises:
        InvalidCall: As `encode_call`.
    """
    return _encoded(_json_out.encode, call)


def call_from_json(body: bytes) -> AnyCall:
    """Read a call from JSON.

    Raises:
        InvalidCall: The bytes are no call; the message names the field.
    """
    return _decode(_json_call.decode, body)


def answer_from_json(body: bytes) -> AnyAnswer:
    """Read an answer from JSON.

    Raises:
        InvalidCall: The bytes are no answer.
    """
    decoder: msgspec.json.Decoder[AnyAnswer] = msgspec.json.Decoder(AnyAnswer)
    return _decode(decoder.decode, body)


def frame_to_json(frame: Frame) -> bytes:
    """A frame as JSON; the key `type` names it."""
    return _json_out.encode(frame)


def frame_from_json(body: bytes) -> Frame:
    """Read a frame from JSON.

    Raises:
        InvalidCall: The bytes are no frame.
    """
    return _decode(_json_frame.decode, body)


def encode_call(call: Call[Any]) -> bytes:
    """A call as canonical msgpack, for its hash in the journal.

    Raises:
        InvalidCall: It holds something that no wire carries: half a surrogate pair, an integer over 64 bits.
    """
    return _encoded(_msgpack_out.encode, call)


def encode(value: Answer | Fault) -> bytes:
    """An answer or a fault as msgpack, for the journal."""
    return _msgpack_out.encode(value)


def decode_call(body: bytes) -> AnyCall:
    """Read a call from the journal.

    Raises:
        InvalidCall: The bytes are no call that this version knows.
    """
    return _decode(_msgpack_call.decode, body)


def decode_answer(body: bytes) -> AnyAnswer:
    """Read an answer from the journal.

    Raises:
        InvalidCall: The bytes are no answer that this version knows.
    """
    return _decode(_msgpack_answer.decode, body)


def decode_fault(body: bytes) -> Fault:
    """Read a fault from the journal.

    Raises:
        InvalidCall: The bytes are no fault.
    """
    return _decode(_msgpack_fault.decode, body)


def _encoded(encode: Callable[[Any], bytes], value: object) -> bytes:
    try:
        return encode(value)
    except UnicodeEncodeError as error:
        shown = error.object.encode(errors="backslashreplace").decode()
        raise InvalidCall(
            f"{shown[:80]!r} is no text in UTF-8 and cannot be encoded",
            hint="send valid Unicode; a file of such a name needs another one",
        ) from error
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidCall(
            f"cannot be encoded: {error}", hint="send valid Unicode and 64-bit integers"
        ) from error


def _decode(decode: Callable[[bytes], T], body: bytes) -> T:
    """Decode and turn every way of failing into the caller's mistake."""
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidCall(
            f"malformed: {told(error)}",
            hint="see the reference of the system calls; if AIOS was updated, start the kernel again",
        ) from error
