"""The file that notes and files of a home are kept in: entries, one behind the other, and a digest of them all at the end.

    `aios-archive 1` and a line feed | length, 4 bytes | an entry in msgpack | length | entry | ... | length | `Sealed`

What an entry refers to stands before it: the blobs of a version, the notes of a link. So it is written and read in one pass, with one
entry in memory. A reader trusts nothing: kind, version, lengths, types and the digest are checked. The digest shows damage; it is no
signature, so who may write the file can also write another one.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Annotated, BinaryIO, Literal

import msgspec
from msgspec import Meta, Struct

from aios.abi.memory import MAX_TAGS, Importance, UnixSeconds
from aios.abi.types import MAX_INT, ShortText
from aios.errors import InvalidCall
from aios.readers import Reader

MAGIC = b"aios-archive"
VERSION = 1
LENGTH_BYTES, DIGEST_BYTES = 4, 32
MAX_ENTRY_BYTES = 64 << 20
"""A version of a file of 700 GB is this long; nothing else comes near."""


Hash = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Positive = Annotated[int, Meta(ge=1, le=MAX_INT >> 10)]
"""Numbers that are given one by one: behind the greatest there is room for all that will come."""
NotNegative = Annotated[int, Meta(ge=0, le=MAX_INT)]


class SavedNote(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="note"):
    """A note with the space that it lies in, and its vector if it has one. It may be one of blanks, as earlier versions kept them."""

    id: Positive
    scope: Literal["agent", "group", "shared"]
    space_owner: ShortText
    space_name: ShortText
    text: Annotated[str, Meta(min_length=1, max_length=1 << 16)]
    tags: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=MAX_TAGS)
    ]
    importance: Importance
    owner: ShortText
    name: ShortText
    pid: NotNegative
    seq: NotNegative
    source: ShortText
    created_unix_s: UnixSeconds
    valid_from_unix_s: UnixSeconds
    valid_to_unix_s: UnixSeconds | None
    expires_unix_s: UnixSeconds | None
    n_used: NotNegative
    embedder: ShortText
    vector: bytes
    taint: ShortText = ""


class SavedReplacement(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="replacement"
):
    """A note that took the place of another."""

    old: Positive
    new: Positive


class SavedLink(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="link"):
    """Two notes that are linked."""

    a: Positive
    b: Positive


class SavedInteraction(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="interaction"
):
    """A record of short-term memory."""

    owner: ShortText
    name: ShortText
    id: Positive
    unix_s: UnixSeconds
    kind: ShortText
    text: Annotated[str, Meta(max_length=1 << 16)]
    taint: ShortText = ""


class SavedBlob(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="blob"):
    """A piece of the contents of files, packed by zlib if that made it shorter."""

    size_bytes: NotNegative
    is_packed: bool
    data: bytes


class SavedVersion(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="version"):
    """A version of a file; `blobs` None: it was deleted. Those of one transaction stand behind each other."""

    path: ShortText
    version: Positive
    blobs: tuple[Hash, ...] | None
    transaction: Positive
    boot: NotNegative
    pid: NotNegative
    author: ShortText
    unix_s: UnixSeconds
    message: ShortText
    taint: ShortText = ""


class SavedShare(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="share"):
    """A path that others may use."""

    path: ShortText
    grantee: ShortText
    access: Literal["read", "write"]
    taint: ShortText = ""


class Sealed(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="sealed"):
    """The last entry: how many stand before it, and the digest of all bytes before it."""

    n_entries: NotNegative
    digest: Hash


NoteEntry = SavedNote | SavedReplacement | SavedLink | SavedInteraction
FileEntry = SavedBlob | SavedVersion | SavedShare
Entry = NoteEntry | FileEntry


class Writer:
    """Writes an archive; without `seal` it is none."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._digest = blake2b(digest_size=DIGEST_BYTES)
        self._encoder = msgspec.msgpack.Encoder()
        self.n_entries = 0
        self._write(b"%s %d\n" % (MAGIC, VERSION))

    def put(self, entry: Entry) -> None:
        """Add an entry."""
        self._put(entry)
        self.n_entries += 1

    def seal(self) -> None:
        """Add the digest; nothing comes behind it."""
        self._put(Sealed(self.n_entries, self._digest.digest()))

    def _put(self, entry: Entry | Sealed) -> None:
        data = self._encoder.encode(entry)
        assert len(data) <= MAX_ENTRY_BYTES, "an entry is as long as what it is made of"
        self._write(len(data).to_bytes(LENGTH_BYTES) + data)

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._out.write(data)


_entries: Reader[Entry | Sealed] = Reader(msgspec.msgpack.Decoder, Entry | Sealed)


def read_entries(file: BinaryIO) -> Iterator[Entry]:
    """The entries of an archive. What came is only known to be whole when the last one has come.

    Raises:
        InvalidCall: It is no archive, of another version, cut off, or was changed.
    """
    digest = blake2b(digest_size=DIGEST_BYTES)
    digest.update(_read_head(file))
    n_entries = 0
    while True:
        length = _read_exactly(file, LENGTH_BYTES)
        n_bytes = int.from_bytes(length)
        if n_bytes > MAX_ENTRY_BYTES:
            raise damaged(f"entry {n_entries + 1} claims {n_bytes} bytes")
        data = _read_exactly(file, n_bytes)
        try:
            entry = _entries.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise damaged(f"entry {n_entries + 1}: {error}") from error
        if isinstance(entry, Sealed):
            break
        yield entry
        digest.update(length + data)
        n_entries += 1
    if entry != Sealed(n_entries, digest.digest()):
        raise damaged("its digest is not that of its content")
    if file.read(1):
        raise damaged("something stands behind its end")


def damaged(why: str) -> InvalidCall:
    """The error for an archive that is not as it was written."""
    return InvalidCall(
        f"the archive is damaged or was changed: {why}",
        hint="nothing was taken in; use another copy",
    )


def _read_head(file: BinaryIO) -> bytes:
    head = file.readline(len(MAGIC) + 16)
    kind, _, version = head.rstrip(b"\n").partition(b" ")
    if kind != MAGIC:
        raise InvalidCall("this is no archive", hint="`aios export FILE` writes one")
    if version != b"%d" % VERSION or not head.endswith(b"\n"):
        found = version.decode("ascii", "replace")
        raise InvalidCall(
            f"an archive of version {found}; this AIOS reads {VERSION}",
            hint="use the AIOS that wrote it",
        )
    return head


def _read_exactly(file: BinaryIO, n_bytes: int) -> bytes:
    data = file.read(n_bytes)
    if len(data) < n_bytes:
        raise damaged("it is cut off")
    return data
