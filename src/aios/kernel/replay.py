"""What a process is told when it runs again: the journal's answers, each once, until none is left. Pure.

A call is known by its digest. Tasks of one program may ask in another order than before, since answers now come at once; so
a call takes the oldest record of its digest, wherever that stands. What the kernel asked for a tool of its own, or to undo a call, is not
asked for again by the program, nor what functions asked that it serves as tools (`retaking.py`), so they are no part of this. A call that the journal has not may only be new: it
waits until the others have caught up, if calls of this program ever overlapped, and else it diverges.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from aios.abi.calls import Logs
from aios.abi.storage import FileWatch
from aios.abi.timers import SleepUntil
from aios.abi.wire import decode_call
from aios.errors import ReplayDivergence
from aios.kernel.jobwork import JobWork
from aios.kernel.journal.records import SKIPPED, Outcome, Record
from aios.kernel.journal.tables import Row
from aios.kernel.journal.texts import write_call

TOLD = frozenset({Outcome.DONE, Outcome.FAULT})


def is_followed(call: object) -> bool:
    """Whether a call brings what it reads in pieces, as they come, until it is cancelled: they are not in the journal, and are read again."""
    return isinstance(call, FileWatch | Logs) and call.follow


def is_long(call: object) -> bool:
    """Whether a call may last, and begins where it began when it is made again: its intent is on disk soon after that."""
    return is_followed(call) or (isinstance(call, SleepUntil) and call.after_s > 0)


class Replay:
    """The records of one life of a process that were not asked for again yet.

    Args:
        rows: All of them. What was asked is not looked at, so rows without texts will do.
        job_work: What functions did to contexts; None: nothing.
    """

    def __init__(self, rows: Sequence[Row], job_work: JobWork | None = None) -> None:
        settled = [row for row in rows if row.record.outcome is not Outcome.OPEN]
        asked = [row for row in settled if not (row.record.within or row.record.job)]
        self._rows = {row.record.seq: row for row in asked if row.record.outcome not in SKIPPED}
        self._by_digest: dict[bytes, deque[int]] = {}
        for seq, row in self._rows.items():
            self._by_digest.setdefault(row.record.digest, deque()).append(seq)
        self._order = deque(self._rows)
        """Their numbers, and those of others that were taken."""
        self._all = rows
        self.job_work = JobWork((), ()) if job_work is None else job_work
        self.is_ending = False
        """Nothing is left, and what functions did is being done again."""
        self.n_replayed = 0
        self._within: dict[int, list[Row]] = {}
        for row in settled:
            if row.record.within and row.record.outcome in TOLD:
                self._within.setdefault(row.record.within, []).append(row)
        self.has_overlaps = _has_overlaps(asked, _is_gap(settled))
        """Calls were in flight at the same time."""

    @property
    def is_over(self) -> bool:
        """Nothing is left."""
        return not self._rows

    @property
    def n_left(self) -> int:
        """Records that were not asked for."""
        return len(self._rows)

    @property
    def left(self) -> list[Record]:
        """Those."""
        return [row.record for row in self._rows.values()]

    def take(self, digest: bytes) -> Row | None:
        """The oldest record of a call, which is given once; None if there is none."""
        seqs = self._by_digest.get(digest)
        if not seqs:
            return None
        self.n_replayed += 1
        return self._rows.pop(seqs.popleft())

    def within(self, seq: int) -> list[Row]:
        """What the kernel asked in the course of a call, as far as that ended."""
        return self._within.get(seq, [])

    def behind(self, seq: int) -> Iterator[Row]:
        """The records behind a number, also those without an outcome, in order."""
        begin = bisect_right(self._all, seq, key=lambda row: row.record.seq)
        return islice(self._all, begin, None)

    @property
    def lag_s(self) -> float:
        """How long after its first call the program made the oldest one that is left; 0 if none is."""
        if self.is_over:
            return 0.0
        return self.expected().record.begun_unix_s - self._all[0].record.begun_unix_s

    def expected(self) -> Row:
        """The oldest record that is left."""
        while self._order[0] not in self._rows:
            self._order.popleft()
        return self._rows[self._order[0]]

    def check_invariants(self) -> None:
        """Raise AssertionError if a record would be given twice, or never."""
        assert sum(map(len, self._by_digest.values())) == len(self._rows)


def retell(rows: Sequence[Row]) -> Iterator[Row]:
    """Ask each call of a run again, in its order, and give what it is told: by the same way as a program that runs again.

    A call that was too long to be kept is asked by its digest alone; one without an outcome is told nothing.

    Raises:
        ReplayDivergence: A call is not what this version of AIOS would ask by those bytes, so a program would not find it.
    """
    replay = Replay(rows)
    for row in rows:
        record = row.record
        digest = write_call(decode_call(row.intent)).digest if row.intent else record.digest
        if digest != record.digest:
            raise ReplayDivergence(
                f"call {record.seq} ({record.call}) is known as {record.digest.hex()} in the journal, and asks as {digest.hex()} now",
                hint="another version of AIOS kept it, or the journal is damaged: `aios fsck`",
            )
        is_asked = record.outcome not in SKIPPED | {Outcome.OPEN}
        is_asked = is_asked and not (record.within or record.job)
        yield (replay.take(digest) or row) if is_asked else row


def _is_gap(rows: Sequence[Row]) -> bool:
    """Whether a number is missing: that of a call which was cut off while others went on."""
    return bool(rows) and rows[-1].record.seq - rows[0].record.seq >= len(rows)


def _has_overlaps(rows: Sequence[Row], is_gap: bool) -> bool:
    """Whether one began before another had ended."""
    if is_gap:
        return True
    ends = (before.record.ended_unix_s for before in rows)
    begins = (after.record.begun_unix_s for after in rows[1:])
    return any(end > begin for end, begin in zip(ends, begins, strict=False))
