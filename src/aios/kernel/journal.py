"""The journal: every system call's intent before it acts, and its outcome after.

In memory for now, bounded, oldest records first out. The call path already keeps the order that a journal on disk needs:
`begin` the intent, `commit` before any effect, `settle` the outcome.
"""

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import TypeVar

from aios.abi.call import Answer, Call
from aios.abi.types import Pid
from aios.abi.wire import encode_call

A = TypeVar("A", bound=Answer)


class Effect(Enum):
    """What a call does to the world, which decides how an unsettled intent is settled after a crash."""

    PURE = "pure"  # none: doing it again is harmless
    REVERSIBLE = "reversible"  # can be undone
    COMPENSABLE = "compensable"  # can be made good by another act
    IRREVERSIBLE = "irreversible"


class Outcome(Enum):
    """How a call ended."""

    OPEN = "open"
    DONE = "done"
    FAULT = "fault"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Record:
    """One call of one process: `seq` counts the calls of that process from 1."""

    pid: Pid
    seq: int
    call: str
    call_hash: bytes
    effect: Effect
    begun_s: float
    outcome: Outcome = Outcome.OPEN
    code: str = ""
    ended_s: float = 0.0


@dataclass(frozen=True)
class JournalStatistics:
    """Counters of the journal."""

    n_records: int
    n_open: int
    n_written: int
    n_dropped: int


class Journal:
    """Records of calls, by process and sequence number. Settled records are dropped first; open ones never."""

    def __init__(self, *, max_records: int) -> None:
        self._max_records = max_records
        self._open: dict[tuple[Pid, int], Record] = {}
        self._settled: OrderedDict[tuple[Pid, int], Record] = OrderedDict()
        self._n_written = 0
        self._n_dropped = 0

    def begin(self, pid: Pid, seq: int, *, call: Call[A], effect: Effect, now_s: float) -> Record:
        """Write the intent of a call."""
        name = str(call.__struct_config__.tag)
        digest = blake2b(encode_call(call), digest_size=16).digest()
        record = Record(pid, seq, name, digest, effect, now_s)
        self._open[(pid, seq)] = record
        self._n_written += 1
        return record

    async def commit(self, record: Record) -> None:
        """Return when this record and all earlier ones of its process are as durable as this journal gets."""

    def settle(self, record: Record, outcome: Outcome, *, code: str = "", now_s: float) -> None:
        """Write how a call ended; a record is settled once."""
        assert record.outcome is Outcome.OPEN, f"{record} is settled already"
        record.outcome, record.code, record.ended_s = outcome, code, now_s
        key = (record.pid, record.seq)
        del self._open[key]
        self._settled[key] = record
        while self._settled and len(self._settled) + len(self._open) > self._max_records:
            self._settled.popitem(last=False)
            self._n_dropped += 1

    def records(self, pid: Pid) -> list[Record]:
        """The remembered records of a process in the order of its calls."""
        found = [r for part in (self._settled, self._open) for r in part.values() if r.pid == pid]
        return sorted(found, key=lambda record: record.seq)

    def statistics(self) -> JournalStatistics:
        """Counters; cheap."""
        n_open = len(self._open)
        return JournalStatistics(
            len(self._settled) + n_open, n_open, self._n_written, self._n_dropped
        )
