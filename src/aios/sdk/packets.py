"""What both sockets of the SDK share: cutting a byte stream into packets, and what a server's greeting means. Pure."""

import sys

from aios.abi.gate import error_of
from aios.abi.packets import HEADER_BYTES, Refusal, Reply, Welcome, packet_size, unpack_to_client
from aios.abi.types import Pid
from aios.errors import KernelUnreachable

CHUNK_BYTES = 256 << 10
"""How much is read from a socket at once."""
MAX_SOCKET_PATH_BYTES = 107
"""Linux has 108 bytes for the path of a Unix socket, the last of them zero."""


class PacketBuffer:
    """Takes bytes as they arrive and gives whole packets."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def n_held(self) -> int:
        """Bytes of what `feed` has not given yet."""
        return len(self._data)

    def feed(self, data: bytes, *, at_most: int = sys.maxsize) -> list[bytes]:
        """Add bytes; return the bodies of the first `at_most` packets that are now complete. No bytes at all give the next.

        Raises:
            TooLarge: A header announces more than the wire allows.
        """
        if not self._data and len(data) > HEADER_BYTES:
            body = data[HEADER_BYTES:]
            if packet_size(data[:HEADER_BYTES]) == len(body):
                return [body]  # as most come
        self._data += data
        bodies: list[bytes] = []
        start = 0
        while len(self._data) - start >= HEADER_BYTES and len(bodies) < at_most:
            begin = start + HEADER_BYTES
            end = begin + packet_size(bytes(self._data[start:begin]))
            if end > len(self._data):
                break
            bodies.append(bytes(self._data[begin:end]))
            start = end
        del self._data[:start]
        return bodies


def read_greeting(body: bytes) -> Pid:
    """The process that the connection speaks for, from the server's first packet.

    Raises:
        AiosError: The server refuses; its reason.
        KernelUnreachable: Whoever listens there is no kernel.
    """
    match unpack_to_client(body):
        case Welcome(pid=pid):
            return pid
        case Refusal(fault=fault):
            raise error_of(fault)
        case Reply():
            raise broken("the server's first packet was no greeting")


def broken(why: object) -> KernelUnreachable:
    """The error for a connection that ended."""
    return KernelUnreachable(
        f"the connection to the kernel broke: {words(why)}",
        hint="the kernel ended or was killed; start it again (`aios serve`)",
    )


def unreachable(path: str, why: object) -> KernelUnreachable:
    """The error for a connection that never was."""
    return KernelUnreachable(
        f"no kernel listens at {path}: {words(why)}", hint="start one with `aios serve`"
    )


def words(why: object) -> str:
    """A reason in words; many errors of the network carry none."""
    return str(why) or type(why).__name__
