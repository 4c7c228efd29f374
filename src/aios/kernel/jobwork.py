"""What functions that a program serves did to its contexts, for a program that runs again: the functions are not, but a conversation is the kernel's. Pure, but for `read_work`.

A context that a function made and a function closed is left out, unless the program itself asked something of it.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from functools import partial

import apsw
from msgspec import Struct

from aios.abi.contexts import ContextInfo
from aios.abi.types import ContextId, Pid
from aios.abi.wire import decode_answer, decode_call
from aios.kernel.journal import tables
from aios.kernel.journal.records import Outcome, Record
from aios.kernel.journal.tables import Row

MAKING = frozenset({"context_open", "context_fork", "context_restore"})
CLOSING = "context_close"
WRITING = frozenset({
    "chat",
    "context_append",
    CLOSING,
    "context_compact",
    "context_fault",
    "context_undo",
}) | MAKING  # fmt: skip


class Work(Struct, frozen=True):
    """A call of a function, and the contexts that it wrote in and made; None: there is none. What it asked and was told is on disk."""

    record: Record
    context: ContextId | None
    made: ContextId | None


class JobWork:
    """The calls that are not done again yet.

    Args:
        rows: What functions asked.
        own: What the program itself asked; looked at only if that matters.
    """

    def __init__(self, rows: Iterable[Row], own: Iterable[Row]) -> None:
        works = [work for row in rows if (work := _work_of(row)) is not None]
        gone = _gone(works, own)
        kept = [work for work in works if not gone & {work.context, work.made}]
        self._works = {work.record.seq: work for work in kept}
        self._order = deque(self._works)
        self._making = {work.made: work for work in kept if work.made is not None}
        self._on: defaultdict[ContextId, deque[int]] = defaultdict(deque)
        for seq, work in self._works.items():
            for each in (work.context, work.made):
                if each is not None:
                    self._on[each].append(seq)

    def take(self, context: ContextId | None = None, before: int | None = None) -> Work | None:
        """The oldest, which is given once; for a context the oldest that it needs, of those before that call of the program."""
        order = self._order
        if context is not None:
            source, before = self._source(context, before)
            order = self._on[source]
        while order and order[0] not in self._works:
            order.popleft()
        if not order or (before is not None and order[0] > before):
            return None
        return self._works.pop(order.popleft())

    def _source(self, context: ContextId, before: int | None) -> tuple[ContextId, int | None]:
        """Where to begin: at what a context was forked from, up to the fork, as long as that is not done."""
        while (making := self._making.get(context)) is not None and making.context is not None:
            seq = making.record.seq
            if seq not in self._works or (before is not None and seq > before):
                break
            context, before = making.context, seq
        return context, before


def read_work(connection: apsw.Connection, pid: Pid, *, after: int) -> JobWork:
    """What functions of a process did behind a number, from its journal. Cost: reads their calls, and keeps none."""
    each = partial(tables.each, connection, pid, after=after, calls=WRITING)
    return JobWork(each(of_functions=True), each(of_functions=False))


def _work_of(row: Row) -> Work | None:
    record = row.record
    is_done = record.outcome is Outcome.DONE and row.intent
    if not (record.job and is_done and record.call in WRITING):
        return None
    call = decode_call(row.intent)
    context: ContextId | None = getattr(call, "context", None)
    is_making = record.call in MAKING
    if context is None and not is_making:
        return None
    answer = decode_answer(row.answer) if is_making else None
    made = answer.id if isinstance(answer, ContextInfo) else None
    return Work(record, context, made)


def _gone(works: Sequence[Work], own: Iterable[Row]) -> set[ContextId]:
    """Contexts that functions made and closed, and all forks of them; not those that the program asked something of itself."""
    closed = {work.context for work in works if work.record.call == CLOSING}
    if not any(work.made in closed for work in works):
        return set()
    closed -= _used(own)
    forks: defaultdict[ContextId, set[ContextId]] = defaultdict(set)
    gone = set[ContextId]()
    for work in reversed(works):
        if work.made is None:
            continue
        if work.made in closed and forks[work.made] <= gone:
            gone.add(work.made)
        if work.context is not None:
            forks[work.context].add(work.made)
    return gone


def _used(own: Iterable[Row]) -> set[ContextId | None]:
    """The contexts on which the program itself made calls."""
    asked = (row.intent for row in own if row.record.call in WRITING and row.intent)
    return {getattr(decode_call(intent), "context", None) for intent in asked}
