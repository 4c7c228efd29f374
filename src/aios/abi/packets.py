"""What goes over the Unix socket: packets of a big-endian u32 length, then that many bytes of msgpack.

The client's first packet is `Hello`, the server's `Welcome` or `Refusal`; after that any number of calls may be in flight,
told apart by an id that the client picks. Every `Request` is answered by zero or more `Reply` packets with progress frames
(only if `stream`) and exactly one with a `Result` or `Fault`.

A client reads the answers of the calls that it makes and no others, so it need not know them; the server's side is in `wire.py`.
"""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Generic, TypeVar, cast, get_args, get_origin

import msgspec
from msgspec import Meta, Raw, Struct

from aios.abi.call import Answer, Call
from aios.abi.gate import Advance, Change, Fault, Line, Progress, Result, Token
from aios.abi.types import MAX_INT, Pid
from aios.errors import InvalidCall, TooLarge
from aios.malformed import told
from aios.readers import Reader

WIRE_VERSION = 1
HEADER_BYTES = 4
MAX_PACKET_BYTES = 64 << 20

A = TypeVar("A", bound=Answer)
C = TypeVar("C", bound=Call[Answer])
F = TypeVar("F")
T = TypeVar("T")


class Packet(Struct, frozen=True):
    """Base of what goes over the socket."""


class Hello(Packet, frozen=True, tag="hello"):
    """The client's first packet."""

    token: str
    version: int = WIRE_VERSION


class Welcome(Packet, frozen=True, tag="welcome"):
    """The token was taken: the connection speaks for this process."""

    pid: Pid
    version: int = WIRE_VERSION


class Refusal(Packet, frozen=True, tag="refusal"):
    """The connection is refused and will be closed."""

    fault: Fault


class Request(Packet, Generic[C], frozen=True, tag="request", omit_defaults=True):
    """A call. Without `stream` only its end is sent back. `job` is the call of a tool of the caller's for which it is made (`ToolJob.id`), if any."""

    id: int
    call: C
    stream: bool = False
    job: Annotated[int, Meta(ge=0, le=MAX_INT)] = 0


class Cancel(Packet, frozen=True, tag="cancel"):
    """The client no longer wants the call. The server still answers it with one `Result` or `Fault`."""

    id: int


class Reply(Packet, Generic[F], frozen=True, tag="reply"):
    """A frame of the call with that id."""

    id: int
    frame: F


ToClient = Welcome | Refusal | Reply[Raw]

_msgpack_out = msgspec.msgpack.Encoder()


def pack(packet: Packet) -> bytes:
    """A packet as it goes on the socket, its length before it.

    Raises:
        InvalidCall: It holds something that no wire carries.
        TooLarge: It is over `MAX_PACKET_BYTES`.
    """
    body = encoded(_msgpack_out.encode, packet)
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


def unpack_to_client(body: bytes) -> ToClient:
    """Read a packet that the kernel sent; `unpack_frame` reads the frame in a `Reply`.

    Raises:
        InvalidCall: The bytes are no such packet.
    """
    return decoded(_to_client.decode, body)


def unpack_frame(frame: Raw, call: type[Call[A]]) -> Progress | Result[A] | Fault:
    """Read a frame of a call of that class.

    Raises:
        InvalidCall: The bytes are no frame, or the answer is that of another call.
    """
    decode = cast("Callable[[bytes], Progress | Result[A] | Fault]", _frame_of(call))
    return decoded(decode, frame)


def answer_of(call: type[Call[A]]) -> type[A]:
    """The class of a call's answer, from `Call[Answer]`."""
    for base in getattr(call, "__orig_bases__", ()):
        if get_origin(base) is Call:
            return cast("type[A]", get_args(base)[0])
    raise TypeError(f"{call} says not what it answers")


def encoded(encode: Callable[[object], bytes], value: object) -> bytes:
    """Encode and turn every way of failing into the caller's mistake: half a surrogate pair, an integer over 64 bits."""
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


def decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    """Decode and turn every way of failing into the caller's mistake."""
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidCall(
            f"malformed: {told(error)}",
            hint="see the reference of the system calls; if AIOS was updated, start the kernel again",
        ) from error


_to_client: Reader[ToClient] = Reader(msgspec.msgpack.Decoder, ToClient)


@cache
def _frame_of(call: type[Call[Answer]]) -> Callable[[bytes], object]:
    end = Result[answer_of(call)]  # type: ignore[misc, valid-type] # a type that is known only now
    form = Token | Line | Change | Advance | end | Fault
    return Reader[object](msgspec.msgpack.Decoder, form).decode
