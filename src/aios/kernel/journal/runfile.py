"""A run as one file: what a process asked and was told, without secrets, to be kept, sent and compared.

    `aios-run 1` and a line feed | digest of the rest, 32 bytes | zlib of a `_Body` in msgpack

Texts are stored once, as in the database, so a file grows with what was said. A reader trusts nothing: format, version, digest,
types, references and the digest of each call are checked. Pure.
"""

import zlib
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from aios.abi.types import Pid
from aios.abi.wire import decode_answer, decode_call, decode_fault
from aios.errors import InvalidCall
from aios.kernel.journal.records import Effect, Link, Outcome, Record, Where, Written
from aios.kernel.journal.redaction import Redaction
from aios.kernel.journal.tables import Row
from aios.kernel.journal.texts import join_answer, join_call, write_answer, write_call, write_fault
from aios.readers import from_msgpack

MAGIC, VERSION = b"aios-run", 1
DIGEST_BYTES = 32
MAX_BODY_BYTES = 1 << 30
"""Of a file when it is unpacked; one that claims to be longer is not read."""
NOTHING = -1

Word = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]{0,256}(?!\n)$")]
"""It is shown on terminals, so it can do nothing there."""
Number = Annotated[int, Meta(ge=0, le=1 << 53)]
Seconds = Annotated[float, Meta(ge=0.0, le=1e11)]

T = TypeVar("T")


class Run(Struct, frozen=True):
    """A run as it was read from a file or from a journal."""

    name: str
    program: str
    """The name of its folder; empty if it was no program."""
    rows: tuple[Row, ...]


class _Line(Struct, frozen=True, array_like=True):
    """A record; texts are named by their place in the body."""

    seq: Annotated[int, Meta(ge=1, le=1 << 53)]
    call: Word
    digest: bytes
    effect: Effect
    where: Where
    outcome: Outcome
    begun_unix_s: Seconds
    ended_unix_s: Seconds
    waited_s: Seconds
    ran_s: Seconds
    n_preemptions: Number
    intent: int
    said: int | None
    answer: int
    message: int | None
    n_urgent: Number = 0
    within: Number = 0
    job: Number = 0


class _Body(Struct, frozen=True, forbid_unknown_fields=True):
    name: Word
    program: Word
    pid: Number
    texts: tuple[tuple[int, bytes], ...]
    """Each with the place of the one before it in its chain; those stand before it."""
    lines: tuple[_Line, ...]


def write_run(run: Run, redaction: Redaction) -> bytes:
    """A run as a file. What the redaction hides is not in it, and calls are known by what is left of them; of what it cannot hide a part of, nothing is there."""
    texts = _Texts()
    lines = tuple(_line(row, texts, redaction) for row in run.rows)
    pid = run.rows[0].record.pid if run.rows else 0
    name, program = redaction.text(run.name), redaction.text(run.program)
    body = _Body(name, program, pid, tuple(texts.items), lines)
    packed = zlib.compress(msgspec.msgpack.encode(body), 6)
    return b"%s %d\n%s%s" % (MAGIC, VERSION, _digest(packed), packed)


def read_run(data: bytes) -> Run:
    """The run in a file.

    Raises:
        InvalidCall: It is no such file, of another version, damaged, or contradicts itself.
    """
    head, _, rest = data.partition(b"\n")
    kind, _, version = head[:64].partition(b" ")
    if kind != MAGIC:
        raise InvalidCall("this is no run", hint="`aios journal export ID > FILE` writes one")
    if version != b"%d" % VERSION:
        found = version.decode("ascii", "replace")
        hint = "use the AIOS that wrote it"
        raise InvalidCall(f"a run of version {found}; this AIOS reads {VERSION}", hint=hint)
    digest, packed = rest[:DIGEST_BYTES], rest[DIGEST_BYTES:]
    if digest != _digest(packed):
        raise _damaged("its digest is not that of its content")
    body = _unpacked(packed)
    reader = _Reader(body.texts)
    rows = tuple(_row(line, Pid(body.pid), reader) for line in body.lines)
    seqs = [line.seq for line in body.lines]
    if sorted(set(seqs)) != seqs:
        raise _damaged("its records are not in order")
    return Run(body.name, body.program, rows)


class _Texts:
    """The texts of a file as they are gathered."""

    def __init__(self) -> None:
        self.items: list[tuple[int, bytes]] = []
        self._places: dict[tuple[int, bytes], int] = {}
        self._chains: dict[bytes, int] = {}

    def put(self, data: bytes, parent: int = NOTHING) -> int:
        """The place of a text behind another."""
        place = self._places.setdefault((parent, data), len(self.items))
        if place == len(self.items):
            self.items.append((parent, data))
        return place

    def put_chain(self, links: Sequence[Link], parent: int = NOTHING) -> int:
        """The place of the last text of a chain. Cost: that of what is new, and one look-up."""
        n_known = len(links)
        while n_known and links[n_known - 1].digest not in self._chains:
            n_known -= 1
        if n_known:
            parent = self._chains[links[n_known - 1].digest]
        for link in links[n_known:]:
            parent = self._chains[link.digest] = self.put(link.data, parent)
        return parent


class _Reader:
    """Texts by their place."""

    def __init__(self, texts: Sequence[tuple[int, bytes]]) -> None:
        self._texts = texts
        for place, (parent, _) in enumerate(texts):
            if not NOTHING <= parent < place:
                raise _damaged(f"text {place} follows on {parent}")

    def text(self, place: int) -> bytes:
        """One text."""
        if not 0 <= place < len(self._texts):
            raise _damaged(f"there is no text {place}")
        return self._texts[place][1]

    def chain(self, place: int) -> list[bytes]:
        """A text and all before it."""
        found = list[bytes]()
        while place != NOTHING:
            found.append(self.text(place))
            place = self._texts[place][0]
        return found[::-1]


def _line(row: Row, texts: _Texts, redaction: Redaction) -> _Line:
    record, digest = row.record, row.record.digest
    intent, said, asked = NOTHING, None, None
    call = redaction.call(decode_call(row.intent)) if row.intent else None
    if call is not None:
        asked = write_call(call)
        digest = asked.digest
        intent = texts.put(asked.head)
        said = None if asked.messages is None else texts.put_chain(asked.messages)
    answer, message = NOTHING, None
    told = _told(row, asked, redaction)
    if told is not None:
        answer = texts.put(told.head)
        if told.messages is not None:
            message = texts.put_chain(told.messages, NOTHING if said is None else said)
    return _Line(
        record.seq, record.call, digest, record.effect, record.where, record.outcome,
        record.begun_unix_s, record.ended_unix_s, record.waited_s, record.ran_s, record.n_preemptions,
        intent, said, answer, message, record.n_urgent, record.within, record.job,
    )  # fmt: skip


def _told(row: Row, asked: Written | None, redaction: Redaction) -> Written | None:
    if not row.answer:
        return None
    if row.record.outcome is Outcome.FAULT:
        return write_fault(redaction.fault(decode_fault(row.answer)))
    answer = redaction.answer(decode_answer(row.answer))
    return None if answer is None else write_answer(answer, asked)


def _row(line: _Line, pid: Pid, reader: _Reader) -> Row:
    record = Record(
        pid, line.seq, line.call, line.digest, line.effect, line.begun_unix_s, line.where,
        line.outcome, "", line.ended_unix_s, line.waited_s, line.ran_s, line.n_preemptions,
        line.n_urgent, within=line.within, job=line.job,
    )  # fmt: skip
    intent = answer = b""
    if line.intent != NOTHING:
        chain = None if line.said is None else reader.chain(line.said)
        intent = _joined(join_call, reader.text(line.intent), chain)
        call = decode_call(intent)
        if write_call(call).digest != line.digest or call.__struct_config__.tag != line.call:
            raise _damaged(f"call {line.seq} is not the one that was made")
    if line.answer != NOTHING:
        message = None if line.message is None else reader.text(line.message)
        answer = _joined(join_answer, reader.text(line.answer), message)
        _ = decode_fault(answer) if line.outcome is Outcome.FAULT else decode_answer(answer)
    return Row(record, intent, answer)


def _joined(join: Callable[[bytes, T], bytes], head: bytes, rest: T) -> bytes:
    try:
        return join(head, rest)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise _damaged(str(error)) from error


def _unpacked(packed: bytes) -> _Body:
    unzip = zlib.decompressobj()
    try:
        data = unzip.decompress(packed, MAX_BODY_BYTES)
        if not unzip.eof:
            raise _damaged(f"it is cut short, or longer than {MAX_BODY_BYTES} bytes")
        return from_msgpack(data, _Body)
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(str(error)) from error


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES, person=MAGIC).digest()


def _damaged(why: str) -> InvalidCall:
    return InvalidCall(f"this run is damaged: {why}", hint="export it again")
