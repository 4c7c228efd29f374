"""Generations on their way: what a model says is journalled in pieces, so that a kill costs the last half second of it.

A piece is the text and the tokens since the piece before. Once the call is settled its pieces are gone, for its answer is in the
journal; so they only outlive a kernel that was killed, or ended, in the middle. When the same process asks for the same again, the
generation goes on behind them. Generations of less than `PIECE_S` write nothing.
"""

import secrets
from collections.abc import Callable
from hashlib import blake2b

import apsw
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from aios.abi.types import Pid
from aios.disk.migrations import Schema
from aios.engine.base import Ability, Begun, Capabilities, Delta, Job
from aios.kernel.clock import Clock
from aios.kernel.journal.disk import JournalDisk

PIECE_S = 0.5
"""The time from one piece to the next."""
PIECE = "piece"
"""What the event is called that tells watchers of one."""
TOKEN_BYTES = 4
DIGEST_BYTES = 16

SCHEMA = Schema(
    "streams",
    (
        """
        CREATE TABLE stream_pieces (
            number INTEGER PRIMARY KEY, stream INTEGER NOT NULL, pid INTEGER NOT NULL, digest BLOB NOT NULL,
            seed INTEGER NOT NULL, fingerprint TEXT NOT NULL, tokens BLOB NOT NULL, text TEXT NOT NULL
        );
        CREATE INDEX stream_pieces_by_stream ON stream_pieces (stream);
        """,
    ),
)

Tell = Callable[[Pid, str, str], None]
Key = tuple[Pid, bytes]


class CutOff(Struct, frozen=True):
    """What a kernel before this one had of a generation."""

    stream: int
    seed: int
    begun: Begun


class Streams:
    """The streams of all processes.

    Args:
        clock: The kernel's.
        tell: Tells watchers of a piece.
        disk: Where pieces go; None keeps none.
    """

    def __init__(self, clock: Clock, tell: Tell, disk: JournalDisk | None) -> None:
        self.clock = clock
        self.tell = tell
        self.disk = disk
        self._cut_off: dict[Key, CutOff] = {}

    async def load(self, is_alive: Callable[[Pid], bool]) -> None:
        """Take up what the kernel before had, of processes that go on."""
        assert self.disk is not None, "a kernel without a journal has nothing to take up"
        self._cut_off = await self.disk.read(load)
        for pid in {pid for pid, _ in self._cut_off if not is_alive(pid)}:
            self.forget(pid)

    def of_call(self, pid: Pid) -> "CallStreams":
        """Those of one call that a process makes."""
        return CallStreams(self, pid)

    def open(self, pid: Pid, job: Job) -> "Stream":
        """The stream of a generation that begins, or goes on. `job` is as it was asked for, without a seed that was drawn."""
        cut_off = None
        if self._cut_off and any(each == pid for each, _ in self._cut_off):
            cut_off = self._cut_off.pop((pid, digest_of(job)), None)
        return Stream(self, pid, job, cut_off)

    def forget(self, pid: Pid) -> None:
        """A process has ended: nobody will ask for its generations again."""
        keys = [key for key in self._cut_off if key[0] == pid]
        for key in keys:
            del self._cut_off[key]
        if keys and self.disk is not None:
            query = "DELETE FROM stream_pieces WHERE pid = ?"
            self.disk.add(lambda connection: connection.execute(query, (pid,)))


class CallStreams:
    """The generations of one call: mostly one, and those that made room for it."""

    def __init__(self, streams: Streams, pid: Pid) -> None:
        self._streams = streams
        self._pid = pid
        self._opened: list[Stream] = []

    def open(self, job: Job) -> "Stream":
        """The stream of the next one."""
        self._opened.append(stream := self._streams.open(self._pid, job))
        return stream

    def settle(self) -> None:
        """The call has ended."""
        for stream in self._opened:
            stream.settle()


class Stream:
    """The pieces of one generation. Without a piece it costs a look at the clock for each delta."""

    def __init__(self, streams: Streams, pid: Pid, job: Job, cut_off: CutOff | None) -> None:
        self._streams = streams
        self._pid = pid
        self._job = job
        self._cut_off = cut_off
        self._fingerprint = ""
        self._text: list[str] = []
        self._tokens: list[int] = []
        self._told: list[str] = []
        self._last_s = streams.clock.now_s()
        self._is_kept = True
        self._number = cut_off.stream if cut_off is not None else 0
        """Its own on disk; 0 as long as nothing is there."""
        self.seed = cut_off.seed if cut_off is not None else job.sampling.seed

    def begin(self, engine: Capabilities, job: Job) -> Begun | None:
        """An engine takes the job on. Returns: what it is to go on from, if that engine began it and it may still grow."""
        self._is_kept = Ability.SNAPSHOT in engine.abilities and job.top_logprobs is None
        self._fingerprint = engine.fingerprint
        cut_off, self._cut_off = self._cut_off, None
        if cut_off is None:
            self._forget()
            return None
        begun, n_max = cut_off.begun, job.max_tokens
        has_room = n_max is None or len(begun.tokens) < n_max
        if self._is_kept and begun.fingerprint == engine.fingerprint and has_room:
            return begun
        self._forget()
        return None

    def add(self, delta: Delta) -> None:
        """Take in what came. What is behind a tool call is not kept: a generation that is cut off there goes on from before it."""
        if delta.text:
            self._told.append(delta.text)
        if delta.tool_calls or delta.finish is not None:
            self._is_kept = False
        if self._is_kept:
            self._text.append(delta.text)
            self._tokens += delta.tokens
        now_s = self._streams.clock.now_s()
        if delta.finish is not None or now_s - self._last_s >= PIECE_S:
            self._last_s = now_s
            self._tell()
            if self._is_kept and self._tokens:
                self._write()

    def settle(self) -> None:
        """The call has ended, and how is in the journal: its pieces are of no more use."""
        disk, number = self._streams.disk, self._number
        if disk is not None and number:
            query = "DELETE FROM stream_pieces WHERE stream = ?"
            disk.add(lambda connection: connection.execute(query, (number,)))
        self._number = 0

    def _forget(self) -> None:
        """Nothing that was said so far is a part of what comes: an engine begins anew."""
        self.settle()
        self._text, self._tokens, self._told = [], [], []

    def _tell(self) -> None:
        if self._told:
            self._streams.tell(self._pid, PIECE, "".join(self._told))
            self._told = []

    def _write(self) -> None:
        disk = self._streams.disk
        if disk is None:
            return
        tokens = b"".join(token.to_bytes(TOKEN_BYTES, "little") for token in self._tokens)
        self._number = self._number or secrets.randbits(62) + 1
        head = (self._number, self._pid, digest_of(self._job), self.seed, self._fingerprint)
        row = (*head, tokens, "".join(self._text))
        self._text, self._tokens = [], []
        query = (
            "INSERT INTO stream_pieces (stream, pid, digest, seed, fingerprint, tokens, text) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        disk.add(lambda connection: connection.execute(query, row))


def digest_of(job: Job) -> bytes:
    """What a generation is known by: all that is asked for. Cost: reads the whole prompt; only long generations pay it."""
    asked = replace(job, is_urgent=False, begun=None)
    return blake2b(msgspec.msgpack.encode(asked), digest_size=DIGEST_BYTES).digest()


def load(connection: apsw.Connection) -> dict[Key, CutOff]:
    """All generations that were cut off. Of several of one job, the one that was written to last."""
    by_stream: dict[int, CutOff] = {}
    found: dict[Key, CutOff] = {}
    query = "SELECT stream, pid, digest, seed, fingerprint, tokens, text FROM stream_pieces ORDER BY number"
    for columns in connection.execute(query):
        stream, pid, digest, seed, fingerprint, tokens, text = msgspec.convert(columns, _Columns)
        before = by_stream.get(stream, CutOff(stream, seed, Begun(fingerprint, (), "")))
        begun = Begun(
            fingerprint,
            (*before.begun.tokens, *memoryview(tokens).cast("I")),
            before.begun.text + text,
        )
        found[(Pid(pid), digest)] = by_stream[stream] = replace(before, begun=begun)
    return found


_Columns = tuple[int, int, bytes, int, str, bytes, str]
