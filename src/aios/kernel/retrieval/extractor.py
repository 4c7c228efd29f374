"""The process that reads files for the index: bytes in on stdin, passages out on stdout, one file after another.

    request:  4 bytes length, then a msgpack `Job` with the bytes of the file
    reply:    4 bytes length, then a msgpack `Extracted`

It limits itself before it reads anything: memory, open files, no writing. Its parent (`extraction_process.py`) ends it when it
takes too long.
"""

import resource
import struct
import sys
from typing import BinaryIO

import msgspec

from aios.kernel.retrieval import passages
from aios.kernel.retrieval.extraction import NotReadable, lines_of
from aios.kernel.retrieval.formats import Form
from aios.readers import from_msgpack

MEMORY_BYTES = 1 << 30
LENGTH = struct.Struct("<I")


class Job(msgspec.Struct, frozen=True):
    """A file to read."""

    form: Form
    data: bytes


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A passage: its lines, counted from 1, and its text."""

    first: int
    last: int
    text: str


class Extracted(msgspec.Struct, frozen=True):
    """The passages of a file, or why there are none."""

    pieces: tuple[Piece, ...] = ()
    problem: str = ""


def extract(job: Job) -> Extracted:
    """Read one file."""
    try:
        lines = lines_of(job.data, job.form)
        found = passages.cut(lines)
        return Extracted(tuple(Piece(each.first, each.last, clean(each.text)) for each in found))
    except NotReadable as error:
        return Extracted(problem=str(error))
    except (MemoryError, RecursionError) as error:
        return Extracted(problem=f"too much to read: {type(error).__name__}")


def clean(text: str) -> str:
    """Without what no database and no terminal wants: lone surrogates and NUL."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until there are no more requests."""
    encoder = msgspec.msgpack.Encoder()
    while len(head := requests.read(LENGTH.size)) == LENGTH.size:
        (n_bytes,) = LENGTH.unpack(head)
        reply = encoder.encode(extract(from_msgpack(requests.read(n_bytes), Job)))
        replies.write(LENGTH.pack(len(reply)) + reply)
        replies.flush()


def limit(memory_bytes: int) -> None:
    """Give up what reading does not need; it cannot be got back."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


if __name__ == "__main__":
    limit(MEMORY_BYTES)
    serve(sys.stdin.buffer, sys.stdout.buffer)
